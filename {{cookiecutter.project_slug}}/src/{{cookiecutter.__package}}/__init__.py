"""A training package whose runs can be repeated bit for bit; `train.py` tells the story."""

from .repro.moved import forward

forward()  # lets this project import modules by their names in version 0.2.0
_HOME = {"train_model": "train", "set_seed": "repro", "load_config": "config"}

__all__ = ["load_config", "set_seed", "train_model"]


def __getattr__(name: str) -> object:
    # Lazy, so that `--help`, `compare` and `doctor` answer without importing torch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOME[name]}", __name__), name)
