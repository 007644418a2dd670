"""The machinery of a generated project, tested inside one by its own interpreter.

A project does not carry these tests: it is the machinery's user, and proves its own task.
"""

import subprocess

import pytest
from conftest import ROOT

from tools import demo

pytestmark = pytest.mark.real
FOLDER = ROOT / "tests" / "machinery"
FILES = sorted(FOLDER.glob("test_*.py"))
HALVES = {"the first half": FILES[: len(FILES) // 2], "the second half": FILES[len(FILES) // 2 :]}


@pytest.mark.parametrize("half", HALVES)
def test_the_machinery_keeps_its_promises(pip_project, half):
    """Every test, on the task that is generated. Files share a process: to load the framework in it
    and in the two that start runs takes longer than most files' tests."""
    command = [".venv/bin/python", "-m", "pytest", "-c", "pyproject.toml", "--rootdir", "."]
    command += ["--confcutdir", FOLDER, "-p", "no:cacheprovider", *HALVES[half]]
    done = subprocess.run(
        command, cwd=pip_project, env=demo.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
