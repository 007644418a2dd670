"""The proof: what must not matter does not change a bit, and what must matter does."""

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import ROOT, SMOKE, command, run, train

RESULT_FILES = ("steps.jsonl", "metrics.csv", "model.safetensors")


def bits(run_dir: Path) -> dict[str, bytes]:
    """Everything that a run computed, byte for byte."""
    results = json.loads((run_dir / "manifest.json").read_text())["results"]
    assert results["completed"]
    found = {name: (run_dir / name).read_bytes() for name in RESULT_FILES}
    return {**found, "results": json.dumps(results).encode()}


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, pool: ThreadPoolExecutor
) -> dict[tuple[int, str], Path]:
    """Three seeds, each trained twice: fresh processes, another hash seed each."""
    folder = tmp_path_factory.mktemp("seeds")
    plan = [(seed, hash_seed) for seed in (0, 1, 2) for hash_seed in ("1", "2")]
    futures = {
        (seed, hash_seed): pool.submit(
            train,
            folder / f"{seed}-{hash_seed}",
            *("--seed", seed),
            env={"PYTHONHASHSEED": hash_seed},
        )
        for seed, hash_seed in plan
    }
    return {key: future.result() for key, future in futures.items()}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_same_seed_gives_the_same_bits_in_fresh_processes(runs, seed):
    """Two processes with another hash seed each agree on every step, row and weight."""
    assert bits(runs[seed, "1"]) == bits(runs[seed, "2"])


def test_the_hash_seeds_really_differed(runs):
    """The two processes of a pair ran under the hash seeds that they were given."""
    manifests = [json.loads((runs[0, h] / "manifest.json").read_text()) for h in ("1", "2")]
    recorded = [m["determinism"]["environment"]["PYTHONHASHSEED"] for m in manifests]
    assert recorded == ["1", "2"]


def test_another_seed_gives_other_bits(runs):
    """Seed 0 is a seed like any other: it differs from seed 1 from the first step on."""
    first = [(runs[seed, "1"] / "steps.jsonl").read_text().splitlines()[0] for seed in (0, 1)]
    assert first[0] != first[1]
    assert bits(runs[0, "1"])["model.safetensors"] != bits(runs[1, "1"])["model.safetensors"]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_number_of_workers_does_not_matter(runs, tmp_path, num_workers):
    """Loader processes fetch the same samples with the same augmentation in the same order."""
    run_dir = train(tmp_path / "run", f"data.num_workers={num_workers}")
    assert bits(run_dir) == bits(runs[0, "1"])


def test_the_surroundings_do_not_matter(runs, tmp_path):
    """Time zone, locale, thread variables and memory content of the caller change nothing."""
    env = {
        "TZ": "Pacific/Chatham",
        "LC_ALL": "C",
        "OMP_NUM_THREADS": "2",
        "MALLOC_PERTURB_": "165",
        "PYTHONHASHSEED": "77",
    }
    assert bits(train(tmp_path / "run", env=env)) == bits(runs[0, "1"])


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX; Windows runs the other tests")
@pytest.mark.parametrize(("kill_after", "num_workers"), [(6, 0), (13, 2)])
def test_a_killed_run_resumes_to_the_same_bits(runs, tmp_path, kill_after, num_workers):
    """SIGKILL in either epoch, then `--resume` with another worker count: nothing differs."""
    run_dir = tmp_path / "run"
    start = command("train", "--config", SMOKE, "--run-dir", run_dir)
    process = subprocess.Popen(
        start, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    steps = run_dir / "steps.jsonl"
    while not steps.exists() or len(steps.read_bytes().splitlines()) < kill_after:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not json.loads((run_dir / "manifest.json").read_text())["results"]["completed"]
    done = run("train", "--resume", run_dir, f"data.num_workers={num_workers}")
    assert done.returncode == 0, done.stderr
    assert bits(run_dir) == bits(runs[0, "1"])


@pytest.mark.skipif(os.name == "nt", reason="SIGTERM ends a process at once on Windows")
def test_a_terminated_run_saves_first_and_resumes_to_the_same_bits(runs, tmp_path):
    """SIGTERM: a checkpoint of the last whole step, exit code 143, and nothing lost."""
    run_dir = tmp_path / "run"
    start = command("train", "--config", SMOKE, "--run-dir", run_dir, "data.num_workers=1")
    process = subprocess.Popen(
        start, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    steps = run_dir / "steps.jsonl"
    while not steps.exists() or not steps.read_bytes():
        assert process.poll() is None, "the run ended before it could be stopped"
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGTERM)  # a cluster signals the loader processes too
    _, message = process.communicate()
    assert process.returncode == 143, message.decode()
    done = len(steps.read_text().splitlines())
    assert f"stopped after step {done}".encode() in message
    assert (run_dir / "checkpoints" / f"step-{done:08d}.pt").exists()
    resumed = run("train", "--resume", run_dir)
    assert resumed.returncode == 0, resumed.stderr
    assert bits(run_dir) == bits(runs[0, "1"])


def test_evaluation_and_checkpoints_do_not_move_training(runs, tmp_path):
    """Another checkpoint cadence gives the same steps and weights."""
    run_dir = train(tmp_path / "run", "training.checkpoint_every=1")
    assert bits(run_dir) == bits(runs[0, "1"])


def test_verify_says_identical(runs):
    """Executing a run again from its manifest gives the same bits and exit code 0."""
    done = run("verify", runs[1, "2"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "IDENTICAL"


def test_verify_executes_single_segments(runs, tmp_path):
    """Stretches between checkpoints, chosen by a seed, give the same steps and the same state."""
    run_dir = train(tmp_path / "run", "training.checkpoint_every=5", "training.keep_checkpoints=9")
    done = run("verify", run_dir, "--segments", 1, "--seed", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("  equal") == 1
    assert done.stdout.splitlines()[-1] == "IDENTICAL"
    summary = json.loads((run_dir / "verify.json").read_text())
    assert summary["identical"] is True
    assert all(0 < s["end"] - s["start"] <= 5 for s in summary["segments"])
    assert "<polyline" in (run_dir / "verify.html").read_text()


def test_a_segment_with_a_forged_step_is_found(runs, tmp_path):
    """One changed loss in the record: exit code 1, and the step is named."""
    arguments = ("training.checkpoint_every=9", "training.keep_checkpoints=9")
    run_dir = train(tmp_path / "run", *arguments)
    lines = (run_dir / "steps.jsonl").read_text().splitlines()
    lines[13] = lines[13].replace('"grad_norm": "0x1.', '"grad_norm": "0x1.0')
    (run_dir / "steps.jsonl").write_text("\n".join(lines) + "\n")
    done = run("verify", run_dir, "--segments", 99)
    assert done.returncode == 1
    assert "first differs at step 14, in grad_norm" in done.stdout


def test_verify_names_the_first_step_that_differs(tmp_path, runs):
    """A run whose record was made with another seed is not confirmed: the first step is named."""
    source, forged = runs[0, "1"], tmp_path / "forged"
    forged.mkdir()
    for name in ("manifest.json", "config.yaml", "metrics.csv", "model.safetensors"):
        (forged / name).write_bytes((source / name).read_bytes())
    lines = (source / "steps.jsonl").read_text().splitlines()
    lines[4] = lines[4].replace('"loss": "0x1.', '"loss": "0x1.0')
    (forged / "steps.jsonl").write_text("\n".join(lines) + "\n")
    done = run("verify", forged)
    assert done.returncode == 1
    assert "first differs at step 5, in loss" in done.stdout
