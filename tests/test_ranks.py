"""Several processes under torchrun: the same bits for any number of them, whatever befalls one."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import lent
import pytest
from conftest import REAL_STACK, commit, free_port

from tools import demo

pytestmark = pytest.mark.real
TORCHRUN = ("-m", "torch.distributed.run", "--standalone")
PIECES = "distributed.num_pieces=4"
DIGITS, TEXT = "image_classification", "language_model"
FILES = ("steps.jsonl", "metrics.csv", "model.safetensors")


class Runs:
    """A project of one starter, its reference run in a single process, and commands in it."""

    def __init__(self, project: Path, folder: Path) -> None:
        self.project, self.folder = project, folder
        self.python = project / ".venv" / "bin" / "python"
        self.environ = {**demo.environment(), "OMP_NUM_THREADS": "1"}
        self.reference = folder / "reference"
        # No test here looks at the curves, and drawing them takes a second.
        self.smoke = ("train.py", "--scratch", "--config", "configs/smoke.yaml", PIECES)

    def command(self, *arguments: object, ranks: int = 1, agent: tuple[str, ...] = ()) -> list[str]:
        launcher = [*TORCHRUN, *agent, f"--nproc-per-node={ranks}"] if ranks > 1 else []
        return [str(self.python), *launcher, *map(str, arguments)]

    def run(self, *arguments: object, ranks: int = 1, agent: tuple[str, ...] = (), **env: str):
        return subprocess.run(
            self.command(*arguments, ranks=ranks, agent=agent),
            cwd=self.project,
            env={**self.environ, **env},
            capture_output=True,
            text=True,
            timeout=240,
        )

    def start(self, *arguments: object, ranks: int, agent: tuple[str, ...] = (), **env: str):
        return subprocess.Popen(
            self.command(*arguments, ranks=ranks, agent=agent),
            cwd=self.project,
            env={**self.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def later(*values):
    """A row of the slow tier: another number, or another task, of what a row beside it tries."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def reference_of(baked_real, tmp_path_factory):
    """The project and the reference of a starter, made once, whatever the order of the rows."""

    @cache
    def made(starter):
        project = baked_real(stack=REAL_STACK, starter=starter).path
        commit(project)
        lent.set_up(project)
        runs = Runs(project, tmp_path_factory.mktemp("ranks"))
        done = runs.run(*runs.smoke, "--run-dir", runs.reference)
        assert done.returncode == 0, done.stderr
        return runs

    return made


@pytest.fixture
def runs(request, reference_of):
    """The reference of each starter that the table of bits is about."""
    return reference_of(request.param)


@pytest.fixture(scope="module")
def digits(baked_real, tmp_path_factory):
    """The default starter, for what does not depend on the task."""
    project = baked_real(stack=REAL_STACK).path
    commit(project)
    lent.set_up(project)
    made = Runs(project, tmp_path_factory.mktemp("digits"))
    done = made.run(*made.smoke, "--run-dir", made.reference, "training.num_epochs=4")
    assert done.returncode == 0, done.stderr
    return made


STATE = """
import sys
from pathlib import Path
from real.repro.run.checkpoint import checkpoint_digest
print(checkpoint_digest(max(Path(sys.argv[1]).glob("step-*.pt"))))
"""


@cache
def digest(python: Path, checkpoints: Path) -> str:
    """The digest of the last checkpoint, optimizer and all."""
    command = [python, "-c", STATE, checkpoints]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class State:
    """The last checkpoint of a run. Only if the files differ, which those of equal states may, the
    framework is asked, in a process of three seconds."""

    def __init__(self, python: Path, run_dir: Path) -> None:
        self.python, self.folder = python, run_dir / "checkpoints"

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, State)
        ours, theirs = (max(each.folder.glob("step-*.pt")) for each in (self, other))
        if ours.read_bytes() == theirs.read_bytes():
            return True
        return digest(self.python, self.folder) == digest(other.python, other.folder)


def bits(runs: Runs, run_dir: Path) -> dict[str, object]:
    """What a run has computed: its logs and weights, its results, its last checkpoint."""
    results = json.loads((run_dir / "manifest.json").read_text())["results"]
    assert results["completed"]
    files = {name: hashlib.sha256((run_dir / name).read_bytes()).hexdigest() for name in FILES}
    return {**files, "results": results, "state": State(runs.python, run_dir)}


def num_steps(folder: Path) -> int:
    """How many steps the one run in a folder has logged."""
    return sum(len(path.read_text().splitlines()) for path in folder.glob("*/steps.jsonl"))


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise AssertionError(f"nobody listens at {port}")


def wait_for(folder: Path, steps: int, running: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while num_steps(folder) < steps:
        assert running.poll() is None, running.communicate()[0][-3000:]
        assert time.monotonic() < deadline, "the step never came"
        time.sleep(0.01)


def workers(agent: subprocess.Popen) -> list[int]:
    """The processes that torchrun has started, in the order of their ranks."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (folder / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        rank = [v.partition(b"=")[2] for v in variables if v.startswith(b"RANK=")]
        if parent == agent.pid and rank:
            found[int(rank[0])] = int(folder.name)
    return [found[rank] for rank in sorted(found)]


@pytest.mark.parametrize(
    ("runs", "ranks"),
    [*((DIGITS, n) for n in (2, 3, 4)), (TEXT, 3), *(later(TEXT, n) for n in (2, 4))],
    indirect=["runs"],
)
def test_any_number_of_ranks_gives_the_same_bits(runs, ranks):
    """Steps, metrics, weights, results and optimizer, of the digits and of a language model."""
    run_dir = runs.folder / f"plain-{ranks}"
    done = runs.run(*runs.smoke, "--run-dir", run_dir, ranks=ranks)
    assert done.returncode == 0, done.stderr
    assert bits(runs, run_dir) == bits(runs, runs.reference)
    found = json.loads((run_dir / "manifest.json").read_text())["hardware"]["ranks"]
    assert (found["num_ranks"], found["num_pieces"], found["backend"]) == (ranks, 4, "gloo")
    assert done.stdout.splitlines() == [f"run: {run_dir}"]


def test_more_pieces_than_ranks_are_joined_as_one_process_joins_them(digits, tmp_path):
    """Eight pieces on three ranks: uneven shares, of which one is no branch of the tree."""
    eight = (*digits.smoke, "distributed.num_pieces=8")
    for name, ranks in (("one", 1), ("three", 3)):
        done = digits.run(*eight, "--run-dir", tmp_path / name, ranks=ranks)
        assert done.returncode == 0, done.stderr
    assert bits(digits, tmp_path / "three") == bits(digits, tmp_path / "one")


@pytest.mark.parametrize(
    ("runs", "before", "after"),
    [
        *((DIGITS, 3, 2), (DIGITS, 1, 4), (DIGITS, 4, 1)),
        *((TEXT, 3, 2), later(TEXT, 1, 4), later(TEXT, 4, 1)),
    ],
    indirect=["runs"],
)
def test_a_run_may_be_resumed_with_another_number_of_ranks(runs, before, after):
    """Stopped in the middle, not at a checkpoint of its own."""
    run_dir = runs.folder / f"{before}-{after}"
    done = runs.run(*runs.smoke, "--run-dir", run_dir, "--stop-at", 5, ranks=before)
    assert done.returncode == 0, done.stderr
    assert not json.loads((run_dir / "manifest.json").read_text())["results"]["completed"]
    done = runs.run("train.py", "--scratch", "--resume", run_dir, ranks=after)
    assert done.returncode == 0, done.stderr
    assert bits(runs, run_dir) == bits(runs, runs.reference)


@pytest.mark.parametrize("runs", [DIGITS, later(TEXT)], indirect=True)
def test_verify_and_compare_take_the_number_for_a_fact_and_no_cause(runs):
    """A run of one process, executed again by three; a run of two, by as many as it had."""
    done = runs.run("-m", "real", "verify", runs.reference, "--ranks", 3)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "IDENTICAL"), done.stderr
    two = runs.folder / "plain-2"
    if not two.exists():
        assert runs.run(*runs.smoke, "--run-dir", two, ranks=2).returncode == 0
    done = runs.run("-m", "real", "compare", runs.reference, two)
    assert done.stdout.splitlines()[-2:] == ["no recorded fact differs", "IDENTICAL"]
    (row,) = [line.split() for line in done.stdout.splitlines() if line.startswith("ranks ")]
    assert row == ["ranks", "1", "2"]


@pytest.mark.parametrize("victim", [0, later(2)])
def test_a_killed_rank_is_started_again_by_torchrun(digits, tmp_path, victim):
    """SIGKILL of one rank under --max-restarts: all are started again, and the run resumed."""
    agent = ("--max-restarts=2",)
    arguments = (*digits.smoke, "training.num_epochs=4")
    running = digits.start(*arguments, ranks=3, agent=agent, OUTPUT_DIR=str(tmp_path))
    wait_for(tmp_path, 10, running)
    process = workers(running)[victim]
    os.kill(process, signal.SIGKILL)
    said = running.communicate(timeout=180)[0]
    assert running.returncode == 0, said[-3000:]
    (run_dir,) = tmp_path.iterdir()
    assert len(json.loads((run_dir / "manifest.json").read_text())["resumes"]) == 1
    assert bits(digits, run_dir) == bits(digits, digits.reference)


SLOW = """
import runpy, sys, time
sys.argv = sys.argv[1:]
from real.repro import cli
def tell(*arguments, at_once=cli._tell):
    time.sleep(1)
    at_once(*arguments)
cli._tell = tell
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("own_store", "victim"), [("0", 1), ("1", 0), later("0", 0), later("1", 1)]
)
def test_a_rank_that_dies_takes_the_others_down_with_a_line_that_names_it(
    digits, tmp_path, victim, own_store
):
    """In seconds, without restarts, though the first one may have held what they shared, and though
    torchrun, which looks ten times a second, ends those that have yet to say it; what was saved can
    be resumed, also by fewer."""
    (tmp_path / "slow.py").write_text(SLOW)
    arguments = (tmp_path / "slow.py", *digits.smoke, "training.num_epochs=4")
    outputs = tmp_path / "outputs"
    how = {"OUTPUT_DIR": str(outputs), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": own_store}
    running = digits.start(*arguments, ranks=3, PYTHONPATH=str(digits.project / "src"), **how)
    wait_for(outputs, 10, running)
    process = workers(running)[victim]
    started = time.monotonic()
    os.kill(process, signal.SIGKILL)
    said = running.communicate(timeout=60)[0]
    assert time.monotonic() - started < 20
    assert running.returncode == 1
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, said[-3000:]
    assert re.match(
        rf"error: rank {victim} \(process {process} on \S+\) ended before the others", lines[0]
    )
    (run_dir,) = outputs.iterdir()
    done = digits.run("train.py", "--scratch", "--resume", run_dir, ranks=2)
    assert done.returncode == 0, done.stderr
    assert bits(digits, run_dir) == bits(digits, digits.reference)


def test_a_node_that_is_lost_may_be_replaced(digits, tmp_path):
    """One of two torchruns and its rank are killed; another one takes their place."""
    port = free_port()
    endpoint = f"--rdzv-endpoint=127.0.0.1:{port}"
    node = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=3"]
    node += ["--rdzv-backend=c10d", endpoint, "--rdzv-id=job", *digits.smoke]
    how = {"OUTPUT_DIR": str(tmp_path), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    node.append("training.num_epochs=4")
    first = digits.start(*node, ranks=1, **how)
    wait_for_port(port)  # whoever is there first keeps the rendezvous, and must stay
    second = digits.start(*node, ranks=1, **how)
    wait_for(tmp_path, 6, first)
    lost = [*workers(second), second.pid]
    for process in lost:
        os.kill(process, signal.SIGKILL)
    third = digits.start(*node, ranks=1, **how)
    said = "".join(each.communicate(timeout=180)[0] for each in (first, third, second))
    assert (first.returncode, third.returncode) == (0, 0), said[-3000:]
    assert said.count("error: ") == 1
    (run_dir,) = tmp_path.iterdir()
    assert len(json.loads((run_dir / "manifest.json").read_text())["resumes"]) == 1
    assert bits(digits, run_dir) == bits(digits, digits.reference)


ODD = """
import os, runpy, sys
sys.argv = sys.argv[1:]
if os.environ.get("RANK") == "1":
    import torch
    def load(*arguments, **how):
        raise OSError(116, "Stale file handle")
    torch.load = load
runpy.run_path("train.py", run_name="__main__")
"""


def test_a_rank_that_alone_cannot_resume_says_why(digits, tmp_path):
    """The others have begun to: nobody starts a new run, and nobody waits for somebody who has."""
    done = digits.run(*digits.smoke, "--stop-at", 5, OUTPUT_DIR=str(tmp_path / "outputs"))
    assert done.returncode == 0, done.stderr
    (tmp_path / "odd.py").write_text(ODD)
    started = time.monotonic()
    environ = {"OUTPUT_DIR": str(tmp_path / "outputs"), "PYTHONPATH": str(digits.project / "src")}
    done = digits.run(tmp_path / "odd.py", *digits.smoke, "--auto-resume", ranks=2, **environ)
    assert done.returncode == 1
    assert time.monotonic() - started < 60
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Stale file handle" in errors[0]
    (run_dir,) = (tmp_path / "outputs").iterdir()
    assert len((run_dir / "steps.jsonl").read_text().splitlines()) == 5


@pytest.mark.parametrize("target", ["all", "agent", "one rank"])
def test_sigterm_stops_all_ranks_after_the_same_step(digits, tmp_path, target):
    """To the whole group as Slurm sends it, to torchrun, or to one rank: a checkpoint, resumed."""
    arguments = (*digits.smoke, "training.num_epochs=4")
    running = digits.start(*arguments, ranks=3, OUTPUT_DIR=str(tmp_path))
    wait_for(tmp_path, 6, running)
    if target == "all":
        os.killpg(running.pid, signal.SIGTERM)
    else:
        os.kill(running.pid if target == "agent" else workers(running)[1], signal.SIGTERM)
    said = running.communicate(timeout=60)[0]
    assert running.returncode != 0
    assert said.count("stopped after step") == 1, said[-3000:]
    (run_dir,) = tmp_path.iterdir()
    steps = len((run_dir / "steps.jsonl").read_text().splitlines())
    assert max((run_dir / "checkpoints").glob("*.pt")).stem == f"step-{steps:08d}"
    done = digits.run("train.py", "--scratch", "--resume", run_dir, ranks=2)
    assert done.returncode == 0, done.stderr
    assert bits(digits, run_dir) == bits(digits, digits.reference)


def test_the_ordered_sum_is_deterministic_for_one_number_of_ranks(digits, tmp_path):
    """Three ranks, killed and resumed by three: the same bits; by two: refused, nothing lost."""
    ordered = (*digits.smoke[:-1], "distributed.gradients=ordered", "data.num_workers=0")
    batch = "training.global_batch_size=96"
    done = digits.run(*ordered, batch, "--run-dir", tmp_path / "a", ranks=3)
    assert done.returncode == 0, done.stderr
    done = digits.run(*ordered, batch, "--run-dir", tmp_path / "b", "--stop-at", 5, ranks=3)
    assert done.returncode == 0, done.stderr
    refused = digits.run("train.py", "--scratch", "--resume", tmp_path / "b", ranks=2)
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert "the number of ranks was 3, now 2" in line
    done = digits.run("train.py", "--scratch", "--resume", tmp_path / "b", ranks=3)
    assert done.returncode == 0, done.stderr
    assert bits(digits, tmp_path / "a") == bits(digits, tmp_path / "b")
    done = digits.run("-m", "real", "verify", tmp_path / "b", "--ranks", 2)
    assert (done.returncode, done.stderr.count("error: ")) == (2, 1)


def test_a_resume_in_the_other_mode_is_one_line(digits, tmp_path):
    """The bits would be neither those of the one nor of the other."""
    done = digits.run(*digits.smoke, "--run-dir", tmp_path / "run", "--stop-at", 5)
    assert done.returncode == 0, done.stderr
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    done = digits.run(
        *("train.py", "--resume", tmp_path / "run", "distributed.gradients=ordered"), ranks=2
    )
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "config distributed.gradients was 'invariant', now 'ordered'" in line
    after = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert before == after


def test_a_verification_that_ranks_cannot_do_is_one_line(digits):
    """torchrun's own report is left out."""
    done = digits.run("-m", "real", "verify", digits.reference, "--ranks", 8)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: distributed.num_pieces is 4")


BAD = {
    "more ranks than pieces": (
        ("distributed.num_pieces=1",),
        "distributed.num_pieces is 1, the largest number of processes; torchrun started 2",
    ),
    "a batch that does not divide": (
        ("distributed.num_pieces=3",),
        "global_batch_size must be a multiple of accumulate times the number of pieces",
    ),
    "NCCL without GPUs": ((PIECES, "distributed.backend=nccl"), "nccl, which needs GPUs"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_ranks_cannot_do_is_one_line(digits, tmp_path, case):
    """By one rank, with no traceback of ours, and no run is left."""
    overrides, told = BAD[case]
    arguments = ("train.py", "--config", "configs/smoke.yaml", *overrides)
    done = digits.run(*arguments, "--run-dir", tmp_path / "run", ranks=2)
    assert done.returncode == 1  # torchrun's own
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert told in line
    assert not (tmp_path / "run").exists()


def test_ranks_that_see_different_code_are_named_before_the_first_step(digits, tmp_path):
    """Two nodes, of which one has another checkout."""
    other = tmp_path / "other" / digits.project.name
    left_out = shutil.ignore_patterns("outputs", ".envs")
    shutil.copytree(digits.project, other, symlinks=True, ignore=left_out)
    lent.linked_copy(digits.project / ".envs", other / ".envs")
    with (other / "src/real/model.py").open("a") as file:
        file.write("\n\nEDITED = True\n")
    port = free_port()
    nodes = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    nodes += ["--master-addr=127.0.0.1", f"--master-port={port}"]
    running = [
        subprocess.Popen(
            [
                *(folder / ".envs/cpu/bin/python", *nodes, f"--node-rank={number}"),
                *(*digits.smoke, "--run-dir", str(tmp_path / "run")),
            ],
            cwd=folder,
            env={**digits.environ, "OUTPUT_DIR": str(tmp_path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, folder in enumerate((digits.project, other))
    ]
    said = "".join(process.communicate(timeout=120)[1] for process in running)
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert re.search(r"code files.src/real/model.py of rank 1 \(on \S+\) differs", line)
    assert not (tmp_path / "run").exists()


def test_nodes_with_other_arguments_are_named_and_do_not_wait_for_each_other(digits, tmp_path):
    """One is told to resume, the other is not."""
    node = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    node += ["--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    started, nodes = time.monotonic(), []
    for number, option in enumerate((("--auto-resume",), ("--seed=3",))):
        command = (*node, f"--node-rank={number}", *digits.smoke, *option)
        nodes.append(digits.start(*command, ranks=1, OUTPUT_DIR=str(tmp_path)))
    said = "".join(each.communicate(timeout=120)[0] for each in nodes)
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert re.search(r"argument \d of rank 1 \(on \S+\) differs from that of rank 0", line)
    assert line.endswith("start torchrun with the same arguments on every node")
    assert time.monotonic() - started < 60
    assert not any(tmp_path.iterdir())


def the_error(digits, tmp_path, before):
    """What two ranks say, of which each runs the lines `before` ahead of the training."""
    start = "import runpy, sys\nsys.argv = sys.argv[1:]\n"
    start += "runpy.run_path('train.py', run_name='__main__')\n"
    (tmp_path / "started.py").write_text(before + start)
    arguments = (tmp_path / "started.py", *digits.smoke, "--run-dir", tmp_path / "run")
    done = digits.run(*arguments, ranks=2, PYTHONPATH=str(digits.project / "src"))
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


ALONE = """
import os
from real.repro import Run
number = Run.log_step
Run.log_step = lambda run, **given: number(run, **given, place=float(os.environ["RANK"]))
"""


def test_a_number_that_is_one_ranks_own_is_named_at_the_next_checkpoint(digits, tmp_path):
    """The record would depend on who keeps it."""
    line = the_error(digits, tmp_path, ALONE)
    assert re.search(r"after step \d+, the steps.jsonl of rank 1 \(on \S+\) differs", line)
    assert line.endswith("log what all ranks have: run.loss, and what run.spread returns")


def test_a_port_that_is_taken_is_one_line(digits, tmp_path):
    """Somebody else listens where the ranks want to meet: no rank waits for ever."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        meet = ("--nnodes=1", "--nproc-per-node=2", "--master-addr=127.0.0.1")
        command = ("-m", "torch.distributed.run", *meet, f"--master-port={port}", *digits.smoke)
        done = digits.run(*command, "--run-dir", tmp_path / "run")
    assert done.returncode == 1
    assert f"{port}" in done.stderr
    assert not (tmp_path / "run").exists()


HIDES = """
import os, pathlib
if os.environ.get("RANK") == "1":
    sees = pathlib.Path.exists
    pathlib.Path.exists = lambda path: path.name != "manifest.json" and sees(path)
"""


def test_a_file_system_that_is_not_shared_is_one_line(digits, tmp_path):
    """One rank does not see what another has written: named before the first step."""
    line = the_error(digits, tmp_path, HIDES)
    assert re.search(r"rank 1 \(on \S+\) does not see \S+manifest.json", line)


def test_another_launcher_is_refused_in_one_line(digits, tmp_path):
    """Each of its processes would take itself for the only one."""
    done = digits.run(*digits.smoke, "--run-dir", tmp_path / "run", RANK="1", WORLD_SIZE="2")
    assert done.returncode == 2
    assert done.stderr.startswith("error: WORLD_SIZE is 2, so several processes were started")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()
