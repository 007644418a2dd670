"""CI's table: runs of several machines compared with each other, pair by pair."""

import hashlib
import json
import shutil

import pytest
from conftest import edit_manifest, run


@pytest.fixture
def folder(smoke_run, tmp_path):
    """The same run as three machines would have uploaded it."""
    for name in ("linux-x86-64", "linux-arm64", "macos-arm64"):
        shutil.copytree(smoke_run, tmp_path / "runs" / name / smoke_run.name)
    return tmp_path / "runs"


def other_bits(folder, machine):
    """Give a machine's run another first step, consistently."""
    (run_dir,) = (folder / machine).iterdir()
    log = run_dir / "steps.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    entry = json.loads(lines[0])
    log.write_text(json.dumps({**entry, "loss": (1.5).hex()}) + "\n" + "".join(lines[1:]))
    logs = json.loads((run_dir / "manifest.json").read_text())["results"]["logs"]
    logs["steps.jsonl"] = hashlib.sha256(log.read_bytes()).hexdigest()
    edit_manifest(run_dir, results={"logs": logs})
    return run_dir


def test_equal_runs_are_identical_on_every_machine(folder):
    """Three machines, three pairs, nothing differs."""
    done = run("machines", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| identical |") == 3
    assert done.stdout.count("| linux-arm64 |") == 1


def test_another_machine_is_named_with_the_step_and_the_facts(folder):
    """Other bits on another processor: said, explained, and no failure of the job."""
    run_dir = other_bits(folder, "macos-arm64")
    edit_manifest(
        run_dir, hardware={"cpu": "Apple | M2"}, environment={"platform": "macOS-15-arm64"}
    )
    done = run("machines", folder)
    assert done.returncode == 0, done.stderr
    row = "| linux-arm64, macos-arm64 | first differs at step 1, in loss | "
    assert row + "environment: platform; hardware: cpu |" in done.stdout
    assert "| linux-arm64, linux-x86-64 | identical |  |" in done.stdout
    assert "Apple / M2" in done.stdout


def test_other_bits_that_nothing_explains_fail_the_job(folder):
    """Two machines whose records agree must agree in every bit."""
    other_bits(folder, "linux-arm64")
    assert run("machines", folder).returncode == 1


def test_a_damaged_or_missing_run_is_an_error(folder, tmp_path):
    """One line, exit code 2: a table without a machine would look like a pass."""
    (tmp_path / "empty").mkdir()
    assert "holds 0 runs" in run("machines", tmp_path / "empty").stderr
    (run_dir,) = (folder / "linux-arm64").iterdir()
    (run_dir / "manifest.json").write_text("{")
    done = run("machines", folder)
    assert done.returncode == 2
    assert "linux-arm64" in done.stderr
