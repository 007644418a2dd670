"""Numbers that a task logs: from tensors, NumPy and plain Python."""

from typing import Any

from ..run.logs import Number
from .quiet import keras, tf


def to_number(value: Any) -> Number:
    """Convert a number or a one-element tensor to a number that the logs accept.

    Raises:
        ValueError: it is neither; the message is a phrase.
    """
    if isinstance(value, (tf.Tensor, tf.Variable, keras.Variable)):
        value = value.numpy()
        if value.size != 1:
            raise ValueError(f"a tensor of {value.size} elements; log a single number")
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{type(value).__name__} {str(value)[:40]!r}; log a real number")
    return value
