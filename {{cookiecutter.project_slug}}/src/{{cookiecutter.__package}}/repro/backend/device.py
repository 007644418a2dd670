"""Devices: which one a run uses, what is known of it, and moving batches there."""

from pathlib import Path
from typing import Any

import torch

CPU = torch.device("cpu")


def resolve_device(name: str) -> torch.device:
    """`auto` as a fact of this machine.

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
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def move(batch: Any, device: torch.device) -> Any:
    """A batch on `device`: a tensor, or tuples, lists and dictionaries of them."""
    if isinstance(batch, torch.Tensor):
        return batch if batch.device == device else batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: move(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move(value, device) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(move(value, device) for value in batch)
    return batch


def describe_accelerator() -> dict[str, Any]:
    """What a manifest says of GPUs: `gpus`, `driver`, `cuda`, `cudnn`."""
    driver = Path("/proc/driver/nvidia/version")
    return {
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "driver": driver.read_text().splitlines()[0] if driver.exists() else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
    }
