"""The generated tests detect the faults they exist for: planted one at a time, and counted."""

import json
import os
import shutil
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from faults import FAULTS, Fault, seen_in

from tools import demo

REPORT = ROOT / "build" / "mutations.json"
# The quick ones come first, in processes of their own, since pytest orders what one is given. The
# one left out compares with digests recorded before the fault: on a machine of that class it would
# detect nearly all of them, elsewhere none, and the others must manage without it.
_QUICK, _SLOW = "tests/test_quality.py", "tests/test_reproducibility.py"
PROOF = (
    [_QUICK],
    [
        *("tests", f"--ignore={_QUICK}", f"--ignore={_SLOW}"),
        "--deselect=tests/test_expected.py::test_a_fresh_run_comes_to_them",
    ],
    [_SLOW],
)
MACHINERY_TESTS = ROOT / "tests" / "machinery"
MACHINERY = ["-c", "pyproject.toml", "--rootdir", ".", "--confcutdir", MACHINERY_TESTS]
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
    left_out = (".venv", ".envs", ".git", "outputs", "__pycache__", ".pytest_cache")
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns(*left_out))
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


def test_every_fault_still_has_its_place(bake):
    """A fault that can no longer be planted would count as caught for the wrong reason."""
    project = bake(project_slug="real")
    for fault in FAULTS:
        source = (project / "src" / "real" / fault.file).read_text(encoding="utf-8")
        assert source.count(fault.old) == 1, fault.name
        # Code that no Python reads would turn every test red.
        compile(source.replace(fault.old, fault.new), fault.name, "exec")
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 25


def examine(
    fault: Fault | None,
    origin: Path,
    python: Path,
    copy: Path,
    *,
    usual: bool = True,
    machinery: bool = True,
) -> dict[str, Any]:
    """Plant a fault in a copy of the project, run its tests and the usual one, drop the copy.

    Without `machinery`, only the tests that the project itself has.
    """
    project = plant(origin, fault, copy)
    # The tests of the very file first: most faults are found in seconds.
    own = MACHINERY_TESTS / seen_in(fault) if fault and "repro" in Path(fault.file).parts else None
    suites = [[*MACHINERY, own]] if own and own.exists() else []
    for suite in (*suites, *PROOF, [*MACHINERY, MACHINERY_TESTS]) if machinery else PROOF:
        tests = run(python, project, "-m", "pytest", "-x", "-p", "no:cacheprovider", *suite)
        assert tests.returncode in (0, 1), tests.stdout[-2000:] + tests.stderr[-2000:]
        by = [line for line in tests.stdout.splitlines() if line.startswith(("FAILED", "ERR"))]
        if tests.returncode:
            break
    twice = run(python, project, "-c", TWICE).returncode if usual else None
    shutil.rmtree(project)
    name = fault.name if fault else "no fault"
    print(f"{'red' if tests.returncode else 'GREEN'}  {name}  {by[:1]}", flush=True)
    return {
        **(asdict(fault) if fault else {"name": name, "group": "none"}),
        "caught": tests.returncode == 1,
        "by": by[:1],
        "train twice": twice not in (None, 0),
    }


@pytest.mark.faults
def test_a_sample_of_the_faults_turns_the_tests_red(pip_project, python, tmp_path):
    """One fault in forty; all of them are planted in the slow tier."""
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(
            lambda number: examine(
                FAULTS[number], pip_project, python, tmp_path / str(number), usual=False
            ),
            range(3, len(FAULTS), 40),
        )
    assert [result["name"] for result in found if not result["caught"]] == []


@pytest.mark.slow
def test_nearly_every_planted_fault_turns_the_tests_red(pip_project, python, tmp_path):
    """At least 95 % of the faults, and none without them; the misses are listed.

    Beside it, what training twice in one process sees of the same faults.
    """
    wanted = os.environ.get("FAULTS", "").split(",")
    faults = [fault for fault in FAULTS if any(part in fault.name for part in wanted)]
    with ThreadPoolExecutor(2) as pool:
        sound, *found = pool.map(
            lambda entry: examine(entry[1], pip_project, python, tmp_path / str(entry[0])),
            enumerate([None, *faults]),
        )
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps([sound, *found], indent=1))
    missed = [result["name"] for result in found if not result["caught"]]
    for group, planted in Counter(result["group"] for result in found).items():
        of_group = [result for result in found if result["group"] == group]
        caught, twice = (sum(r[key] for r in of_group) for key in ("caught", "train twice"))
        print(f"{group}: {caught} of {planted} caught; training twice: {twice}")
    print(f"missed: {missed or 'none'}")
    assert not sound["caught"] and not sound["train twice"], sound
    assert len(missed) <= 0.05 * len(found), missed


@pytest.mark.slow
def test_another_tasks_own_tests_see_the_faults_of_the_machinery(baked_real, python, tmp_path):
    """A regression on a table: its tests know nothing of the digits, and the template's tests of
    the machinery are not run. What is left belongs to those: tracking, the doctor, the command
    line, errors in one line."""
    project = baked_real(starter="tabular").path
    wanted = os.environ.get("FAULTS", "").split(",")
    faults = [fault for fault in FAULTS if fault.file.startswith("repro/")]
    faults = [fault for fault in faults if any(part in fault.name for part in wanted)]
    with ThreadPoolExecutor(2) as pool:
        sound, *found = pool.map(
            lambda entry: examine(
                entry[1],
                project,
                python,
                tmp_path / str(entry[0]),
                usual=False,
                machinery=False,
            ),
            enumerate([None, *faults]),
        )
    caught = [result["name"] for result in found if result["caught"]]
    missed = [result["name"] for result in found if not result["caught"]]
    print(f"{len(caught)} of {len(found)} caught; missed: {missed or 'none'}")
    assert not sound["caught"], sound
    assert len(missed) <= 0.4 * len(found), missed
