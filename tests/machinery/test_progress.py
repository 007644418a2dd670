"""Progress is a bar where a person looks, and a line for each row where a file is written."""

import io
import logging
import sys

import pytest
from real.repro.run.progress import Progress

ROW = {"epoch": 0, "step": 3, "train_loss": 1.0, "val_loss": 0.5, "val_accuracy": 0.25}


class Stream(io.StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def show(monkeypatch, *, terminal: bool) -> str:
    stream = Stream(terminal=terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(4, start=1) as progress:
        for _ in range(3):
            progress.step()
        progress.row(ROW)
    return stream.getvalue()


def test_a_terminal_gets_a_bar_that_knows_where_a_resume_starts(monkeypatch):
    """The bar ends at 4 of 4, and the row's line stands above it."""
    shown = show(monkeypatch, terminal=True)
    assert "4/4" in shown
    assert "epoch 1  step 3/4  train_loss 1  val_loss 0.5  val_accuracy 0.25" in shown


def test_a_log_file_gets_one_line_an_epoch(monkeypatch, caplog):
    """No bar, no carriage return: what is logged is the row's line alone."""
    with caplog.at_level(logging.INFO):
        assert show(monkeypatch, terminal=False) == ""
    assert [record.getMessage()[:17] for record in caplog.records] == ["epoch 1  step 3/4"]


def test_a_notebook_gets_a_bar(monkeypatch):
    """A notebook's stderr is no terminal, but a person looks at it."""
    monkeypatch.setitem(sys.modules, "ipykernel", pytest)
    assert "4/4" in show(monkeypatch, terminal=False)
