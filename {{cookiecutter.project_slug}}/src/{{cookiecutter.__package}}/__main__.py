"""Entry point of `python -m <package>`; the commands are in `repro/cli.py`."""

import sys
from typing import Any

from .repro.entry import enter


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    enter()
    # Only now: with foreign modules on the path, even these imports could be shadowed.
    from .repro.cli import run_command

    return run_command(_config_class, _train, arguments)


# Not at the top: `--help` needs neither pydantic nor a framework.
def _config_class() -> Any:
    from .config import Config

    return Config


def _train(config: Any, **how: Any) -> Any:
    from .train import train_model

    return train_model(config, **how)


if __name__ == "__main__":
    sys.exit(main())
