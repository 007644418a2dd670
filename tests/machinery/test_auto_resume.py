"""`--auto-resume` continues an interrupted run, and nothing else."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import SMOKE, edit_manifest, run, train
from real.repro.run.directory import only_writer


def again(outputs, *arguments):
    """What a scheduler or `docker compose up` starts a second time."""
    environ = {"OUTPUT_DIR": str(outputs)}
    done = run("train", "--config", SMOKE, "--auto-resume", *arguments, env=environ)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].removeprefix("run: ")


@pytest.fixture
def cut_short(tmp_path):
    """A run that ended after step 7."""
    return train(tmp_path / "outputs" / "first", "--stop-at", 7)


def test_a_run_that_was_cut_short_is_resumed(cut_short, smoke_run):
    """In its own directory, and to the same bits."""
    assert again(cut_short.parent) == str(cut_short)
    for name in ("steps.jsonl", "metrics.csv", "model.safetensors"):
        assert (cut_short / name).read_bytes() == (smoke_run / name).read_bytes()


def test_a_complete_run_is_left_alone(cut_short):
    """The next start is a new run."""
    assert again(cut_short.parent) == str(cut_short)
    assert again(cut_short.parent) != str(cut_short)


def test_the_first_start_is_a_new_run(tmp_path):
    """An output directory that is not there yet is no error."""
    assert again(tmp_path / "outputs").startswith(str(tmp_path / "outputs"))


def test_another_configuration_is_another_run(cut_short):
    """Keys that change no bit, such as the number of workers, may differ."""
    assert again(cut_short.parent, "--seed", "5") != str(cut_short)
    assert again(cut_short.parent, "data.num_workers=1") == str(cut_short)


def test_a_run_of_other_code_is_another_run(cut_short):
    """It is left as it is."""
    edit_manifest(cut_short, code={"commit": "0" * 40})
    before = {path.name: path.read_bytes() for path in cut_short.iterdir() if path.is_file()}
    assert again(cut_short.parent) != str(cut_short)
    assert before == {p.name: p.read_bytes() for p in cut_short.iterdir() if p.is_file()}


@pytest.mark.parametrize(
    "changes",
    [
        {"environment": {"lock_sha256": "0" * 64}},
        {"hardware": {"gpus": ["another GPU"]}},
        {"data": {"sha256": "0" * 64}},
    ],
)
def test_a_run_of_other_surroundings_is_another_run(cut_short, changes):
    """Another lock, device or data: the next start is a new run, not an error for ever."""
    edit_manifest(cut_short, **changes)
    assert again(cut_short.parent) != str(cut_short)


def test_a_run_that_somebody_trains_is_not_taken(cut_short):
    """Two starts at once are two runs."""
    with only_writer(cut_short):
        assert again(cut_short.parent) != str(cut_short)


HOLDS = """
import os, sys, time
from pathlib import Path
from real.repro.run.lock import locked
with locked(Path(sys.argv[1])):
    child = os.fork()  # as a loader process is started
    print(child, flush=True) if child else None
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_killed_trainer_holds_its_run_no_longer_than_it_lives(cut_short):
    """Its loader processes outlive it by seconds, in which a scheduler starts it again."""
    command = [sys.executable, "-c", HOLDS, str(cut_short)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as trainer:
        child = int(trainer.stdout.readline())
        with pytest.raises(ValueError, match="another process is training"), only_writer(cut_short):
            pass
        trainer.kill()
        trainer.wait()
        try:
            os.kill(child, 0)  # it is still there
            with only_writer(cut_short):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_it_finds_the_run_itself(cut_short):
    """Naming one as well is refused."""
    done = run("train", "--config", SMOKE, "--auto-resume", "--resume", cut_short)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --auto-resume finds the run itself")


def test_a_directory_of_its_own_is_started_resumed_and_then_left_alone(tmp_path, smoke_run):
    """`--auto-resume --run-dir`: whatever else is in the output directory, and however often."""
    mine = tmp_path / "outputs" / "job-7"
    named = ("--run-dir", mine)
    train(tmp_path / "outputs" / "another", "--stop-at", 7)
    train(mine, "--auto-resume", "--stop-at", 4)
    assert again(tmp_path / "outputs", *named) == str(mine)
    for name in ("steps.jsonl", "metrics.csv", "model.safetensors"):
        assert (mine / name).read_bytes() == (smoke_run / name).read_bytes()
    before = {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()}
    assert again(tmp_path / "outputs", *named) == str(mine)
    assert before == {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()}
    assert len(list(mine.parent.iterdir())) == 2


def test_a_directory_of_its_own_is_not_exchanged_for_another(cut_short):
    """A run that cannot be resumed there is an error, since a new one has no place."""
    done = run("train", "--config", SMOKE, "--auto-resume", "--run-dir", cut_short, "--seed", "5")
    assert done.returncode == 2
    assert "began with something else" in done.stderr
    assert len(list(cut_short.parent.iterdir())) == 1
