"""The long checks: a kill at every step and at random instants."""

import random
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tools import demo

pytestmark = pytest.mark.slow

RESULT_FILES = ("steps.jsonl", "metrics.csv", "model.safetensors")
NUM_STEPS = 30
# 125 of the 1,2xx training samples a batch: ten steps an epoch, three epochs.
THIRTY_STEPS = [
    "training.global_batch_size=125",
    "training.num_epochs=3",
    "record.checkpoint_every=4",
]
KILLED_AT = """
import os, signal, sys
from real.repro.run import logs
step = logs.Recorder.step
def killed(self, entry):
    step(self, entry)
    if entry.step == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
logs.Recorder.step = killed
from real.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def start(project: Path, *arguments: object, code: str | None = None) -> subprocess.Popen:
    """Start the package's command line in a process of its own."""
    python = project / ".venv" / "bin" / "python"
    what = ["-c", code] if code else ["-m", "real"]
    return subprocess.Popen(
        [python, *what, *map(str, arguments)],
        cwd=project,
        env=demo.settled(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen) -> None:
    _, message = process.communicate()
    assert process.returncode == 0, message.decode()


def bits(run_dir: Path) -> list[bytes]:
    return [(run_dir / name).read_bytes() for name in RESULT_FILES]


def train_arguments(run_dir: Path) -> list[object]:
    return ["train", "--config", "configs/smoke.yaml", "--run-dir", run_dir, *THIRTY_STEPS]


@pytest.fixture(scope="module")
def uninterrupted(pip_project, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    finish(start(pip_project, *train_arguments(run_dir)))
    assert len((run_dir / "steps.jsonl").read_text().splitlines()) == NUM_STEPS
    return bits(run_dir)


def resume(project: Path, run_dir: Path, num_workers: int) -> list[bytes]:
    finish(start(project, "train", "--resume", run_dir, f"data.num_workers={num_workers}"))
    return bits(run_dir)


def test_a_kill_at_every_step_changes_no_bit(pip_project, uninterrupted, tmp_path):
    """SIGKILL right after each of 30 steps, resumed with 0 or 1 workers: 30 of 30 equal."""

    def killed(step: int) -> bool:
        run_dir = tmp_path / str(step)
        arguments = train_arguments(run_dir)
        process = start(pip_project, *arguments, code=KILLED_AT.format(step=step))
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert len((run_dir / "steps.jsonl").read_text().splitlines()) == step
        return resume(pip_project, run_dir, num_workers=step % 2) == uninterrupted

    with ThreadPoolExecutor(2) as pool:
        equal = list(pool.map(killed, range(1, NUM_STEPS + 1)))
    assert equal == [True] * NUM_STEPS


def test_a_kill_at_a_random_instant_changes_no_bit(pip_project, uninterrupted, tmp_path):
    """SIGKILL at 50 instants between the manifest and the end: 50 of 50 equal."""
    instants = random.Random(0)

    def killed(number: int) -> bool:
        run_dir = tmp_path / str(number)
        process = start(pip_project, *train_arguments(run_dir))
        while not (run_dir / "manifest.json").exists():
            assert process.poll() is None
            time.sleep(0.0005)
        time.sleep(delays[number])
        process.kill()
        process.communicate()
        return resume(pip_project, run_dir, num_workers=number % 2) == uninterrupted

    delays = [instants.uniform(0, 0.8) for _ in range(50)]
    with ThreadPoolExecutor(2) as pool:
        equal = list(pool.map(killed, range(50)))
    assert equal == [True] * 50
