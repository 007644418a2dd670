"""Shared by the checklist items: reading a checkout, and the error for what cannot be checked."""

import ast
import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..config.run_config import RunConfig
from ..git import Checkout, read_checkout
from ..run.manifest import is_under_git


class CannotTellError(Exception):
    """The item cannot be checked on this machine."""


class NotApplicableError(Exception):
    """The item is about something that this project does not use; it is left out."""


@dataclass(frozen=True)
class Checked:
    """What the doctor inspects: the checkout at `root`, and the class of its configurations."""

    root: Path
    config_class: type[RunConfig]

    @cached_property
    def sources(self) -> dict[Path, ast.Module]:
        """The project's code, parsed: several items read all of it."""
        paths = [*sorted(self.root.glob("src/*/**/*.py")), *self.root.glob("train.py")]
        return {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}

    @cached_property
    def calls(self) -> list[tuple[Path, ast.Call]]:
        """Every call in it, with the file it is in."""
        nodes = ((path, node) for path, tree in self.sources.items() for node in ast.walk(tree))
        return [(path, node) for path, node in nodes if isinstance(node, ast.Call)]


def settings(root: Path) -> dict[str, Any]:
    """`[tool.repro]` of `pyproject.toml`."""
    with (root / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["tool"]["repro"]


def cuda_environment(root: Path) -> dict[str, Any]:
    """The facts of the CUDA environment; empty if the project has none."""
    return settings(root)["environments"].get("cuda", {})


def requirements_table(root: Path) -> dict[str, str]:
    """The rows of the README's section Requirements, by their first cell."""
    section = readme_section(root, "Requirements")
    rows = re.findall(r"^\| ([^|]+?) \| (.+) \|$", section, re.MULTILINE)
    return {name.split(" (")[0]: text for name, text in rows}


def readme_section(root: Path, title: str) -> str:
    """The text under a heading of the README, without its subsections; empty if there is none."""
    text = (root / "README.md").read_text(encoding="utf-8")
    _, found, rest = f"\n{text}".partition(f"\n## {title}\n")
    return rest.partition("\n## ")[0].strip() if found else ""


def checkout(root: Path) -> Checkout:
    """The state of `root` in git.

    Raises:
        CannotTellError: `root` is not in a repository, or not tracked by the one it is in.
        GitError: git cannot read the repository.
    """
    if not is_under_git(root):
        raise CannotTellError("not a git repository; git init, git add --all, git commit")
    return read_checkout(root)
