"""The logs record any numbers of a task exactly, under the same names throughout."""

import hashlib
import json
import math
import shutil

import numpy as np
import pytest
from conftest import edit_manifest
from real.repro.proof.compare import compare_runs, first_divergence
from real.repro.run import logs
from real.repro.run.logs import Later, Recorder, Step, logs_until, read_metrics, read_steps
from real.repro.run.plots import plot_curves

PERPLEXITY = {"val_perplexity": 1e300, "tokens": 4096}


def write(run_dir, steps=range(1, 5), *, resume=0):
    """Steps of a task without accuracy, and a row after every second one."""
    run_dir.mkdir(exist_ok=True)
    with Recorder(run_dir, resume_step=resume) as recorder:
        for number in steps:
            recorder.step(Step(number, 0, {"bits": 0.1 * number, "tokens_seen": 7 * number}))
            if number % 2 == 0:
                recorder.row(epoch=0, step=number, metrics=PERPLEXITY)
        recorder.to_disk()
        return recorder.digests()


def test_any_number_is_recorded_exactly(tmp_path):
    """Floats to the last bit, whole numbers as such, infinities and NaN; in the order given."""
    odd = {"a": 0.1 + 0.2, "b": -0.0, "c": math.inf, "d": 2**80, "e": math.nan, "f/g.h": 5e-324}
    with Recorder(tmp_path) as recorder:
        recorder.step(Step(1, 0, odd))
        recorder.row(epoch=0, step=1, metrics={"val": 1 / 3})
    (step,) = read_steps(tmp_path / "steps.jsonl")
    assert repr(step.numbers) == repr(odd)
    (row,) = read_metrics(tmp_path / "metrics.csv")
    assert float(row["val"]) == 1 / 3
    assert list(row) == ["epoch", "step", *(f"train_{name}" for name in odd), "val"]


def test_numbers_of_numpy_are_numbers(tmp_path):
    """Written as Python's own, which is how they are read again."""
    with Recorder(tmp_path) as recorder:
        recorder.step(Step(1, 0, {"a": np.float64(0.1), "b": np.float32(0.1), "c": np.int64(7)}))
        recorder.row(epoch=0, step=1, metrics={"val": np.float64(0.1)})
    (step,) = read_steps(tmp_path / "steps.jsonl")
    assert step.numbers == {"a": 0.1, "b": float(np.float32(0.1)), "c": 7}
    (row,) = read_metrics(tmp_path / "metrics.csv")
    assert row["val"] == "0.1"


def test_a_run_that_an_older_version_began_keeps_its_table(tmp_path):
    """Its header lacks a mean that is recorded now, so rows after a resume lack it too."""
    write(tmp_path, range(1, 3))
    path = tmp_path / "metrics.csv"
    rows = read_metrics(path)
    names = [name for name in rows[0] if name != "train_tokens_seen"]
    older = f"{','.join(names)}\n{','.join(rows[0][name] for name in names)}\n"
    path.write_text(older)
    write(tmp_path, range(3, 5), resume=2)
    assert path.read_text().startswith(older)
    assert [*read_metrics(path)[1]] == names


def test_a_task_has_metrics_of_its_own(tmp_path):
    """The table's header is that of the first row: means of the steps' numbers, then the metrics;
    it can be drawn, and two runs of such a task be compared step by step."""
    write(tmp_path)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [*rows[0]] == ["epoch", "step", "train_bits", "train_tokens_seen", *PERPLEXITY]
    assert [float(row["train_bits"]) for row in rows] == [pytest.approx(0.15), pytest.approx(0.35)]
    plot_curves(tmp_path)
    assert (tmp_path / "curves.png").stat().st_size > 1000
    steps = read_steps(tmp_path / "steps.jsonl")
    other = [*steps[:2], Step(3, 0, {**steps[2].numbers, "tokens_seen": 22}), steps[3]]
    found = first_divergence(steps, other)
    assert (found.step, found.quantity, found.a, found.b) == (3, "tokens_seen", 21, 22)


def test_a_resume_between_two_rows_gives_the_same_table(tmp_path):
    """The mean of a row counts the steps from before the resume."""
    whole = write(tmp_path / "whole")
    write(tmp_path / "cut", range(1, 4))
    assert write(tmp_path / "cut", range(4, 5), resume=3) == whole
    for name in ("steps.jsonl", "metrics.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("numbers", "metrics", "complaint"),
    [
        ({"bits": 1.0}, None, "step 6 lacks tokens_seen; log the same names every time"),
        ({"bits": 1.0, "tokens_seen": 1, "x": 1.0}, None, "step 6 has x as well"),
        (None, {"val_perplexity": 1.0, "toks": 1}, "step 5 lacks tokens and has toks as well"),
        (None, {"step": 1}, "step is a column of every log; take another name"),
        (None, {"train_bits": 1.0}, "train_bits is the mean of the steps' numbers"),
        (None, {"a,b": 1.0}, "'a,b' cannot name a number"),
        (None, {"top@5": 1.0}, "'top@5' cannot name a number"),
        (None, {"val_perplexity": "1.0", "tokens": 1}, "val_perplexity must be a number, got str"),
        ({"bits": True, "tokens_seen": 1}, None, "bits must be a number, got bool 'True'"),
        ({"bits": 1j, "tokens_seen": 1}, None, "bits must be a number, got complex '1j'"),
    ],
)
def test_other_names_than_the_first_are_refused(tmp_path, numbers, metrics, complaint):
    """Named, and nothing is written of them."""
    write(tmp_path, range(1, 6))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with Recorder(tmp_path, resume_step=5) as recorder, pytest.raises(ValueError, match=complaint):
        if numbers:
            recorder.step(Step(6, 0, numbers))
        else:
            recorder.row(epoch=0, step=5, metrics=metrics)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_same_names_in_another_order_are_the_same(tmp_path):
    """What counts is the order of the first step."""
    with Recorder(tmp_path) as recorder:
        recorder.step(Step(1, 0, {"a": 1.0, "b": 2.0}))
        recorder.step(Step(2, 0, {"b": 2.0, "a": 1.0}))
    one, two = (tmp_path / "steps.jsonl").read_text().splitlines()
    assert two == one.replace('"step": 1', '"step": 2')


def test_a_table_of_an_older_version_is_read(smoke_run, tmp_path):
    """It lacks a mean that is recorded now: that is no difference, and a changed cell is one."""
    older = shutil.copytree(smoke_run, tmp_path / "older")
    rows = read_metrics(older / "metrics.csv")
    names = ["epoch", "step", "learning_rate", "train_loss", "val_loss", "val_accuracy"]
    lines = [",".join(names), *(",".join(row[name] for name in names) for row in rows)]
    table = "".join(f"{line}\n" for line in lines)
    write_table(older, table)
    assert compare_runs(smoke_run, older).divergence is None
    assert logs_until(older, 18)["metrics.csv"] == table
    write_table(older, table.replace(rows[1]["val_loss"], "0.5"))
    assert compare_runs(smoke_run, older).divergence.quantity == "val_loss"


def write_table(run_dir, text):
    """A table, and its digest in the manifest."""
    (run_dir / "metrics.csv").write_text(text)
    logs = json.loads((run_dir / "manifest.json").read_text())["results"]["logs"]
    logs["metrics.csv"] = hashlib.sha256(text.encode()).hexdigest()
    edit_manifest(run_dir, results={"logs": logs})


class Computing(Later):
    """A number of a GPU that is done with it when told so, or has failed."""

    def __init__(self, value, *, done=False, failed=False):
        self.value, self.done, self.failed = value, done, failed

    def ready(self):
        return self.done

    def number(self):
        if self.failed:
            raise RuntimeError("CUDA error: device-side assert triggered")
        self.done = True
        return self.value


def test_a_number_that_comes_later_is_written_in_order_and_not_waited_for(tmp_path, monkeypatch):
    """A step waits in memory for its own numbers and for the steps before it."""
    monkeypatch.setattr(logs, "WRITE_EVERY", 0.0)
    first, second = Computing(0.1), Computing(0.2, done=True)
    with Recorder(tmp_path) as recorder:
        recorder.step(Step(1, 0, {"loss": first, "rate": 0.5}))
        recorder.step(Step(2, 0, {"loss": second, "rate": 0.5}))
        assert read_steps(tmp_path / "steps.jsonl") == []
        first.done = True
        recorder.step(Step(3, 0, {"loss": Computing(0.3), "rate": 0.5}))
        assert len(read_steps(tmp_path / "steps.jsonl")) == 2
        assert recorder.row(epoch=0, step=3, metrics={})["train_loss"] == (0.1 + 0.2 + 0.3) / 3


def test_steps_are_written_together_when_they_are_short(tmp_path, monkeypatch):
    """The first at once, those of a tenth of a second together; a row or a checkpoint has all."""
    now = [100.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    written = []
    with Recorder(tmp_path) as recorder:
        for number in range(1, 8):
            recorder.step(Step(number, 0, {"loss": 0.1 * number}))
            written.append(len(read_steps(tmp_path / "steps.jsonl")))
            now[0] += 0.04
        assert written == [1, 1, 1, 4, 4, 4, 7]
        recorder.step(Step(8, 0, {"loss": 0.8}))
        recorder.row(epoch=0, step=8, metrics={})
        assert len(read_steps(tmp_path / "steps.jsonl")) == 8
        recorder.step(Step(9, 0, {"loss": 0.9}))
        recorder.digests()
        assert len(read_steps(tmp_path / "steps.jsonl")) == 9
        recorder.step(Step(10, 0, {"loss": 1.0}))
    assert len(read_steps(tmp_path / "steps.jsonl")) == 10


def test_a_checkpoint_waits_for_all_numbers(tmp_path):
    """The log is the one that a CPU would have written, byte for byte."""
    for folder, kind in (("cpu", float), ("gpu", Computing)):
        (tmp_path / folder).mkdir()
        with Recorder(tmp_path / folder) as recorder:
            for number in range(1, 6):
                recorder.step(Step(number, 0, {"loss": kind(0.1 * number)}))
            digests = recorder.digests()
            content = (tmp_path / folder / "steps.jsonl").read_bytes()
            assert digests["steps.jsonl"] == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "cpu/steps.jsonl").read_bytes() == content


def test_names_are_checked_at_once(tmp_path):
    """The error is raised where the mistake is, not at some later step."""
    with Recorder(tmp_path) as recorder:
        recorder.step(Step(1, 0, {"loss": Computing(0.1)}))
        with pytest.raises(ValueError, match="step 2 lacks loss and has los"):
            recorder.step(Step(2, 0, {"los": Computing(0.2)}))


def test_a_device_that_fails_costs_no_step_that_was_there(tmp_path):
    """What it computed before is written; its own error is the one that is seen."""
    with pytest.raises(RuntimeError, match="the loop's own"), Recorder(tmp_path) as recorder:
        recorder.step(Step(1, 0, {"loss": Computing(0.1)}))
        recorder.step(Step(2, 0, {"loss": Computing(0.2, failed=True)}))
        raise RuntimeError("the loop's own")
    assert [step.step for step in read_steps(tmp_path / "steps.jsonl")] == [1]
