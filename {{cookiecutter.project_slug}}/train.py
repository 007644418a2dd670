"""`python train.py …` is `python -m` the package with `train …`, of the source beside this file."""

import sys
from pathlib import Path

# Whatever else is installed under this name, and wherever this is started.
sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from {{ cookiecutter.__package }}.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
