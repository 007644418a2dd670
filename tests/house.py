"""A project with its environment, set up once, and reference runs made in a plain shell."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from conftest import REAL_STACK, ROOT, THIS_PYTHON, commit
from cookiecutter.main import cookiecutter
from lent import set_up

from tools import demo

FOLDER = ROOT / "build" / f"surroundings-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
"""Of each process that tests."""
SMOKE = "configs/smoke.yaml"
RESULTS = ("steps.jsonl", "metrics.csv", "model.safetensors")


class House:
    """A project with its environment, two runs of it made in a plain shell, and what rows name."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.project = bake(FOLDER / "real")
        commit(self.project)
        set_up(self.project)
        self.python = self.project / ".envs" / "cpu" / "bin" / "python"
        self.environ = {n: v for n, v in demo.environment().items() if not n.startswith("PYTHON")}
        self.reference, self.stopped = scratch / "reference", scratch / "stopped"
        self.plain("train.py", "--config", SMOKE, "--run-dir", self.reference)
        half = ["--run-dir", self.stopped, "--stop-at", "9"]
        self.plain("train.py", "--config", SMOKE, *half)
        self.doctor = self.plain("-m", "real", "doctor").stdout
        self.named = self._named()

    def plain(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a command of the project in a plain shell; it must succeed."""
        done = subprocess.run(
            [self.python, *map(str, arguments)],
            cwd=self.project,
            env=self.environ,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done

    def _named(self) -> dict[str, str]:
        """The folders and files that rows name in braces."""
        foreign, other = self.scratch / "foreign", self.scratch / "other"
        for module in ("numpy", "yaml", "sklearn", "matplotlib"):
            (foreign / module).mkdir(parents=True)
            (foreign / module / "__init__.py").write_text("__version__ = '0'\n")
        info = self.scratch / "distribution" / "foo-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foo\nVersion: 1.0\n")
        (info.parent / "torch-9.0.dist-info").mkdir()
        (info.parent / "torch-9.0.dist-info" / "METADATA").write_text("Name: torch\nVersion: 9.0\n")
        (self.scratch / "startup.py").write_text("raise SystemExit(3)\n")
        (self.scratch / "rc").mkdir()
        (self.scratch / "rc" / "matplotlibrc").write_text("text.usetex: True\nfigure.dpi: 7\n")
        (self.scratch / "home").mkdir()
        config = "[color]\nui = always\n[diff]\nexternal = /bin/false\nnoprefix = true\n"
        (self.scratch / "home" / ".gitconfig").write_text(config)
        other.mkdir()
        (other / "file").write_text("x\n")
        commit(other)
        names = ("foreign", "distribution", "rc", "home", "other")
        files = {"startup": "startup.py", "gitconfig": "home/.gitconfig"}
        return {name: str(self.scratch / files.get(name, name)) for name in (*names, *files)}

    def command(self, verb: str, number: str) -> tuple[list[object], Path]:
        """The command of a verb, and the run that it makes or works on."""
        run = self.scratch / f"run-{number}"
        if verb in ("resume", "verify"):
            shutil.copytree(self.stopped if verb == "resume" else self.reference, run)
        return {
            "train": ["train.py", "--config", SMOKE, "--run-dir", run],
            "resume": ["train.py", "--resume", run],
            "verify": ["-m", "real", "verify", run],
            "compare": ["-m", "real", "compare", self.reference, self.reference],
            "doctor": ["-m", "real", "doctor"],
        }[verb], run

    def differences(self, run: Path) -> list[str]:
        """What differs between a run and the reference, by `compare` in a plain shell."""
        for name in RESULTS:
            assert (run / name).read_bytes() == (self.reference / name).read_bytes(), name
        done = self.plain("-m", "real", "compare", self.reference, run, "--json")
        found = json.loads(done.stdout)
        assert found["identical"]
        return sorted(cause["key"] for cause in found["causes"])


def bake(folder: Path, **answers: str) -> Path:
    """Bake a fresh project in its own folder, replacing whatever was there."""
    given = {"stack": REAL_STACK, "python_version": THIS_PYTHON, "project_slug": folder.name}
    shutil.rmtree(folder, ignore_errors=True)
    cookiecutter(
        str(ROOT),
        no_input=True,
        output_dir=str(folder.parent),
        extra_context={**given, **answers},
        default_config=True,
    )
    return folder
