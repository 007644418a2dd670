"""`python train.py …` runs `python -m <package> train …` from the source next to this file."""

import sys
from pathlib import Path

# Takes precedence over an installed package of this name, from any working directory.
sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from {{ cookiecutter.__package }}.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
