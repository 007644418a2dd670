"""The proof: what must not matter does not change a bit, and what must matter does."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from conftest import ROOT, SMOKE, command, run, train

RESULT_FILES = ("steps.jsonl", "metrics.csv", "model.safetensors")
SEEDS, HASH_SEEDS = (0, 1, 2), ("1", "2")
SEGMENTS = ("training.checkpoint_every=9", "training.keep_checkpoints=9")
POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


def bits(run_dir: Path) -> dict[str, bytes]:
    """Everything that a run computed, byte for byte."""
    results = json.loads((run_dir / "manifest.json").read_text())["results"]
    assert results["completed"]
    found = {name: (run_dir / name).read_bytes() for name in RESULT_FILES}
    return {**found, "results": json.dumps(results).encode()}


def interrupt(run_dir: Path, after: int, signal_number: int, *overrides: str) -> int:
    """Train until `after` steps are logged, signal the whole group, return the exit code."""
    process = subprocess.Popen(
        command("train", "--config", SMOKE, "--run-dir", run_dir, *overrides),
        cwd=ROOT,
        env={**os.environ, "MLFLOW_TRACKING_URI": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    steps = run_dir / "steps.jsonl"
    while not steps.exists() or len(steps.read_bytes().splitlines()) < after:
        assert process.poll() is None, "the run ended before it could be stopped"
        time.sleep(0.001)
    os.killpg(process.pid, signal_number)
    return process.wait()


def killed(after: int, num_workers: int, run_dir: Path) -> Path:
    """SIGKILL, then resume with another number of workers."""
    interrupt(run_dir, after, signal.SIGKILL)
    assert not json.loads((run_dir / "manifest.json").read_text())["results"]["completed"]
    done = run("train", "--resume", run_dir, f"data.num_workers={num_workers}")
    assert done.returncode == 0, done.stderr
    return run_dir


def terminated(run_dir: Path) -> Path:
    """SIGTERM to trainer and loader process, as a cluster sends it, then resume."""
    assert interrupt(run_dir, 1, signal.SIGTERM, "data.num_workers=1") == 143
    done = len((run_dir / "steps.jsonl").read_text().splitlines())
    assert (run_dir / "checkpoints" / f"step-{done:08d}.pt").exists()
    resumed = run("train", "--resume", run_dir)
    assert resumed.returncode == 0, resumed.stderr
    return run_dir


def elsewhere(run_dir: Path) -> Path:
    """Another time zone, locale, thread variable, hash seed and memory content."""
    env = {
        "TZ": "Pacific/Chatham",
        "LC_ALL": "C",
        "OMP_NUM_THREADS": "2",
        "MALLOC_PERTURB_": "165",
        "PYTHONHASHSEED": "77",
    }
    return train(run_dir, env=env)


def with_seed(seed: int, hash_seed: str, run_dir: Path) -> Path:
    return train(run_dir, "--seed", seed, env={"PYTHONHASHSEED": hash_seed})


SCENARIOS: dict[str, Callable[[Path], Path]] = {
    **{f"seed {s}, hash {h}": partial(with_seed, s, h) for s in SEEDS for h in HASH_SEEDS},
    "1 worker": lambda run_dir: train(run_dir, "data.num_workers=1"),
    "2 workers": lambda run_dir: train(run_dir, "data.num_workers=2"),
    "elsewhere": elsewhere,
    "a checkpoint each step": lambda run_dir: train(run_dir, "training.checkpoint_every=1"),
    "in segments": lambda run_dir: train(run_dir, *SEGMENTS),
}
if os.name != "nt":
    SCENARIOS |= {
        "killed in the first epoch": partial(killed, 6, 0),
        "killed in the second epoch": partial(killed, 13, 2),
        "terminated": terminated,
    }


@pytest.fixture(scope="module")
def scenario(tmp_path_factory, pool: ThreadPoolExecutor) -> Callable[[str], Path]:
    """All runs start at once, two at a time; a test waits for the one that it is about."""
    folder = tmp_path_factory.mktemp("scenarios")
    futures: dict[str, Future[Path]] = {
        name: pool.submit(play, folder / name.replace(" ", "-")) for name, play in SCENARIOS.items()
    }
    return lambda name: futures[name].result()


@pytest.fixture(scope="module")
def expected(scenario) -> dict[str, bytes]:
    """What every run of seed 0 must come to."""
    return bits(scenario("seed 0, hash 1"))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_seed_gives_the_same_bits_in_fresh_processes(scenario, seed):
    """Two processes with another hash seed each agree on every step, row and weight."""
    first, second = (scenario(f"seed {seed}, hash {h}") for h in HASH_SEEDS)
    assert bits(first) == bits(second)


def test_the_hash_seeds_really_differed(scenario):
    """The two processes of a pair ran under the hash seeds that they were given."""
    manifests = [scenario(f"seed 0, hash {h}") / "manifest.json" for h in HASH_SEEDS]
    switches = [json.loads(path.read_text())["determinism"] for path in manifests]
    assert [s["environment"]["PYTHONHASHSEED"] for s in switches] == list(HASH_SEEDS)


def test_another_seed_gives_other_bits(scenario):
    """Seed 0 is a seed like any other: it differs from seed 1 from the first step on."""
    zero, one = (scenario(f"seed {seed}, hash 1") for seed in (0, 1))
    first = [(r / "steps.jsonl").read_text().splitlines()[0] for r in (zero, one)]
    assert first[0] != first[1]
    assert bits(zero)["model.safetensors"] != bits(one)["model.safetensors"]


@pytest.mark.parametrize("name", ["1 worker", "2 workers"])
def test_the_number_of_workers_does_not_matter(scenario, expected, name):
    """Loader processes fetch the same samples with the same augmentation in the same order."""
    assert bits(scenario(name)) == expected


def test_the_surroundings_do_not_matter(scenario, expected):
    """Time zone, locale, thread variables and memory content of the caller change nothing."""
    assert bits(scenario("elsewhere")) == expected


def test_checkpoints_do_not_move_training(scenario, expected):
    """Another checkpoint cadence gives the same steps and weights."""
    assert bits(scenario("a checkpoint each step")) == expected


@POSIX
@pytest.mark.parametrize("name", ["killed in the first epoch", "killed in the second epoch"])
def test_a_killed_run_resumes_to_the_same_bits(scenario, expected, name):
    """SIGKILL in either epoch, then `--resume` with another worker count: nothing differs."""
    assert bits(scenario(name)) == expected


@POSIX
def test_a_terminated_run_saves_first_and_resumes_to_the_same_bits(scenario, expected):
    """SIGTERM: a checkpoint of the last whole step, exit code 143, and nothing lost."""
    assert bits(scenario("terminated")) == expected


def test_verify_says_identical(scenario):
    """Executing a run again from its manifest gives the same bits and exit code 0."""
    done = run("verify", scenario("seed 1, hash 2"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "IDENTICAL"


def test_verify_names_the_first_step_that_differs(scenario, tmp_path):
    """A record with one other loss is not confirmed: the step is named, exit code 1."""
    source, forged = scenario("seed 0, hash 1"), tmp_path / "forged"
    forged.mkdir()
    for name in ("manifest.json", "config.yaml", "metrics.csv", "model.safetensors"):
        (forged / name).write_bytes((source / name).read_bytes())
    forge((source / "steps.jsonl"), forged / "steps.jsonl", step=5, quantity="loss")
    done = run("verify", forged)
    assert done.returncode == 1
    assert "first differs at step 5, in loss" in done.stdout


def test_verify_executes_single_segments(scenario):
    """A stretch between checkpoints, chosen by a seed, gives the same steps and the same state."""
    run_dir = scenario("in segments")
    done = run("verify", run_dir, "--segments", 1, "--seed", 1)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 segments: 9 of 18 steps are executed again" in done.stdout
    assert done.stdout.splitlines()[-1] == "IDENTICAL"
    summary = json.loads((run_dir / "verify.json").read_text())
    assert summary["identical"] is True
    assert [s["end"] - s["start"] for s in summary["segments"]] == [9]
    assert "<polyline" in (run_dir / "verify.html").read_text()


def test_a_segment_with_a_forged_step_is_found(scenario):
    """A gradient norm changed in each stretch: whichever is executed, the step is named."""
    run_dir = scenario("in segments")
    steps = run_dir / "steps.jsonl"
    whole = steps.read_bytes()
    forge(steps, steps, step=4, quantity="grad_norm")
    forge(steps, steps, step=14, quantity="grad_norm")
    done = run("verify", run_dir, "--segments", 1)
    steps.write_bytes(whole)
    assert done.returncode == 1
    assert re.search("first differs at step (4|14), in grad_norm", done.stdout)


def forge(source: Path, target: Path, *, step: int, quantity: str) -> None:
    """Copy a step log with one quantity of one step changed."""
    lines = source.read_text().splitlines()
    changed = lines[step - 1].replace(f'"{quantity}": "0x1.', f'"{quantity}": "0x1.0')
    assert changed != lines[step - 1]
    lines[step - 1] = changed
    target.write_text("\n".join(lines) + "\n")
