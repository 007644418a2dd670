"""Runs of a configuration in surroundings that must not matter, and their results."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Self

import yaml

from ..backend import facts
from ..backend.sections import Determinism
from ..config.run_config import RunConfig
from ..env import wanted_environment
from ..files import CHECKPOINTS, MANIFEST, METRICS, SOURCE, STEPS, WEIGHTS, list_checkpoints
from ..launched import without_launcher
from ..run.checkpoint import checkpoint_digest
from ..shell import is_foreign
from .launcher import PACKAGE, ROOT, Launcher
from .surroundings import VARIED

PLAIN = {"PYTHONHASHSEED": "1"}
ELSEWHERE = {
    "PYTHONHASHSEED": "2",
    "MALLOC_PERTURB_": "165",  # fresh memory is filled with non-zero bytes
    "TZ": "Pacific/Chatham",
    "LC_ALL": "C",
}
_STEP, _ROW = "repro.run.logs.Recorder.step", "repro.run.logs.Recorder.row"
_RENAME = "pathlib.Path.replace"
KILLS = {
    "on the first step": ("before", _STEP, 0.0),
    "after a row, before its checkpoint": ("after", _ROW, 0.0),
    "while a checkpoint is written": ("after", "repro.run.checkpoint.to_bytes", 0.3),
    "before a file is renamed": ("before", _RENAME, 0.5),
    "after a file is renamed": ("after", _RENAME, 0.5),
    "in the middle of training": ("after", _STEP, 0.7),
    "on the last step": ("after", _STEP, 1.0),
    "before the weights are written": ("before", "repro.run.lifecycle.weights_file", 0.0),
    "before the manifest is finished": ("before", "repro.run.lifecycle.write_manifest", 1.0),
}
"""When to SIGKILL: at a call of a machinery function, a fraction of all its calls in a run."""
POSIX = os.name != "nt"


class Proof:
    """Runs of the configuration file `config` in `folder`, two at a time; a context manager.

    `overrides` are added to every command line (`"training.num_epochs=1"`). Variables that the
    caller's shell sets for libraries and launchers are removed first.
    """

    def __init__(self, config: Path, folder: Path, overrides: tuple[str, ...] = ()) -> None:
        self._config, self._folder, self._overrides = config, folder, overrides
        self._open = ExitStack()
        self._runs: dict[str, Future[Path]] = {}

    def __enter__(self) -> Self:
        kept = without_launcher(os.environ)
        for name in [n for n in os.environ if n.startswith("GIT_") or is_foreign(n)]:
            kept.pop(name, None)
        for name in os.environ.keys() - kept.keys():
            del os.environ[name]
        self._launchers = [self._launcher(environ) for environ in (PLAIN, ELSEWHERE)]
        self._pool = ThreadPoolExecutor(max_workers=2)  # each run uses one thread
        self._open.callback(self._pool.shutdown, cancel_futures=True)
        for name, scenario in {"plain": plain, "seed 1": seed(1), **SCENARIOS}.items():
            target = self._folder / name.replace(" ", "-").replace(",", "")
            self._runs[name] = self._pool.submit(scenario, self, target)
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def _launcher(self, environ: Mapping[str, str]) -> Launcher:
        given = {**os.environ, **environ, "PYTHONPATH": str(SOURCE)}
        section = yaml.safe_load(self._config.read_text(encoding="utf-8")).get("determinism") or {}
        config = RunConfig(seed=0, determinism=Determinism(**section))
        launcher = Launcher(environ, wanted_environment(config, given))
        self._open.callback(launcher.close)
        return launcher

    def run(self, *arguments: object, elsewhere: bool = False, **how: Any) -> CompletedProcess[str]:
        """Run a command to its end; fail the test if a disturbance did not happen."""
        done = self._launchers[elsewhere].run(*arguments, **how)
        wanted = [*(VARIED if "vary" in how else ()), *(["SIGKILL"] if "kill" in how else ())]
        wanted += [how["send"].split()[0]] if "send" in how else []
        missing = [mark for mark in wanted if not done.marks.get(mark)]
        assert not missing, f"{', '.join(missing)} did not happen: {done.stderr}"
        return done

    def command(self, run_dir: Path) -> list[object]:
        """How a training into `run_dir` is started."""
        start = ["train", "--scratch", "--config", self._config]
        return [*start, "--run-dir", run_dir, *self._overrides]

    def train(self, run_dir: Path, *arguments: object, **how: Any) -> Path:
        """Train into `run_dir`; this must succeed."""
        done = self.run(*self.command(run_dir), *arguments, **how)
        assert done.returncode == 0, done.stderr
        return run_dir

    def resume(self, run_dir: Path, *arguments: object, **how: Any) -> Path:
        """Resume the run; this must succeed."""
        done = self.run("train", "--scratch", "--resume", run_dir, *arguments, **how)
        assert done.returncode == 0, done.stderr
        return run_dir

    def calls(self, name: str) -> int:
        """How often a complete run calls a function of `KILLS`."""
        marks = json.loads((self.directory("plain") / "calls.json").read_text())
        assert marks.get(name), f"a run never calls {name}"
        return marks[name]

    def directory(self, name: str) -> Path:
        """The run directory of a scenario, once the run is done."""
        return self._runs[name].result()

    def bits(self, name: str) -> dict[str, object]:
        """Everything that a scenario computed: logs, weights, results, and the last saved state."""
        return self.bits_of(self.directory(name))

    @staticmethod
    def bits_of(run_dir: Path) -> dict[str, object]:
        """The same of any run that is complete."""
        results = json.loads((run_dir / MANIFEST).read_text(encoding="utf-8"))["results"]
        assert results["completed"]
        files = {name: (run_dir / name).read_bytes() for name in (STEPS, METRICS, WEIGHTS)}
        state = checkpoint_digest(list_checkpoints(run_dir / CHECKPOINTS)[-1])
        return {**files, "results": results, "state": state}

    def first_step(self, name: str) -> str:
        """The first line of the log of a run."""
        with (self.directory(name) / STEPS).open(encoding="utf-8") as file:
            return file.readline()

    def verify(self, name: str) -> CompletedProcess[str]:
        """Execute `verify` on a copy of a run."""
        copied = shutil.copytree(self.directory(name), self._folder / "verified")
        return self.run("verify", copied)


Scenario = Callable[[Proof, Path], Path]


def plain(proof: Proof, run_dir: Path) -> Path:
    """The reference run that all others must equal; it also counts the calls of `KILLS`."""
    names = sorted({name for _, name, _ in KILLS.values()})
    done = proof.run(*proof.command(run_dir), count=names)
    assert done.returncode == 0, done.stderr
    (run_dir / "calls.json").write_text(json.dumps(done.marks))
    return run_dir


def seed(number: int) -> Scenario:
    return lambda proof, run_dir: proof.train(run_dir, "--seed", number)


def trained(*overrides: str, **how: Any) -> Scenario:
    return lambda proof, run_dir: proof.train(run_dir, *overrides, **how)


def cold(proof: Proof, run_dir: Path) -> Path:
    """A freshly started process, with inherited variables that would change bits."""
    caller = {"OMP_NUM_THREADS": "2", "ATEN_CPU_CAPABILITY": "default", "PYTHONHASHSEED": "77"}
    proof.train(run_dir, environ=caller)
    manifest = json.loads((run_dir / MANIFEST).read_text(encoding="utf-8"))
    recorded = manifest["determinism"]["environment"]
    assert recorded["PYTHONHASHSEED"] == "77", "it was not started again"
    return run_dir


def killed(proof: Proof, run_dir: Path, *, instant: tuple[str, str, float], workers: int) -> Path:
    """SIGKILL, then resume in other surroundings with another number of workers."""
    when, name, fraction = instant
    call = 1 + round(fraction * (proof.calls(name) - 1))
    stopped = proof.run(*proof.command(run_dir), kill=f"{when} {name} {call}")
    assert stopped.returncode == -9, stopped.stderr
    manifest = json.loads((run_dir / MANIFEST).read_text(encoding="utf-8"))
    assert not manifest["results"]["completed"]
    return proof.resume(run_dir, f"data.num_workers={workers}", elsewhere=True, vary="reversed")


def terminated(proof: Proof, run_dir: Path) -> Path:
    """SIGTERM to trainer and loader processes, as sent by a cluster, then resume."""
    step = max(1, proof.calls(_STEP) // 3)
    command = [*proof.command(run_dir), "data.num_workers=1"]
    stopped = proof.run(*command, send=f"SIGTERM after {_STEP} {step}")
    assert stopped.returncode == 143, stopped.stderr
    assert len((run_dir / STEPS).read_text(encoding="utf-8").splitlines()) == step
    return proof.resume(run_dir)


def _torchrun(proof: Proof, ranks: int, *arguments: object) -> None:
    section = yaml.safe_load(proof._config.read_text(encoding="utf-8")).get("distributed") or {}
    # A task whose batch is one piece is for one process, which torchrun starts as well.
    ranks = min(ranks, section.get("num_pieces", 1))
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [sys.executable, "-m", *launcher, "-m", PACKAGE, *map(str, arguments)]
    environ = {**os.environ, "PYTHONPATH": str(SOURCE), "MLFLOW_TRACKING_URI": ""}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


def handed_on(proof: Proof, run_dir: Path) -> Path:
    """Two processes stop after a third; a single one, with a loader process, continues and stops;
    three end it, or as many as a batch has pieces."""
    steps, log = proof.calls(_STEP), run_dir / STEPS
    first, second = max(1, steps // 3), max(1, 2 * steps // 3)
    _torchrun(proof, 2, *proof.command(run_dir), "--stop-at", first)
    assert len(log.read_text(encoding="utf-8").splitlines()) == first
    alone = ("data.num_workers=1", "--stop-at", second)
    proof.resume(run_dir, *alone, elsewhere=True, vary="sorted")
    assert len(log.read_text(encoding="utf-8").splitlines()) == second
    _torchrun(proof, 3, "train", "--scratch", "--resume", run_dir)
    return run_dir


def _kills() -> Iterator[tuple[str, Scenario]]:
    for number, (name, instant) in enumerate(KILLS.items()):
        yield f"killed {name}", partial(killed, instant=instant, workers=number % 3)


SCENARIOS: dict[str, Scenario] = {
    "elsewhere": trained(elsewhere=True, vary="reversed"),
    "1 worker": trained("data.num_workers=1"),
    "2 uneven workers": trained("data.num_workers=2", elsewhere=True, vary="sorted"),
    "other variables of the caller": cold,
    "a checkpoint each step": trained("record.checkpoint_every=1"),
    **({"2 ranks, then one, then 3": handed_on} if facts.RANKS else {}),
    **({"terminated": terminated, **dict(_kills())} if POSIX else {}),
}
"""Everything that must not matter, by name."""
