"""Gradients are the task's own matter: a TensorFlow step is one traced function."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .alone import OneProcess
from .sections import Distributed

_ADVICE = "is PyTorch's way; compute the whole batch in one tf.function"


def num_pieces(distributed: Distributed, ranks: OneProcess) -> int:
    """How many pieces a batch has: it is never cut."""
    return 1


def gradients_for(num_pieces: int, accumulate: int, ranks: OneProcess) -> "WholeBatch":
    """What adds up the gradients of a step."""
    return WholeBatch()


class WholeBatch:
    """The batch of a step as it comes."""

    num_pieces = 1
    pieces = range(1)
    whole = True

    def place(self, module: Any) -> None:
        """Nothing to add up."""

    def cut(self, parts: Sequence[Any], seed: Callable[[int], None]) -> Iterator[Any]:
        """Refuse.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"run.pieces {_ADVICE}")

    def backward(self, loss: Any, scaler: Any = None) -> None:
        """Refuse.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"run.backward {_ADVICE}")

    def loss(self) -> Any:
        """Refuse.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"run.loss {_ADVICE}, and log the loss that it returns")
