"""Devices: choosing one for a run, describing it, and moving batches to it."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

CPU = torch.device("cpu")


def resolve_device(name: str, local_rank: int = 0) -> torch.device:
    """The device that `name` stands for on this machine; `auto` is a GPU, if there is one: the
    first, or of several processes each its own.

    Raises:
        ValueError: `cuda` was asked for and torch sees no GPU.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
        raise ValueError(
            f"the device is cuda, but torch {torch.__version__} ({build}) sees no GPU; "
            "use the device cpu, or check the driver with nvidia-smi"
        )
    if not available or name == "cpu":
        return CPU
    if local_rank:
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    return torch.device("cuda", torch.cuda.current_device())


def place(module: nn.Module, device: torch.device) -> nn.Module:
    """Move a module to `device`."""
    return module.to(device)


def move(batch: Any, device: torch.device) -> Any:
    """Move a batch to `device`: a tensor, or tuples, lists and dictionaries of tensors."""
    if isinstance(batch, torch.Tensor):
        return batch if batch.device == device else batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: move(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move(value, device) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(move(value, device) for value in batch)
    return batch


def wait_for_device() -> None:
    """Wait until the GPU has done all its work, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def mixed_precision() -> torch.autocast:
    """bfloat16 autocast for the operators of a training, on the GPU if there is one."""
    return torch.autocast("cuda" if torch.cuda.is_available() else "cpu", dtype=torch.bfloat16)


def describe_accelerator() -> dict[str, Any]:
    """What the manifest records about GPUs: `gpus`, `driver`, `cuda`, `cudnn`."""
    driver = Path("/proc/driver/nvidia/version")
    return {
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "driver": driver.read_text().splitlines()[0] if driver.exists() else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
    }
