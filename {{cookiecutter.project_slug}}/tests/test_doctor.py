"""The doctor really looks: a checkout broken in one way fails that one item."""

import os
import shutil
import subprocess
from importlib import metadata

import pytest
from conftest import PACKAGE, ROOT

from {{ cookiecutter.__package }}.doctor import FAILS, examine


@pytest.fixture
def checkout(tmp_path):
    """A clean copy of this project as a git repository of its own."""
    kept = shutil.ignore_patterns(
        ".*env*", ".git", "outputs", "data", "__pycache__", ".conda*", ".pixi"
    )
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
    "data loaders are seeded": lambda root: (root / "src" / PACKAGE / "other.py").write_text(
        "from torch.utils import data\n\nloader = data.DataLoader([], shuffle=True)\n"
    ),
    "git tree is clean": lambda root: edit(root / "README.md", "Training", "training"),
}


@pytest.fixture
def pip_locks(checkout):
    """A lock of one package in pip's format, as if the project had been locked so."""
    for pattern in ("requirements/*.txt", "*.lock", "*.conda-lock.yml"):
        for path in checkout.glob(pattern):
            path.unlink()
    edit(checkout / "pyproject.toml", "locks = ", 'locks = ["requirements/*.txt"]\nother = ')
    (checkout / "requirements").mkdir(exist_ok=True)
    installed = metadata.version("pytest")
    lock = checkout / "requirements" / "cpu.txt"
    lock.write_text(f"pytest=={installed} \\\n    --hash=sha256:{'0' * 64}\n")
    return lock


def finding(root, item):
    return next(f for f in examine(root) if f.item == item)


def test_a_lock_without_a_hash_is_named(checkout, pip_locks):
    """Every requirement needs its own hash; a notebook's lock is no lock of the environment."""
    item = "lock is present and hashed"
    assert finding(checkout, item).status == "holds"
    pip_locks.write_text(pip_locks.read_text() + "loose==1.0\n")
    assert "loose" in finding(checkout, item).detail
    pip_locks.rename(pip_locks.with_name("notebook.txt"))
    assert "no lock of an environment" in finding(checkout, item).detail


def test_a_package_that_is_not_the_locks_is_named(checkout, pip_locks):
    """Another version and a missing package both fail."""
    item = "installed packages equal the lock"
    assert finding(checkout, item).status == "holds"
    pip_locks.write_text(f"pytest==0.0.1 \\\n    --hash=sha256:{'0' * 64}\n")
    assert "instead of 0.0.1" in finding(checkout, item).detail
    pip_locks.write_text(f"no-such-package==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    assert "no-such-package is missing" in finding(checkout, item).detail


def test_an_old_driver_is_named(checkout, monkeypatch, tmp_path):
    """The driver that nvidia-smi reports is held against the project's minimum."""
    path = checkout / "pyproject.toml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("min_driver")]
    path.write_text("\n".join(lines) + "\n")
    edit(path, "[tool.repro]\n", '[tool.repro]\nmin_driver = "580.65.06"\n')
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for version, status in (("570.10", FAILS), ("580.95.05", "holds")):
        tool.write_text(f"#!/bin/sh\necho {version}\n")
        tool.chmod(0o755)
        assert finding(checkout, "driver is new enough").status == status


@pytest.mark.parametrize("item", BREAKS)
def test_a_broken_checkout_fails_that_item(checkout, item):
    """What held before fails after the one change, and nothing but git's own view fails with it."""
    before = failing(checkout)
    assert item not in before
    BREAKS[item](checkout)
    assert failing(checkout) - before - {"git tree is clean"} == {item} - {"git tree is clean"}
    assert item in failing(checkout)
