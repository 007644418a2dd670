"""`python -m` this package: the commands are in `cli.py`, what comes before them in `entry.py`."""

import sys

from .repro.entry import enter


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    enter()
    # Not before: with other people's modules on the path, even this could be another program.
    from .repro.cli import main

    return main(arguments)


if __name__ == "__main__":
    sys.exit(main())
