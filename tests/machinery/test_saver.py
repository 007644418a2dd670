"""Checkpoints are written while the training goes on, and none of their errors is lost."""

import errno
import threading

import pytest
from real.repro.run.saver import Saver


def test_a_checkpoint_is_written_beside_the_training(tmp_path, monkeypatch):
    """The next one waits for it, and so does the end; its logs are on the disk before it is."""
    began, may_end, order = threading.Event(), threading.Event(), []

    def slow(folder, saved, *, keep):
        began.set()
        assert may_end.wait(30)
        order.append(f"checkpoint {saved['step']}")

    monkeypatch.setattr("real.repro.run.saver.save_checkpoint", slow)
    with Saver(tmp_path, keep=1) as saver:
        saver.save([{"step": 1}], first=lambda: order.append("logs"), wait=False)
        assert began.wait(30)
        assert order == ["logs"]  # and this goes on
        may_end.set()
        saver.save([{"step": 2}], first=lambda: order.append("logs"), wait=True)
        assert order == ["logs", "checkpoint 1", "logs", "checkpoint 2"]


def test_a_checkpoint_that_could_not_be_written_is_an_error_of_the_next_step(tmp_path, monkeypatch):
    """Or of the end of the run: it is never lost, and what the run raises itself comes first."""

    def full(folder, saved, *, keep):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("real.repro.run.saver.save_checkpoint", full)
    how = {"first": lambda: None, "wait": False}
    with pytest.raises(OSError, match="No space"), Saver(tmp_path, keep=1) as saver:
        saver.save([{"step": 1}], **how)
    saver = Saver(tmp_path, keep=1)
    with pytest.raises(OSError, match="No space"), saver:
        saver.save([{"step": 1}], **how)
        saver.save([{"step": 2}], **how)
    with pytest.raises(KeyError, match="own"), Saver(tmp_path, keep=1) as saver:
        saver.save([{"step": 1}], **how)
        raise KeyError("its own")
