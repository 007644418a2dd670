"""The generated tests see the faults that they are there for: planted one at a time, counted."""

import json
import os
import shutil
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest
from conftest import ROOT
from faults import FAULTS, Fault

from tools import demo

pytestmark = pytest.mark.slow

REPORT = ROOT / "build" / "mutations.json"
# Those that find most come first, so that a planted fault is usually found in seconds. The one
# left out compares with digests recorded before the fault: on a machine of that class it would
# see nearly all of them, on another none, and the others have to do without it.
SUITE = [
    *("tests/test_quality.py", "tests/test_seeding.py", "tests/test_reproducibility.py", "tests"),
    "--deselect=tests/test_expected.py::test_a_fresh_run_comes_to_them",
]
# What the usual guides test: the same loss twice in one process after seeding.
TWICE = """
import math, sys, tempfile
from real import set_seed, train_model
def once():
    set_seed(0)
    return train_model("configs/smoke.yaml", run_dir=tempfile.mkdtemp()).loss
sys.exit(not math.isclose(once(), once(), rel_tol=1e-5))
"""


@pytest.fixture(scope="module")
def python(pip_project) -> Path:
    return pip_project / ".venv" / "bin" / "python"


def plant(project: Path, fault: Fault | None, copy: Path) -> Path:
    """A copy of the project with the fault in it."""
    left_out = shutil.ignore_patterns(".venv*", ".git", "outputs", "__pycache__", ".pytest_cache")
    shutil.copytree(project, copy, ignore=left_out)
    if fault:
        path = copy / "src" / "real" / fault.file
        text = path.read_text(encoding="utf-8")
        assert text.count(fault.old) == 1, f"{fault.name}: its place is gone from {fault.file}"
        path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
    return copy


def run(python: Path, project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**demo.environment(), "PYTHONPATH": str(project / "src"), "MLFLOW_TRACKING_URI": ""}
    return subprocess.run(
        [python, *arguments], cwd=project, env=environ, capture_output=True, text=True
    )


def test_every_fault_still_has_its_place(pip_project):
    """A fault that can no longer be planted would count as caught for the wrong reason."""
    for fault in FAULTS:
        source = (pip_project / "src" / "real" / fault.file).read_text(encoding="utf-8")
        assert source.count(fault.old) == 1, fault.name
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 25


def test_nearly_every_planted_fault_turns_the_tests_red(pip_project, python, tmp_path):
    """At least 95 % of the faults, and none without them; the misses are listed.

    Beside it, what training twice in one process sees of the same faults.
    """

    def examined(number: int) -> dict:
        fault = FAULTS[number] if number >= 0 else None
        project = plant(pip_project, fault, tmp_path / str(number))
        tests = run(python, project, "-m", "pytest", "-x", "-p", "no:cacheprovider", *SUITE)
        assert tests.returncode in (0, 1), tests.stdout[-2000:] + tests.stderr[-2000:]
        failed = [line for line in tests.stdout.splitlines() if line.startswith(("FAILED", "ERR"))]
        twice = run(python, project, "-c", TWICE)
        shutil.rmtree(project)
        return {
            **(asdict(fault) if fault else {"name": "no fault", "group": "none"}),
            "caught": tests.returncode == 1,
            "by": failed[:1],
            "train twice": twice.returncode != 0,
        }

    wanted = os.environ.get("FAULTS", "")
    numbers = [-1, *(n for n, fault in enumerate(FAULTS) if wanted in fault.name)]
    with ThreadPoolExecutor(2) as pool:
        sound, *found = pool.map(examined, numbers)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps([sound, *found], indent=1))
    missed = [result["name"] for result in found if not result["caught"]]
    groups = Counter(result["group"] for result in found)
    for group, planted in groups.items():
        of_group = [result for result in found if result["group"] == group]
        caught, twice = (sum(r[key] for r in of_group) for key in ("caught", "train twice"))
        print(f"{group}: {caught} of {planted} caught; training twice: {twice}")
    print(f"missed: {missed or 'none'}")
    assert not sound["caught"] and not sound["train twice"], sound
    assert len(missed) <= 0.05 * len(found), missed
