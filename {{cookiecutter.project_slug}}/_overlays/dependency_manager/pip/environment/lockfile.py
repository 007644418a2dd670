"""pip's lock: a requirements file per accelerator, and one for torch, which may come from an index
of its own; and one for the notebook's tools, whatever the accelerator."""

import re

from locked import PYPI, ROOT, Artefact, Package, applies, parse_requirements, read_text, settings

PYTHON_ONLY = True
"""Whether every entry is a Python package, under the name it has when installed."""


def read_lock(environment: str, platform: str, groups: tuple[str, ...] = ("dev",)) -> list[Package]:
    """Read the packages of `environment` on `platform`, including the dependency groups.

    Raises:
        LockError: a file is missing or damaged.
    """
    found = []
    more = [f"{group}.txt" for group in groups if group != "dev"]  # dev is part of the environment
    for name in (*files(environment), *more):
        text = read_text(ROOT / "requirements" / name)
        option = re.search(r"^--index-url[ =](\S+)$", text, re.MULTILINE)
        index = option[1] if option else PYPI
        for package, version, marker, digests in parse_requirements(text):
            if applies(marker, platform):
                artefacts = tuple(Artefact("", digest) for digest in digests)
                found.append(Package(package, version, index, artefacts))
    return found


def files(environment: str) -> list[str]:
    """The files of an environment's lock, in the order of installation."""
    alone = "torch" in settings()["environments"][environment]
    return [*([f"torch-{environment}.txt"] if alone else []), f"{environment}.txt"]


def known_names() -> set[str]:
    """Names of all packages that the project locks, including the notebook's tools."""
    files = sorted((ROOT / "requirements").glob("*.txt"))
    texts = [read_text(path) for path in files if path.name != "mlflow.txt"]
    return {name for text in texts for name, *_ in parse_requirements(text)}
