"""The proof: what must not matter does not change a bit, and what must matter does."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import OTHER, PLAIN, SMOKE, edit_manifest, run, train

from {{ cookiecutter.__package }}.checkpoint import (
    checkpoint_digest,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from {{ cookiecutter.__package }}.environment import PORTABLE, read_cpu

RESULT_FILES = ("steps.jsonl", "metrics.csv", "model.safetensors")
SEEDS = (0, 1, 2)
SEGMENTS = ("training.checkpoint_every=9", "training.keep_checkpoints=9")
KILLS = {
    "on the first step": "before record.Recorder.step 1",
    "while a checkpoint is written": "after torch.save 1",
    "before a checkpoint is renamed": "before pathlib.Path.replace 5",
    "after a checkpoint is renamed": "after pathlib.Path.replace 5",
    "during evaluation": "before train.F.cross_entropy 11",
    "between an epoch's row and its checkpoint": "after record.Recorder.row 1",
    "in the middle of the second epoch": "after record.Recorder.step 14",
    "on the last step": "after record.Recorder.step 18",
    "before the weights are written": "before train.save_weights 1",
    "before the manifest is finished": "before train.finish_manifest 1",
}
"""Instants of a SIGKILL. Nine steps an epoch, two epochs, a checkpoint every four steps."""
POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


def bits(run_dir: Path) -> dict[str, object]:
    """Everything that a run computed: logs, weights, results, and the state to resume from."""
    results = json.loads((run_dir / "manifest.json").read_text())["results"]
    assert results["completed"]
    found = {name: (run_dir / name).read_bytes() for name in RESULT_FILES}
    state = checkpoint_digest(list_checkpoints(run_dir / "checkpoints")[-1])
    return {**found, "results": results, "state": state}


def facts(run_dir: Path, apart: Iterable[str] = (*PLAIN, *OTHER)) -> dict[str, Any]:
    """What a run recorded of itself, without what must differ between two launchers."""
    manifest = json.loads((run_dir / "manifest.json").read_text())
    for name in ("run_id", "command"):
        del manifest[name]
    for name in apart:
        manifest["determinism"]["environment"].pop(name, None)
    del manifest["hardware"]["num_cores"]  # disturbed on purpose, and told as it was found
    return manifest


def killed(instant: str, num_workers: int, run_dir: Path) -> Path:
    """SIGKILL, then resume elsewhere with another number of workers."""
    stopped = run("train", "--config", SMOKE, "--run-dir", run_dir, kill=instant)
    assert stopped.returncode == -9, stopped.stderr
    assert not json.loads((run_dir / "manifest.json").read_text())["results"]["completed"]
    workers = f"data.num_workers={num_workers}"
    done = run("train", "--resume", run_dir, workers, other=True, vary="reversed")
    assert done.returncode == 0, done.stderr
    return run_dir


def terminated(run_dir: Path) -> Path:
    """SIGTERM to trainer and loader process, as a cluster sends it, then resume."""
    stopped = run(
        *("train", "--config", SMOKE, "--run-dir", run_dir, "data.num_workers=1"),
        send="SIGTERM after record.Recorder.step 5",
    )
    assert stopped.returncode == 143, stopped.stderr
    assert len((run_dir / "steps.jsonl").read_text().splitlines()) == 5
    assert (run_dir / "checkpoints" / "step-00000005.pt").exists()
    done = run("train", "--resume", run_dir)
    assert done.returncode == 0, done.stderr
    return run_dir


def cold(run_dir: Path) -> Path:
    """A process started from nothing, with variables of its caller that would change bits."""
    env = {
        "OMP_NUM_THREADS": "2",
        "ATEN_CPU_CAPABILITY": "default",
        "DNNL_MAX_CPU_ISA": "SSE41",
        "PYTHONHASHSEED": "77",
    }
    train(run_dir, env=env)
    recorded = facts(run_dir, apart=())["determinism"]["environment"]
    assert recorded["PYTHONHASHSEED"] == "77", "it was not started again"
    return run_dir


def _seeded(seed: int, run_dir: Path, **how: object) -> Path:
    return train(run_dir, "--seed", seed, **how)


def workers(number: int, prefetch: int = 2, **how: object) -> Callable[[Path], Path]:
    overrides = (f"data.num_workers={number}", f"data.prefetch_factor={prefetch}")
    return lambda run_dir: train(run_dir, *overrides, **how)


SCENARIOS: dict[str, Callable[[Path], Path]] = {
    "seed 0": train,
    "seed 0 elsewhere": partial(train, other=True, vary="reversed"),
    **{f"seed {seed}": partial(_seeded, seed) for seed in SEEDS[1:]},
    **{f"seed {seed} elsewhere": partial(_seeded, seed, other=True) for seed in SEEDS[1:]},
    "1 worker": workers(1),
    "2 uneven workers": workers(2, prefetch=4, other=True, vary="sorted"),
    "4 workers": workers(4, prefetch=1),
    "cold": cold,
    "portable": lambda run_dir: train(run_dir, "determinism.profile=portable"),
    "portable elsewhere": lambda run_dir: train(
        run_dir,
        "determinism.profile=portable",
        other=True,
        env={"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "AVX2"},
    ),
    "a checkpoint each step": lambda run_dir: train(run_dir, "training.checkpoint_every=1"),
    "in segments": lambda run_dir: train(run_dir, *SEGMENTS),
}
if os.name != "nt":
    SCENARIOS["terminated"] = terminated
    for number, (name, instant) in enumerate(KILLS.items()):
        SCENARIOS[f"killed {name}"] = partial(killed, instant, number % 3)


@pytest.fixture(scope="module")
def scenario(tmp_path_factory, pool: ThreadPoolExecutor) -> Callable[[str], Path]:
    """All runs start at once, two at a time; a test waits for the one that it is about."""
    folder = tmp_path_factory.mktemp("scenarios")
    futures: dict[str, Future[Path]] = {
        name: pool.submit(play, folder / name.replace(" ", "-")) for name, play in SCENARIOS.items()
    }
    return lambda name: futures[name].result()


@pytest.fixture(scope="module")
def expected(scenario) -> dict[str, object]:
    """What every run of seed 0 must come to."""
    return bits(scenario("seed 0"))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_seed_gives_the_same_bits_in_fresh_processes(scenario, seed):
    """Two interpreters with other hash seeds agree on every step, row, weight and state."""
    assert bits(scenario(f"seed {seed}")) == bits(scenario(f"seed {seed} elsewhere"))


def test_the_hash_seeds_really_differed(scenario):
    """The two processes of a pair ran under the hash seeds that they were given."""
    names = ("seed 0", "seed 0 elsewhere", "cold")
    manifests = [json.loads((scenario(name) / "manifest.json").read_text()) for name in names]
    found = [m["determinism"]["environment"]["PYTHONHASHSEED"] for m in manifests]
    assert found == [PLAIN["PYTHONHASHSEED"], OTHER["PYTHONHASHSEED"], "77"]


def test_another_seed_gives_other_bits(scenario):
    """Seed 0 is a seed like any other: it differs from seed 1 from the first step on."""
    zero, one = (scenario(f"seed {seed}") for seed in (0, 1))
    first = [(r / "steps.jsonl").read_text().splitlines()[0] for r in (zero, one)]
    assert first[0] != first[1]
    assert bits(zero)["model.safetensors"] != bits(one)["model.safetensors"]


@pytest.mark.parametrize("name", ["1 worker", "2 uneven workers", "4 workers"])
def test_the_number_of_workers_does_not_matter(scenario, expected, name):
    """Loader processes of any number, lead and speed fetch the same samples in the same order."""
    assert bits(scenario(name)) == expected


def test_the_surroundings_do_not_matter(scenario, expected):
    """Listings, clock, processors, memory content, stray draws and slow steps change nothing,
    neither in what a run computes nor in what it records of itself."""
    assert bits(scenario("seed 0 elsewhere")) == expected
    assert facts(scenario("seed 0 elsewhere")) == facts(scenario("seed 0"))


def test_the_callers_variables_do_not_matter(scenario, expected):
    """Threads and instruction sets that the shell asks for give way to the configuration."""
    assert bits(scenario("cold")) == expected


def test_the_portable_profile_is_what_it_says(scenario):
    """AVX2 and no more, as torch reports it, whatever the caller set; the same bits each time.

    That other makers' processors give these bits too is measured in the template's benchmarks."""
    if "avx2" not in read_cpu()[1]:
        with pytest.raises(AssertionError, match="needs an x86-64 CPU with AVX2"):
            scenario("portable")
        return
    assert bits(scenario("portable")) == bits(scenario("portable elsewhere"))
    for name in ("portable", "portable elsewhere"):
        manifest = json.loads((scenario(name) / "manifest.json").read_text())
        assert manifest["determinism"]["cpu_capability"] == "AVX2"
        recorded = manifest["determinism"]["environment"]
        assert {key: recorded[key] for key in PORTABLE} == PORTABLE


def test_checkpoints_do_not_move_training(scenario, expected):
    """Another checkpoint cadence gives the same steps and weights."""
    assert bits(scenario("a checkpoint each step")) == expected


@POSIX
@pytest.mark.parametrize("name", KILLS)
def test_a_killed_run_resumes_to_the_same_bits(scenario, expected, name):
    """SIGKILL, then `--resume` in other surroundings with another worker count: all is equal."""
    assert bits(scenario(f"killed {name}")) == expected


@POSIX
def test_a_terminated_run_saves_first_and_resumes_to_the_same_bits(scenario, expected):
    """SIGTERM: a checkpoint of the last whole step, exit code 143, and nothing lost."""
    assert bits(scenario("terminated")) == expected


def forge(run_dir: Path, *, step: int, quantity: str) -> None:
    """Change a quantity of a step, and every digest that would tell: a lie told well."""
    log = run_dir / "steps.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    entry = json.loads(lines[step - 1])
    entry[quantity] = (2 * float.fromhex(entry[quantity])).hex()
    lines[step - 1] = json.dumps(entry) + "\n"
    log.write_text("".join(lines))
    logs = json.loads((run_dir / "manifest.json").read_text())["results"]["logs"]
    logs["steps.jsonl"] = hashlib.sha256(log.read_bytes()).hexdigest()
    edit_manifest(run_dir, results={"logs": logs})
    state = load_checkpoint(list_checkpoints(run_dir / "checkpoints")[-1], torch.device("cpu"))
    save_checkpoint(run_dir / "checkpoints", {**state, "logs": logs}, keep=9)


@pytest.fixture(scope="module")
def verification(scenario, pool: ThreadPoolExecutor, tmp_path_factory):
    """Runs executed again from nothing, two at a time: (run directory, finished process)."""
    folder = tmp_path_factory.mktemp("verified")

    def play(name: str, source: str, forged: dict[str, object], *arguments: object):
        run_dir = shutil.copytree(scenario(source), folder / name)
        if forged:
            forge(run_dir, **forged)
        return run_dir, run("verify", run_dir, *arguments)

    loss = {"step": 5, "quantity": "loss"}
    norm = {"step": 14, "quantity": "grad_norm"}

    def other_state() -> tuple[Path, object]:
        run_dir = shutil.copytree(scenario("seed 0"), folder / "state")
        path = list_checkpoints(run_dir / "checkpoints")[-1]
        state = load_checkpoint(path, torch.device("cpu"))
        state["optimizer"]["param_groups"][0]["eps"] *= 2
        save_checkpoint(run_dir / "checkpoints", state, keep=9)
        return run_dir, run("verify", run_dir)

    futures = {
        "other state": pool.submit(other_state),
        "whole": pool.submit(play, "whole", "seed 1 elsewhere", {}),
        "forged": pool.submit(play, "forged", "seed 0", loss),
        "a segment": pool.submit(play, "segment", "in segments", {}, "--segments", 1, "--seed", 1),
        "forged segments": pool.submit(play, "segments", "in segments", norm, "--segments", 2),
    }
    return lambda name: futures[name].result()


def test_verify_says_identical(verification):
    """Executing a run again from its manifest gives the same bits and exit code 0."""
    run_dir, done = verification("whole")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "IDENTICAL"
    assert "done in" not in done.stderr  # of a run in a folder that is gone by now
    assert json.loads((run_dir / "verify.json").read_text())["identical"] is True


def test_verify_names_the_first_step_that_differs(verification):
    """A record that tells of another loss is not confirmed: the step is named, exit code 1."""
    run_dir, done = verification("forged")
    assert done.returncode == 1, done.stderr
    assert "first differs at step 5, in loss" in done.stdout
    assert done.stdout.splitlines()[-1] == "DIFFERENT"
    summary = json.loads((run_dir / "verify.json").read_text())
    assert summary["identical"] is False
    assert summary["first_divergence"]["step"] == 5


def test_verify_looks_at_the_optimizer_too(verification):
    """Equal steps and weights, another state to resume from: not identical, and named."""
    _, done = verification("other state")
    assert done.returncode == 1, done.stderr
    assert "first differs at step 18, in state" in done.stdout


def test_verify_executes_single_segments(verification):
    """A stretch between checkpoints, chosen by a seed, gives the same steps and the same state."""
    run_dir, done = verification("a segment")
    assert done.returncode == 0, done.stderr
    assert "1 of 1 segments: 9 of 18 steps are executed again" in done.stdout
    assert done.stdout.splitlines()[-1] == "IDENTICAL"
    summary = json.loads((run_dir / "verify.json").read_text())
    assert summary["identical"] is True
    assert [s["end"] - s["start"] for s in summary["segments"]] == [9]
    assert "<polyline" in (run_dir / "verify.html").read_text()


def test_a_segment_with_a_forged_step_is_found(verification):
    """A gradient norm that no run gave: its stretch differs, the step is named, exit code 1."""
    _, done = verification("forged segments")
    assert done.returncode == 1, done.stderr
    assert "first differs at step 14, in grad_norm" in done.stdout


def test_an_edited_log_is_no_record(scenario, tmp_path):
    """A step that does not fit the digest of the log: exit code 2, before anything is executed."""
    run_dir = shutil.copytree(scenario("in segments"), tmp_path / "edited")
    log = run_dir / "steps.jsonl"
    log.write_text(log.read_text().replace('"loss": "0x1.', '"loss": "0x1.0', 1))
    for arguments in ([], ["--segments", 1]):
        done = run("verify", run_dir, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert "steps.jsonl" in done.stderr
        assert done.stderr.count("\n") == 1
