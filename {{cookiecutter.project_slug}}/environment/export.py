"""Write the lock of an environment as requirements files with hashes, one for each index.

python environment/export.py cpu|cuda FOLDER [--notebook]                  (used by the Dockerfile)

The image installs from these files alone, so that only a change of the lock triggers a new
installation. `--notebook`: the notebook's additional packages.
"""

import argparse
import sys
from pathlib import Path

from check import lock_problems
from failure import SetupError, one_line
from locked import PYPI, here, requirements, settings
from lockfile import read_lock
from sources import Sources


def main() -> int:
    """Write the files and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("environment", choices=list(settings()["environments"]))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--notebook", action="store_true")
    options = parser.parse_args()
    if not here():
        raise SetupError("this platform is not one that the project is locked for")
    if problems := list(lock_problems(options.environment, here())):
        raise SetupError(f"the lock does not fit this project: {'; '.join(problems)}")
    packages = read_lock(options.environment, here())
    if options.notebook:
        there = {package.name for package in packages}
        both = read_lock(options.environment, here(), ("dev", "notebook"))
        packages = [package for package in both if package.name not in there]
    options.folder.mkdir(parents=True)
    sources = Sources.from_environment()
    for number, index in enumerate(sorted({package.index for package in packages})):
        lines = requirements(package for package in packages if package.index == index)
        option = " ".join(sources.pip_options(index) or ["--index-url", PYPI])
        path = options.folder / f"{number}.txt"
        path.write_text(f"{option}\n{lines}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(one_line(main))
