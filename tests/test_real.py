"""Generated projects that really install, lint, test, train and verify on this machine."""

import json
import subprocess
from pathlib import Path

import pytest
from conftest import REAL_STACK, make

import template_logic as logic
from tools import demo, pytorch_index

pytestmark = pytest.mark.real
TORCH = logic.stack(REAL_STACK)["torch"]


def test_pip_setup_is_done_once(pip_project):
    """A second `make setup` installs nothing."""
    assert "pip install" not in make(pip_project, "setup")


def test_the_projects_own_checks_are_green(pip_project):
    """lint, the whole test suite and the doctor of a project that nobody has edited."""
    output = make(pip_project, "check")
    assert "All checks passed!" in output
    assert " passed" in output
    assert "items, 0 fail" in output


def test_the_baseline_trains_to_its_accuracy_and_verifies(pip_project):
    """95 % or more on the test split, and the same bits the second time."""
    output = make(pip_project, "train", "verify")
    assert output.splitlines()[-1] == "IDENTICAL"
    run = max((pip_project / "outputs").iterdir())
    results = json.loads((run / "manifest.json").read_text())["results"]
    assert results["metrics"]["test_accuracy"] >= 0.95


def test_the_starter_notebook_runs(pip_project):
    """Its cells are executed on a real run, without Jupyter: it has no magics."""
    notebook = json.loads((pip_project / "notebooks" / "explore_run.ipynb").read_text())
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in cells)
    code = "\n".join("".join(cell["source"]) for cell in cells)
    environ = {**demo.environment(), "MPLBACKEND": "agg"}
    python = pip_project / ".venv" / "bin" / "python"
    done = subprocess.run(
        [python, "-c", code],
        cwd=pip_project / "notebooks",
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "test_accuracy" in done.stdout


def test_the_command_answers_at_once(pip_project):
    """`--help` loads nothing heavy; the time itself is in benchmarks/."""
    python = pip_project / ".venv" / "bin" / "python"
    done = subprocess.run(
        [python, "-X", "importtime", "-m", "real", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "numpy", "sklearn", "matplotlib", "mlflow"}


def test_an_unreachable_mlflow_server_does_not_stop_a_run(pip_project):
    """One warning, the same weights, exit code 0."""
    environ = {**demo.environment(), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    python = pip_project / ".venv" / "bin" / "python"
    command = [python, "train.py", "--config", "configs/smoke.yaml"]
    tracked = subprocess.run(command, cwd=pip_project, env=environ, capture_output=True, text=True)
    plain = subprocess.run(
        command, cwd=pip_project, env=demo.environment(), capture_output=True, text=True
    )
    assert tracked.returncode == plain.returncode == 0, tracked.stderr
    assert tracked.stderr.count("no longer tracked") == 1
    runs = [Path(done.stdout.splitlines()[-1].removeprefix("run: ")) for done in (tracked, plain)]
    weights = [(pip_project / run / "model.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("manager", ["uv"])
def test_another_manager_locks_installs_trains_and_verifies(baked_real, manager):
    """`make lock setup`, then a short run that repeats; the lock holds a hash for every file."""
    project = baked_real(dependency_manager=manager, project_slug=f"real-{manager}").path
    wheel = pytorch_index.find_wheel(TORCH)
    with demo.local_torch(project, TORCH, needed=wheel is not None):
        make(project, "lock", "setup")
        output = make(project, "train", "verify", "CONFIG=configs/smoke.yaml")
    assert output.splitlines()[-1] == "IDENTICAL"
    make(project, "lint")
    lock = (project / "uv.lock").read_text()
    files = [line for line in lock.splitlines() if "url = " in line and ".whl" in line]
    assert files
    assert all('hash = "sha256:' in line for line in files)


def test_pip_locks_anew(baked_real):
    """`make lock` writes both files of the environment, and `make setup` takes them."""
    project = baked_real(dependency_manager="pip", project_slug="real-relocked").path
    shipped = {path.name for path in (project / "requirements").iterdir()}
    with demo.local_torch(project, TORCH, needed=True):
        make(project, "lock")
    assert {path.name for path in (project / "requirements").iterdir()} == shipped
    for name in ("cpu.txt", "torch-cpu.txt"):
        text = (project / "requirements" / name).read_text()
        requirements = [line for line in text.splitlines() if "==" in line]
        assert text.count("--hash=sha256:") >= len(requirements) > 0
    assert f"torch=={TORCH}+cpu" in (project / "requirements" / "torch-cpu.txt").read_text()
