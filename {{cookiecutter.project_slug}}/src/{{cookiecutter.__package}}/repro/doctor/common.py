"""What the doctor's items share: reading a checkout, and saying that something cannot be told."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.run_config import RunConfig
from ..git import Checkout, read_checkout
from ..run.manifest import is_under_git


class CannotTellError(Exception):
    """The item cannot be inspected on this machine."""


@dataclass(frozen=True)
class Checked:
    """What is inspected: the checkout at `root`, and the class of its configurations."""

    root: Path
    config_class: type[RunConfig]


def settings(root: Path) -> dict[str, Any]:
    """`[tool.repro]` of `pyproject.toml`."""
    with (root / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["tool"]["repro"]


def cuda_environment(root: Path) -> dict[str, Any]:
    """The facts of the CUDA environment; empty where the project has none."""
    return settings(root)["environments"].get("cuda", {})


def requirements_table(root: Path) -> dict[str, str]:
    """The rows of the README's section Requirements by their first cell."""
    section = readme_section(root, "Requirements")
    rows = re.findall(r"^\| ([^|]+?) \| (.+) \|$", section, re.MULTILINE)
    return {name.split(" (")[0]: text for name, text in rows}


def readme_section(root: Path, title: str) -> str:
    """The text under a heading of the README, without the headings below it; or nothing."""
    text = (root / "README.md").read_text(encoding="utf-8")
    _, found, rest = f"\n{text}".partition(f"\n## {title}\n")
    return rest.partition("\n## ")[0].strip() if found else ""


def checkout(root: Path) -> Checkout:
    """What git has of `root`.

    Raises:
        CannotTellError: `root` is not a repository, or in one that knows nothing of it.
        GitError: git refuses.
    """
    if not is_under_git(root):
        raise CannotTellError("not a git repository; git init, git add --all, git commit")
    return read_checkout(root)
