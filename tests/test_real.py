"""Generated projects that really install, lint, test, train and verify on this machine."""

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import QUESTIONS, REAL_STACK, ROOT, make

import template_logic as logic
from tools import demo

pytestmark = pytest.mark.real
TORCH = logic.stack(REAL_STACK)["torch"]


def test_pip_setup_is_done_once(pip_project):
    """A second `make setup` installs nothing."""
    assert "pip install" not in make(pip_project, "setup")
    assert "cpu installed" not in make(pip_project, "setup")


def test_the_projects_own_checks_are_green(pip_project):
    """lint, the whole test suite and the doctor of a project of the default answers, or the nearest
    to them that installs here, which nobody has edited."""
    output = make(pip_project, "check")
    assert "All checks passed!" in output
    assert " passed" in output
    assert "items, 0 fail" in output


@pytest.mark.parametrize("name", ["config", "data", "model", "train", "quality"])
def test_each_file_of_tests_passes_alone(pip_project, name):
    """As the steps of `docs/your-task.md` run them: nothing needs another one first."""
    assert " passed" in make(pip_project, "test", f"ARGS=tests/test_{name}.py")


def test_the_baseline_trains_to_its_accuracy_and_verifies(pip_project):
    """95 % or more on the test split, and the same bits the second time."""
    lines = make(pip_project, "train", "verify").splitlines()
    assert lines[-1] == "IDENTICAL"
    (run,) = [line.removeprefix("run: ") for line in lines if line.startswith("run: ")]
    results = json.loads((pip_project / run / "manifest.json").read_text())["results"]
    assert results["metrics"]["test_accuracy"] >= 0.95


def test_the_starter_notebook_runs(pip_project):
    """Its cells are executed on a real run, without Jupyter: it has no magics."""
    make(pip_project, "train", "CONFIG=configs/smoke.yaml")
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


def test_a_commit_takes_no_outputs_of_a_notebook(pip_project):
    """The hook of pre-commit strips what running a notebook put in, and needs no network."""
    path = pip_project / "notebooks" / "explore_run.ipynb"
    clean = path.read_text()
    notebook = json.loads(clean)
    cell = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["a secret\n"]}]
    cell["execution_count"] = 7
    path.write_text(json.dumps(notebook, indent=1) + "\n")
    tools = pip_project / ".venv" / "bin"
    environ = {**demo.environment(), "PATH": f"{tools}:{demo.environment()['PATH']}"}
    command = [tools / "pre-commit", "run", "nbstripout", "--files", path]
    done = subprocess.run(command, cwd=pip_project, env=environ, capture_output=True, text=True)
    stripped = path.read_text()
    path.write_text(clean)
    assert done.returncode == 1, done.stdout
    assert "files were modified by this hook" in done.stdout
    assert stripped == clean


def test_the_command_answers_at_once(pip_project):
    """`--help` loads nothing heavy; the time itself is in benchmarks/."""
    python = pip_project / ".venv" / "bin" / "python"
    done = subprocess.run(
        [python, "-X", "importtime", "-m", "real", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "numpy", "sklearn", "matplotlib", "mlflow", "pydantic"}


def test_digits_need_no_import_of_scikit_learn(pip_project):
    """They lie in its folder; its import would take a second of each start."""
    lines = ["import sys", "from pathlib import Path", "from real.config import load_config"]
    lines += ["from real.data import load_data", "config = load_config('configs/smoke.yaml')"]
    lines += ["print(len(load_data(config.data, Path('data')).train), 'sklearn' in sys.modules)"]
    command = [".venv/bin/python", "-c", "\n".join(lines)]
    said = subprocess.check_output(command, cwd=pip_project, env=demo.environment(), text=True)
    number, imported = said.split()
    assert int(number) > 1000
    assert imported == "False"


def test_an_unreachable_mlflow_server_does_not_stop_a_run(pip_project):
    """One warning, one advice, the same weights, exit code 0."""
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "TRACKING_PATIENCE": "1"}
    environ = {**demo.environment(), **away}
    python = pip_project / ".venv" / "bin" / "python"
    command = [python, "train.py", "--config", "configs/smoke.yaml"]
    tracked = subprocess.run(command, cwd=pip_project, env=environ, capture_output=True, text=True)
    plain = subprocess.run(
        command, cwd=pip_project, env=demo.environment(), capture_output=True, text=True
    )
    assert tracked.returncode == plain.returncode == 0, tracked.stderr
    assert tracked.stderr.count("training continues") == 1
    assert tracked.stderr.count("send it when the server is back") == 1
    runs = [Path(done.stdout.splitlines()[-1].removeprefix("run: ")) for done in (tracked, plain)]
    weights = [(pip_project / run / "model.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1]


def test_enter_eight_times_gives_the_default_project(tmp_path):
    """Typed in a terminal: the files are those of the default answers, and its next steps name git,
    before the environment, and the smaller one for a machine without a GPU."""
    pid, screen = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        command = [sys.executable, "-m", "cookiecutter", str(ROOT)]
        os.execve(command[0], command, {**demo.environment(), "TERM": "dumb"})
    shown = b""
    for _ in range(len([name for name in QUESTIONS if not name.startswith("_")])):
        os.write(screen, b"\n")
    with suppress(OSError):  # the terminal is gone when the program has ended
        while chunk := os.read(screen, 1 << 16):
            shown += chunk
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, shown.decode()
    text = shown.decode()
    steps = ["git init && git add --all && git commit", "make setup", "make train verify"]
    assert [text.index(step) for step in steps] == sorted(text.index(step) for step in steps)
    assert "make setup ACCELERATOR=cpu" in text
    (made,) = (path for path in tmp_path.iterdir() if not path.name.startswith("."))
    default = [sys.executable, "-m", "cookiecutter", str(ROOT), "--no-input", "--output-dir", "x"]
    subprocess.run(default, cwd=tmp_path, env=demo.environment(), check=True, capture_output=True)
    files = {p.relative_to(made): p.read_bytes() for p in made.rglob("*") if p.is_file()}
    plain = tmp_path / "x" / made.name
    assert files == {p.relative_to(plain): p.read_bytes() for p in plain.rglob("*") if p.is_file()}
