"""Generated projects that really install, lint, test, train and verify on this machine."""

import json
import os
import pty
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from conftest import QUESTIONS, REAL_CUDA_STACK, REAL_STACK, ROOT, commit, make

import template_logic as logic
from tools import demo, pytorch_index, registry

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
    assert not imported & {"torch", "numpy", "sklearn", "matplotlib", "mlflow"}


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


@pytest.mark.parametrize("manager", ["uv", "poetry"])
def test_another_manager_installs_its_shipped_lock_trains_and_verifies(baked_real, manager):
    """A CUDA project in its CPU environment, from a mirror of the PyTorch index: the lock holds,
    a short run verifies, and everything that the project checks is green."""
    answers = {"project_slug": f"real-{manager}", "stack": REAL_CUDA_STACK}
    project = baked_real(dependency_manager=manager, **answers).path
    commit(project)
    with demo.local_torch(project, TORCH, locks=False):
        make(project, "setup")
    assert "cpu linux-x86_64     holds" in make(project, "lock-check")
    output = make(project, "train", "verify", "check", "CONFIG=configs/smoke.yaml")
    assert "IDENTICAL" in output.splitlines()
    assert "items, 0 fail" in output


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


@pytest.mark.parametrize("manager", ["pip", "uv"])
def test_a_manager_locks_again(baked_real, manager):
    """`make lock` gives what `make locks` of the template ships, but for the index's address."""
    project = baked_real(dependency_manager=manager, project_slug=f"relocked-{manager}").path
    shipped = {path: path.read_text() for path in locks(project)}
    with demo.local_torch(project, TORCH, locks=True):
        make(project, "lock")
        check = [sys.executable, project / "environment" / "check.py"]
        done = subprocess.run(check, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert {path: versions(path.read_text()) for path in locks(project)} == {
        path: versions(text) for path, text in shipped.items()
    }


@contextmanager
def a_day_later(packages: set[str]) -> Iterator[str]:
    """PyPI with one more release of each of `packages`, uploaded after every cut-off."""

    def answer(path: str) -> tuple[bytes, str] | None:
        name = path.strip("/").rsplit("/", 1)[-1]
        accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
        request = urllib.request.Request(f"{registry.PYPI}/{name}/", headers=accept)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                page = json.load(response)
        except urllib.error.HTTPError:
            return None
        if name in packages:
            newer = f"{name.replace('-', '_')}-999.0-py3-none-any.whl"
            files = {"url": f"{registry.PYPI}/{newer}", "hashes": {"sha256": "0" * 64}}
            page["files"].append(
                {**files, "filename": newer, "upload-time": "2030-01-01T00:00:00Z"}
            )
        return json.dumps(page).encode(), accept["Accept"]

    with pytorch_index.loopback(answer) as address:
        yield f"{address}/simple"


def test_a_lock_does_not_depend_on_the_day(baked_real, monkeypatch):
    """What is released after the cut-off changes no byte; without the cut-off it would."""
    project = baked_real(dependency_manager="uv", project_slug="another-day").path
    texts = []
    with demo.local_torch(project, TORCH, locks=True):
        for packages in (set(), {"certifi", "filelock", "click"}):
            with a_day_later(packages) as index:
                monkeypatch.setenv("UV_DEFAULT_INDEX", index)
                (project / "uv.lock").unlink()
                make(project, "lock")
                texts.append((project / "uv.lock").read_text().replace(index, registry.PYPI))
        assert texts[0] == texts[1]
        path = project / "pyproject.toml"
        text = path.read_text()
        path.write_text(text.replace('exclude-newer = "2026-', 'exclude-newer = "2036-'))
        assert path.read_text() != text
        with a_day_later({"certifi", "filelock", "click"}) as index:
            monkeypatch.setenv("UV_DEFAULT_INDEX", index)
            (project / "uv.lock").unlink()
            with pytest.raises(AssertionError, match=r"certifi|filelock|click"):
                make(project, "lock")


def locks(project):
    """The lock files of the environments."""
    found = [*project.glob("requirements/*cpu.txt"), *project.glob("uv.lock")]
    assert found
    return sorted(found)


def versions(text: str) -> dict[str, str]:
    """Name and version of each package in a lock of pip or uv."""
    in_toml = re.findall(r'^name = "(.+)"\nversion = "(.+)"$', text, re.MULTILINE)
    return dict(in_toml or re.findall(r"^([a-z0-9._-]+)==([^ ;]+)", text, re.MULTILINE))
