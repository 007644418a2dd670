"""The machinery of a generated project, tested inside one by its own interpreter.

A project does not carry these tests: it is the machinery's user, and proves its own task.
"""

import subprocess

import pytest
from conftest import ROOT

from tools import demo

pytestmark = pytest.mark.real
FOLDER = ROOT / "tests" / "machinery"


@pytest.mark.parametrize("file", sorted(path.name for path in FOLDER.glob("test_*.py")))
def test_the_machinery_keeps_its_promises(pip_project, file):
    """Every test of one file, on the task that is generated."""
    command = [".venv/bin/python", "-m", "pytest", "-c", "pyproject.toml", "--rootdir", "."]
    command += ["--confcutdir", FOLDER, "-p", "no:cacheprovider", FOLDER / file]
    done = subprocess.run(
        command, cwd=pip_project, env=demo.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
