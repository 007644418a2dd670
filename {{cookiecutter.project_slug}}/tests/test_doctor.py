"""The doctor really looks: a checkout broken in one way fails that one item."""

import shutil
import subprocess

import pytest
from conftest import ROOT

from {{ cookiecutter.__package }}.doctor import FAILS, examine


@pytest.fixture
def checkout(tmp_path):
    """A clean copy of this project as a git repository of its own."""
    kept = shutil.ignore_patterns(".*env*", ".git", "outputs", "data", "__pycache__", ".conda*")
    root = shutil.copytree(ROOT, tmp_path / "checkout", ignore=kept)
    shutil.copy(ROOT / ".env.example", root)
    git = ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "all"], check=True)
    return root


def failing(root):
    return {finding.item for finding in examine(root) if finding.status == FAILS}


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


BREAKS = {
    "Python is the project's": lambda root: (root / ".python-version").write_text("2.7\n"),
    "deterministic algorithms are on": lambda root: edit(
        root / "configs" / "baseline.yaml",
        "deterministic_algorithms: true",
        "deterministic_algorithms: false",
    ),
    "configs and seeds are in git": lambda root: (root / "configs" / "new.yaml").write_text(
        "seed: 0"
    ),
    "images are pinned by digest": lambda root: edit(root / "Dockerfile", "@sha256:", ":"),
    "environment variables are documented": lambda root: edit(
        root / ".env.example", "DATA_DIR=", "#"
    ),
    "README says what a stranger needs": lambda root: edit(
        root / "README.md", "## Known limits", "## Other"
    ),
    "README's commands exist": lambda root: edit(root / "README.md", "make setup", "make magic"),
    "git tree is clean": lambda root: edit(root / "README.md", "Training", "training"),
}


@pytest.mark.parametrize("item", BREAKS)
def test_a_broken_checkout_fails_that_item(checkout, item):
    """What held before fails after the one change, and nothing but git's own view fails with it."""
    before = failing(checkout)
    assert item not in before
    BREAKS[item](checkout)
    assert failing(checkout) - before - {"git tree is clean"} == {item} - {"git tree is clean"}
    assert item in failing(checkout)
