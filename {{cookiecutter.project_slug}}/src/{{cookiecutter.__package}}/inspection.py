"""What the doctor's items share: reading a checkout, and saying that something cannot be told."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any


class CannotTellError(Exception):
    """The item cannot be inspected on this machine."""


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


def git(root: Path, *arguments: str) -> str:
    """What git prints about the checkout at `root`.

    Raises:
        CannotTellError: there is no git, or `root` is not a repository of its own.
    """
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    except OSError:
        raise CannotTellError("git is not installed") from None
    top = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "--show-prefix"], capture_output=True, text=True
    )
    inside_another = top.stdout.strip() and not done.stdout and arguments[0] == "ls-files"
    if done.returncode or inside_another:
        raise CannotTellError("not a git repository; git init and commit")
    return done.stdout
