"""`Run.keep_best`, for an object that needs no framework: which step it is, and what is written."""

import json

import numpy as np
import pytest
from real.repro import Interrupted, Run, RunConfig
from real.repro.backend.state import from_file, restore
from real.repro.files import checkpoint_step, list_checkpoints

DATA = {"name": "toy", "num_samples": 12, "sha256": "0" * 64}


class Samples:
    def __len__(self):
        return 12

    def __getitem__(self, key):
        return np.full((2,), key[1], np.float32)


class Turns:
    """How many there were: all that this run trains."""

    def __init__(self):
        self.number = 0

    def state_dict(self):
        return {"number": self.number}

    def load_state_dict(self, state):
        self.number = state["number"]


def run_with(folder, score, *, record=None, before=None, **how):
    """Six steps, or as many as it is told; what `score` gives for the first step has number 0."""
    config = {"seed": 0, "record": record or {"checkpoint_every": 2}}
    with Run(RunConfig, config, run_dir=folder / "run", **how) as run:
        batches = run.batches(Samples(), global_batch_size=4, num_epochs=2)
        turns = Turns()
        run.start(DATA, turns=turns)
        for step, batch in run.steps(batches):
            if before:
                before(run)
            turns.number += 1
            run.log_step(loss=float(np.asarray(batch).sum()))
            run.log_metrics(score=score(step))
            run.keep_best("score", higher=True)
        run.finish({"score": 0.0})
    return json.loads((folder / "run" / "manifest.json").read_text())["results"]["best"]


def steps_on_disk(run_dir):
    return [checkpoint_step(path) for path in list_checkpoints(run_dir / "checkpoints")]


def test_a_number_that_is_none_is_never_the_best(tmp_path):
    """Whether it comes first or last: NaN compares with nothing."""
    scores = [float("nan"), 1.0, 3.0, float("nan"), 2.0, 0.0]
    assert run_with(tmp_path, scores.__getitem__) == {"step": 3, "score": 3.0}


def test_of_two_equals_the_earlier_is_the_best(tmp_path):
    """As much for less training."""
    scores = [1.0, 3.0, 2.0, 3.0, 3.0, 0.0]
    assert run_with(tmp_path, scores.__getitem__) == {"step": 2, "score": 3.0}


def test_the_best_checkpoint_is_written_with_the_next_that_is_due(tmp_path):
    """Not with a write of its own at each new best, nor one that is no longer the best."""
    scores, found = [1.0, 3.0, 4.0, 2.0, 0.0, 0.0], []

    def look(run):
        run._saver.wait()
        found.append(steps_on_disk(run.dir))

    record = {"checkpoint_every": 5, "keep_checkpoints": 1}
    run_with(tmp_path, scores.__getitem__, record=record, before=look)
    assert found == [[], [], [], [], [], [3, 5]]
    assert steps_on_disk(tmp_path / "run") == [3, 6]
    again = Turns()
    restore(from_file(list_checkpoints(tmp_path / "run" / "checkpoints")[0]), {"turns": again})
    assert again.number == 3


def test_a_stop_writes_the_best_checkpoint_too(tmp_path):
    """It would be lost with the process, and the run would resume after it."""
    with pytest.raises(Interrupted):
        run_with(tmp_path, lambda step: -abs(step - 2.0), stop_at=5)
    assert steps_on_disk(tmp_path / "run") == [3, 4, 5]


@pytest.mark.parametrize("stop_at", [1, 4])
def test_a_resumed_run_remembers_what_was_the_best(tmp_path, stop_at):
    """Before the stop or after it."""
    scores = [1.0, 3.0, 4.0, 2.0, 0.0, 4.0]
    with pytest.raises(Interrupted):
        run_with(tmp_path, scores.__getitem__, stop_at=stop_at)
    assert run_with(tmp_path, scores.__getitem__, resume=True) == {"step": 3, "score": 4.0}
    assert 3 in steps_on_disk(tmp_path / "run")
