"""A stuck or dead loader ends the run with one line, and progress so far is saved."""

import os
import re
import signal
import time

import pytest
import torch
from conftest import SMOKE, run
from real.config import load_config
from real.repro.backend.patience import SHARED_MEMORY, check_shared_memory, take
from real.repro.run import lifecycle
from real.repro.signals import Interrupted, StopRequest
from real.train import train_model
from torch.utils.data import DataLoader, Dataset

LINUX = pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="no /dev/shm on this system")


class Slow(Dataset):
    """Samples of which one never comes, or ends its process."""

    def __init__(self, at: int, how: str) -> None:
        self.at, self.how = at, how

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.at and self.how == "waits":
            time.sleep(60)
        if index == self.at and self.how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if index == self.at and self.how == "raises":
            raise RuntimeError("a bug of the data set")
        return torch.tensor(index)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_batch_that_does_not_come_ends_the_waiting(num_workers, monkeypatch):
    """After LOADER_PATIENCE seconds, with or without loader processes; earlier batches arrived."""
    monkeypatch.setenv("LOADER_PATIENCE", "2")
    stop, came = StopRequest(), []
    started = time.monotonic()
    for batch in take(DataLoader(Slow(3, "waits"), num_workers=num_workers), stop):
        came.append(int(batch))
    assert came == [0, 1, 2]
    assert time.monotonic() - started < 30
    assert "no batch came for 2 seconds" in stop.failure


def test_a_loader_process_that_dies_is_named():
    """Killed from outside or out of memory: one line that says what to look at, and no error in the
    middle of a step that is running meanwhile."""
    stop, came = StopRequest(), []
    for batch in take(DataLoader(Slow(3, "dies"), num_workers=1), stop):
        came.append(int(batch))
        time.sleep(0.5)
    assert came == [0, 1, 2][: len(came)]
    assert stop.failure.startswith("a loader process died")
    assert "data.num_workers=0" in stop.failure


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bug_of_the_data_set_keeps_its_traceback(num_workers):
    """Whoever writes a data set needs to see where it failed."""
    with pytest.raises(RuntimeError, match="a bug of the data set"):
        list(take(DataLoader(Slow(3, "raises"), num_workers=num_workers), StopRequest()))


def test_a_run_whose_loader_gets_stuck_can_be_resumed(tmp_path, monkeypatch):
    """A checkpoint of the last step, exit code 1, and the line says how to resume."""

    def five(loader, stop):
        for number, batch in enumerate(take(loader, stop)):
            if number == 5:
                stop.failure = "no batch came"
                return
            yield batch

    monkeypatch.setattr(lifecycle, "take", five)
    run_dir = tmp_path / "run"
    with pytest.raises(Interrupted) as stopped:
        train_model(load_config(SMOKE), run_dir=run_dir)
    said = f"error: no batch came; stopped after step 5; resume with train --resume {run_dir}"
    assert (stopped.value.exit_code, str(stopped.value)) == (1, said)
    assert (run_dir / "checkpoints" / "step-00000005.pt").exists()
    monkeypatch.undo()
    train_model(load_config(SMOKE), run_dir=run_dir, resume=True)
    assert len((run_dir / "steps.jsonl").read_text().splitlines()) == 18


@LINUX
def test_too_little_shared_memory_is_found_before_it_is_needed(tmp_path):
    """One line with both numbers; what fits, and a system without that folder, are fine."""
    check_shared_memory(1000)
    check_shared_memory(1 << 60, tmp_path / "not there")
    with pytest.raises(ValueError, match=r"MB free and needs 1152921504606.8 MB; set data.num"):
        check_shared_memory(1 << 60)


def test_a_patience_that_is_no_number_is_refused(tmp_path):
    """One line, exit code 2, no run directory."""
    for text in ("soon", "0", "-1", "nan"):
        done = run(
            *("train", "--config", SMOKE, "--run-dir", tmp_path / "run"),
            env={"LOADER_PATIENCE": text},
        )
        assert done.returncode == 2
        assert re.fullmatch(r"error: LOADER_PATIENCE must be a number .*\n", done.stderr)
        assert not (tmp_path / "run").exists()
