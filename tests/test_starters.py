"""Each starter beside the default one, from a bake to its own proof, as its new owner would."""

import json
import subprocess

import lent
import pytest
from conftest import CHOICES, REAL_CUDA_STACK, commit, make

from tools import demo

pytestmark = pytest.mark.real
SMOKE = "CONFIG=configs/smoke.yaml"
RESULTS = {
    "tabular": {"test_loss", "test_mae", "test_r2"},
    "language_model": {"test_loss"},
}
"""The default one is what nearly all other tests bake."""
GONE = {
    "tabular": ["data.name=file", "data.path=gone.csv", "data.target=y"],
    "language_model": ["data.path=gone.txt"],
}


@pytest.fixture(scope="module", params=CHOICES["starter"][1:])
def project(request, baked_real):
    """A fresh project of a starter, set up and committed; and the name of the starter."""
    made = baked_real(stack=REAL_CUDA_STACK, starter=request.param).path
    commit(made)
    lent.set_up(made)
    return made, request.param


def test_it_trains_verifies_and_compares(project):
    """`make train verify`, again with loader processes, and `make compare` and `runs` of both."""
    made, starter = project
    assert make(made, "train", "verify", SMOKE).splitlines()[-1] == "IDENTICAL"
    make(made, "train", SMOKE, "ARGS=data.num_workers=2")
    assert make(made, "compare").splitlines()[-1] == "IDENTICAL"
    listed = json.loads(_tail(make(made, "runs", "ARGS=--json"), "["))
    assert [run["state"] for run in listed] == ["verified", "completed"]
    assert all(run["metrics"].keys() == RESULTS[starter] for run in listed)


def test_its_proof_needs_no_other_test_before_it(project):
    """The command of the guide's fourth step, in part: the quality tests alone."""
    made, _ = project
    assert " passed" in make(made, "test", "ARGS=tests/test_quality.py")


def test_the_notebook_plots_whatever_was_logged(project):
    """Its cells run in the project's own environment; kernels are another matter."""
    made, _ = project
    notebook = json.loads((made / "notebooks" / "explore_run.ipynb").read_text())
    code = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    command = [made / ".venv/bin/python", "-c", "\n".join(code)]
    environ = {**demo.environment(), "MPLBACKEND": "agg"}
    done = subprocess.run(
        command, cwd=made / "notebooks", env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "IDENTICAL"


def test_its_own_checks_are_green(project):
    """Lint, tests, proof, expected results and doctor: nothing skipped, nothing left to do."""
    made, _ = project
    said = make(made, "check")
    assert " passed" in said
    assert "skipped" not in said
    assert " 0 fail" in said


def test_its_loop_can_be_measured_without_its_record(project, tmp_path):
    """As `make gpu-proof` does, whatever files the task writes into its run."""
    made, _ = project
    command = [".venv/bin/python", "train.py", "--config", "configs/smoke.yaml"]
    command += ["--run-dir", tmp_path / "run", "--probe", "unrecorded"]
    done = subprocess.run(command, cwd=made, env=demo.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "steps per second: " in done.stdout
    assert not (tmp_path / "run" / "steps.jsonl").exists()


def test_bad_data_are_one_line_and_no_run(project):
    """From the shell: exit code 2, what is wrong, and nothing left behind."""
    made, starter = project
    before = sorted((made / "outputs").iterdir())
    command = [".venv/bin/python", "train.py", "--config", "configs/smoke.yaml", *GONE[starter]]
    done = subprocess.run(command, cwd=made, env=demo.environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot read data/gone.")
    assert len(done.stderr.splitlines()) == 1
    assert sorted((made / "outputs").iterdir()) == before


def _tail(said: str, mark: str) -> str:
    return said[said.index(f"\n{mark}") :]
