"""`python train.py …` is `python -m` the package with `train …`."""

import sys

from {{ cookiecutter.__package }}.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
