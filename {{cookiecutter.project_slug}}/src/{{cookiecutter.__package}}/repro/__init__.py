"""The machinery of bit-for-bit repeatable runs. It belongs to the template: upgrades replace it.

The names below are public; everything else may change from one release to the next. Nothing in
this folder imports the project's own modules.
"""

_HOME = {
    "Batches": "backend.loader",
    "Inert": "config.base",
    "Interrupted": "signals",
    "Result": "run.lifecycle",
    "Run": "run.lifecycle",
    "RunConfig": "config.run_config",
    "SampleStreams": "random.streams",
    "Section": "config.base",
    "set_seed": "backend.seeding",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    # Lazy, so that commands that need no framework do not load it.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOME[name]}", __name__), name)
