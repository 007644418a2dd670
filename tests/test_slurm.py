"""A real Slurm, of Debian's packages, on this machine: submitted, stopped by its limit, resumed."""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import lent
import pytest
from conftest import REAL_STACK, commit

from tools import demo, slurm

pytestmark = [pytest.mark.real, pytest.mark.containers]
FILES = ("steps.jsonl", "metrics.csv", "model.safetensors")
SMOKE = "CONFIG=configs/smoke.yaml"
LONG = "training.num_epochs=100"
"""Longer than the twenty seconds that the first start of the job has, on any machine."""


class Cluster:
    """A project, its jobs, and the Slurm that they run in."""

    def __init__(self, project: Path, environ: dict[str, str]) -> None:
        # All nodes are this machine, where their names lead nowhere.
        self.project = project
        self.environ = {**demo.environment(), "SLURM_CONF": environ["SLURM_CONF"]}
        self.environ["HEAD_ADDRESS"] = "127.0.0.1"

    def run(self, *command: str, **how):
        done = subprocess.run(
            command, cwd=self.project, env=self.environ, capture_output=True, text=True, **how
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit(self, *arguments: str, outputs: Path) -> str:
        """Submit with `make slurm`; return the number of the job."""
        self.environ["OUTPUT_DIR"] = str(outputs)
        said = self.run("make", "slurm", SMOKE, *arguments, f"PYTHON={sys.executable}")
        assert "sbatch " in said
        return said.split()[-1]

    def state(self, job: str) -> str:
        """As Slurm shows it: PENDING, RUNNING, COMPLETED, FAILED …"""
        shown = self.run("scontrol", "show", "job", job)
        return shown.partition("JobState=")[2].split()[0]

    def wait(self, job: str, *states: str, seconds: int) -> str:
        deadline = time.monotonic() + seconds
        while (state := self.state(job)) not in states:
            assert time.monotonic() < deadline, f"{state}: {self.log(job)[-3000:]}"
            time.sleep(0.5)
        return state

    def log(self, job: str) -> str:
        number = job.partition("_")[0]  # also that of an array's last task
        path = self.project / f"slurm-{number}.out"
        return path.read_text() if path.exists() else ""


@pytest.fixture(scope="module")
def cluster(baked_real, tmp_path_factory):
    """Two nodes, and a project that they share."""
    project = baked_real(stack=REAL_STACK).path
    commit(project)
    lent.set_up(project)
    with slurm.running(tmp_path_factory.mktemp("slurm")) as environ:
        yield Cluster(project, environ)


def digests(run_dir: Path) -> list[str]:
    return [hashlib.sha256((run_dir / name).read_bytes()).hexdigest() for name in FILES]


def test_a_job_that_its_time_limit_stops_returns_and_ends_in_the_same_bits(cluster, tmp_path):
    """Two nodes of two ranks, as a task of an array; Slurm's own signal before the limit, its
    queue, a second start."""
    limit = "SLURM_ARGS=--array=6 --nodes=2 --cpus-per-task=2 --time=1 --signal=B:USR1@40"
    job = cluster.submit(limit, "RANKS=2", f"ARGS={LONG}", outputs=tmp_path / "job") + "_6"
    cluster.wait(job, "RUNNING", seconds=30)
    cluster.wait(job, "PENDING", seconds=90)
    assert "time limit: back into the queue, after 0 restarts" in cluster.log(job)
    # The rest needs no other limit, however busy this machine is.
    cluster.run("scontrol", "update", f"jobid={job}", "TimeLimit=30")
    single = tmp_path / "single"
    python = cluster.project / ".venv" / "bin" / "python"
    command = [python, "train.py", "--config", "configs/smoke.yaml", "--seed", 6]
    cluster.run(*map(str, [*command, "--run-dir", single, LONG]))
    assert cluster.wait(job, "COMPLETED", "FAILED", seconds=240) == "COMPLETED", cluster.log(job)
    run_dir = tmp_path / "job" / f"slurm-{job}"
    assert digests(run_dir) == digests(single)
    manifest = json.loads((run_dir / "manifest.json").read_text())
    (resume,) = manifest["resumes"]
    assert 0 < resume["step"] < manifest["results"]["num_steps"]
    assert manifest["hardware"]["ranks"]["num_ranks"] == 4
    assert manifest["code"]["dirty"] is False  # the job's log does not count as an edit


def test_an_array_is_a_run_for_each_seed(cluster, tmp_path):
    """`--array=3-4`: two jobs, two seeds, nothing else differs."""
    arguments = "SLURM_ARGS=--array=3-4 --cpus-per-task=2"
    job = cluster.submit(arguments, "RANKS=2", outputs=tmp_path)
    for number in (3, 4):
        state = cluster.wait(f"{job}_{number}", "COMPLETED", "FAILED", seconds=120)
        assert state == "COMPLETED"
        run_dir = tmp_path / f"slurm-{job}_{number}"
        manifest = json.loads((run_dir / "manifest.json").read_text())
        assert (manifest["seed"], manifest["results"]["completed"]) == (number, True)


def test_a_job_that_cannot_train_fails_and_does_not_return(cluster, tmp_path):
    """Its log has the reason in one line for each of torchrun's attempts."""
    cluster.environ["MAX_RESTARTS"] = "0"
    job = cluster.submit("RANKS=8", "SLURM_ARGS=--cpus-per-task=2", outputs=tmp_path)
    assert cluster.wait(job, "FAILED", "COMPLETED", seconds=90) == "FAILED"
    (line,) = [x for x in cluster.log(job).splitlines() if x.startswith("error: distributed")]
    assert "torchrun started 8" in line
    assert "Restarts=0" in cluster.run("scontrol", "show", "job", job)
    assert not any(tmp_path.iterdir())
