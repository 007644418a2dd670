"""Other tasks, put over a generated project as a user would: their files, and nothing else.

Regression on a table, a language model on a memory-mapped file, two networks that compete.
"""

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, commit
from lent import linked_copy

from tools import demo

pytestmark = pytest.mark.real
TASKS = ROOT / "tests" / "tasks"
STARTERS_TOO = ("language_model", "regression")
GENERIC = ("tests/test_reproducibility.py", "tests/test_quality.py")
"""What a project proves of any task; the other tests are of the shipped one."""


# A table and a language model are starters, too, whose own proof `tests/test_starters.py` runs.
OFTEN = [pytest.param("gan"), *(pytest.param(t, marks=pytest.mark.slow) for t in STARTERS_TOO)]


@pytest.fixture(scope="module", params=OFTEN)
def project(request, pip_project, tmp_path_factory):
    """A project with another task in it, and how many of its files that took."""
    left_out = shutil.ignore_patterns(".envs", ".venv", ".git", "outputs", "__pycache__")
    other = tmp_path_factory.mktemp(request.param) / "real"
    shutil.copytree(pip_project, other, ignore=left_out)
    linked_copy(pip_project / ".envs", other / ".envs")
    (other / ".venv").symlink_to(".envs/cpu")
    before = machinery(other)
    sources = sorted((TASKS / request.param).glob("*.py"))
    for path in sources:
        shutil.copy(path, other / "src" / "real" / path.name)
    shutil.copy(TASKS / request.param / "smoke.yaml", other / "configs" / "smoke.yaml")
    assert len(sources) <= 3
    assert machinery(other) == before
    commit(other)
    return other


def test_every_task_is_tried():
    """Here or with the slow tests."""
    assert {path.name for path in TASKS.iterdir()} == {"gan", *STARTERS_TOO}


def machinery(project: Path) -> dict[str, bytes]:
    """Every file of the template's."""
    folders = (project / "src" / "real" / "repro", project / "environment")
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    return {str(path.relative_to(project)): path.read_bytes() for path in paths}


def run(project: Path, *arguments: object) -> str:
    """What a command of the project prints; it must succeed."""
    command = [project / ".venv/bin/python", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=project, env=demo.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_another_task_trains_verifies_and_compares(project, tmp_path):
    """Trained, executed again, and trained with loader processes: the same bits."""
    smoke = ("train.py", "--config", "configs/smoke.yaml", "--run-dir")
    run(project, *smoke, tmp_path / "a")
    assert run(project, "-m", "real", "verify", tmp_path / "a").splitlines()[-1] == "IDENTICAL"
    run(project, *smoke, tmp_path / "b", "data.num_workers=2")
    said = run(project, "-m", "real", "compare", tmp_path / "a", tmp_path / "b")
    assert said.splitlines()[-1] == "IDENTICAL"


def test_the_proof_holds_for_another_task(project):
    """Kills at every kind of instant, other surroundings, loader processes, keys, samples."""
    said = run(project, "-m", "pytest", *GENERIC)
    assert " passed" in said
    assert "skipped" not in said
