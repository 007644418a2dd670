"""Numbers that a task logs: from tensors, NumPy and plain Python; from a GPU without waiting."""

from typing import Any

import torch
from torch import Tensor

from ..run.logs import Later, Number


class OnDevice(Later):
    """A one-element tensor on a GPU, on its way to the CPU: the loop need not wait for it."""

    def __init__(self, tensor: Tensor) -> None:
        # Into pinned memory, behind the work that computes it; what comes after may change it.
        self._copy = tensor.detach().to("cpu", non_blocking=True)
        self._copied = torch.cuda.Event()
        self._copied.record(torch.cuda.current_stream(tensor.device))

    def ready(self) -> bool:
        return self._copied.query()

    def number(self) -> Number:
        self._copied.synchronize()
        return self._copy.item()


def to_number(value: Any) -> Number | OnDevice:
    """Convert a number or a one-element tensor to a number that the logs accept; what is on a GPU
    comes later.

    Raises:
        ValueError: it is neither; the message is a phrase.
    """
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"a tensor of {value.numel()} elements; log a single number")
        if value.is_cuda and not value.is_complex() and value.dtype != torch.bool:
            return OnDevice(value)
        value = value.item()
    elif hasattr(value, "item") and getattr(value, "size", 1) == 1:
        value = value.item()  # NumPy's
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{type(value).__name__} {str(value)[:40]!r}; log a real number")
    return value
