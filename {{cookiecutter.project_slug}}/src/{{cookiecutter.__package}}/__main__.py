"""`python -m` this package: its commands are in `repro/cli.py`."""

import sys
from typing import Any

from .repro.entry import enter


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    enter()
    # Not before: with other people's modules on the path, even these could be other ones.
    from .config import Config
    from .repro.cli import run_command

    return run_command(Config, _train, arguments)


def _train(config: Any, **how: Any) -> Any:
    from .train import train_model  # it loads torch, which `--help` does without

    return train_model(config, **how)


if __name__ == "__main__":
    sys.exit(main())
