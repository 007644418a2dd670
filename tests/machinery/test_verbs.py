"""The verbs of `Run`: misuse is a one-line error, and the previous checkpoint stays intact."""

import json
from typing import Annotated

import pytest
import torch
from pydantic import Field
from real.repro import Interrupted, Run, RunConfig, Section
from real.repro.files import list_checkpoints
from real.repro.run.checkpoint import load_latest
from torch import nn

DATA = {"name": "toy", "num_samples": 12, "sha256": "0" * 64}


class Toy(Section):
    width: Annotated[int, Field(ge=1, le=8)] = 2


class Config(RunConfig):
    toy: Toy = Toy()


class Samples(torch.utils.data.Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, key):
        return torch.full((2,), float(key[1]))


class Mean:
    """A user-defined object with state."""

    def __init__(self):
        self.total = 0.0

    def state_dict(self):
        return {"total": self.total}

    def load_state_dict(self, state):
        self.total = state["total"]


def begin(run, **objects):
    batches = run.batches(Samples(), global_batch_size=4, num_epochs=2)
    run.seed("init")
    model = nn.Linear(2, run.config.toy.width)
    run.start(DATA, **({"model": model} | objects))
    return batches, model


def opened(folder, **how):
    config = {"seed": 0, "record": {"checkpoint_every": 2}}
    return Run(Config, config, run_dir=folder / "run", **how)


def turns(run, batches):
    for _, batch in run.steps(batches):
        run.log_step(loss=batch.sum())


BEFORE_THE_START = {
    "an object without a state": (
        lambda run: begin(run, schedule=3),
        r"schedule \(int\) has no state_dict and load_state_dict",
    ),
    "an object named twice": (
        lambda run: begin(run, model=(module := nn.Linear(1, 1)), average=module),
        "model and average are the same object; name it once",
    ),
    "a name of the run's own": (
        lambda run: begin(run, step=nn.Linear(1, 1)),
        "step is a name of the run's own; give the object another one",
    ),
    "nothing to save": (
        lambda run: (run.batches(Samples(), global_batch_size=4, num_epochs=1), run.start(DATA)),
        "run.start was given nothing to save; name the model and the optimizer",
    ),
    "a start without batches": (
        lambda run: run.start(DATA, model=nn.Linear(1, 1)),
        "run.start needs the number of steps; call run.batches first",
    ),
    "data without a digest": (
        lambda run: (
            run.batches(Samples(), global_batch_size=4, num_epochs=1),
            run.start({"name": "x"}, model=nn.Linear(1, 1)),
        ),
        "the description of the data lacks num_samples, sha256",
    ),
    "a second data set": (
        lambda run: [run.batches(Samples(), global_batch_size=4, num_epochs=1) for _ in range(2)],
        "run.batches was called twice; join the data sets in one",
    ),
    "a batch that is larger than the data": (
        lambda run: run.batches(Samples(), global_batch_size=13, num_epochs=1),
        "13",
    ),
    "parts that do not divide the batch": (
        lambda run: run.batches(Samples(), global_batch_size=4, num_epochs=1, accumulate=3),
        "3",
    ),
    "no length": (lambda run: run.batches(Samples(), global_batch_size=4), "num_epochs"),
    "two lengths": (
        lambda run: run.batches(Samples(), global_batch_size=4, num_epochs=1, num_steps=1),
        "num_epochs",
    ),
    "a step before the loop": (
        lambda run: (begin(run), run.log_step(loss=1.0)),
        "log_step must be called inside the loop over run.steps",
    ),
    "steps before the start": (
        lambda run: next(
            run.steps(run.batches(Samples(), global_batch_size=4, num_epochs=1)),
        ),
        "run.steps takes what run.batches gave, after run.start",
    ),
    "the end before the start": (
        lambda run: run.finish({"loss": 1.0}),
        "run.finish comes after the last step; this is after step 0 of 0",
    ),
}


@pytest.mark.parametrize("name", BEFORE_THE_START)
def test_what_is_refused_before_the_first_step(tmp_path, name):
    """One line that says what to do; no checkpoint claims a step."""
    act, complaint = BEFORE_THE_START[name]
    with pytest.raises(ValueError, match=complaint) as refusal, opened(tmp_path) as run:
        act(run)
    assert "\n" not in str(refusal.value)
    assert not list_checkpoints(tmp_path / "run" / "checkpoints")


IN_THE_LOOP = {
    "a tensor of two elements": (
        lambda run, batch: run.log_step(loss=batch[0]),
        "loss is a tensor of 2 elements; log a single number",
    ),
    "a complex number": (
        lambda run, batch: run.log_step(loss=torch.tensor(1j)),
        "loss is complex '1j'; log a real number",
    ),
    "text": (lambda run, batch: run.log_step(loss="low"), "loss is str 'low'; log a real number"),
    "a truth value": (lambda run, batch: run.log_step(loss=True), "loss is bool 'True'"),
    "nothing at all": (lambda run, batch: run.log_step(), "log_step needs a number"),
    "a reserved column": (
        lambda run, batch: run.log_step(epoch=1),
        "epoch is a column of every log; take another name",
    ),
    "another name": (lambda run, batch: run.log_step(los=1.0), "step 4 lacks loss and has los"),
    "a step logged twice": (
        lambda run, batch: [run.log_step(loss=1.0) for _ in range(2)],
        "step 4 was logged twice; log all its numbers in one call",
    ),
    "a turn without a log": (
        lambda run, batch: None,
        "step 4 was not logged; call run.log_step once in every turn",
    ),
    "metrics before the step": (
        lambda run, batch: run.log_metrics(score=1.0),
        "log_metrics comes after log_step, in the same turn of the loop",
    ),
    "a metric called like a column": (
        lambda run, batch: (run.log_step(loss=1.0), run.log_metrics(step=1)),
        "step is a column of every log; take another name",
    ),
    "a metric called like a mean": (
        lambda run, batch: (run.log_step(loss=1.0), run.log_metrics(train_loss=1)),
        "train_loss is the mean of the steps' numbers; take another name",
    ),
    "two rows of a step": (
        lambda run, batch: (
            run.log_step(loss=1.0),
            [run.log_metrics(score=1.0) for _ in range(2)],
        ),
        "step 4 has a row; log all its metrics in one call",
    ),
    "the best of what was never logged": (
        lambda run, batch: (
            run.log_step(loss=1.0),
            run.log_metrics(score=1.0),
            run.keep_best("scores", higher=True),
        ),
        "keep_best of 'scores', which log_metrics did not log at this step",
    ),
    "a second start": (
        lambda run, batch: run.start(DATA, model=nn.Linear(1, 1)),
        "run.start was called twice; name all objects in one call",
    ),
    "steps inside of steps": (
        lambda run, batch: next(run.steps(run._batches)),
        "run.steps was called twice; a run has one loop",
    ),
    "the end before the last step": (
        lambda run, batch: (run.log_step(loss=1.0), run.finish({"loss": 1.0})),
        "run.finish comes after the last step; this is after step 3 of 6",
    ),
}


@pytest.mark.parametrize("name", IN_THE_LOOP)
def test_what_is_refused_in_the_loop(tmp_path, name):
    """One line; the checkpoint of step 2 is whole, and the run is resumed to the same result."""
    act, complaint = IN_THE_LOOP[name]
    with pytest.raises(ValueError, match=complaint) as refusal, opened(tmp_path) as run:
        batches, _ = begin(run)
        for step, batch in run.steps(batches):
            if step == 3:
                act(run, batch)
            else:
                run.log_step(loss=batch.sum())
    assert "\n" not in str(refusal.value)
    assert load_latest(tmp_path / "run" / "checkpoints")["step"] == 2
    assert not json.loads((tmp_path / "run" / "manifest.json").read_text())["results"]["completed"]
    with opened(tmp_path, resume=True) as run:
        batches, _ = begin(run)
        turns(run, batches)
        assert run.finish({"loss": 1.0}).loss == 1.0


def test_the_end_takes_numbers_only(tmp_path):
    """A metric that is not a number is refused, and the run can still be finished."""
    with opened(tmp_path) as run:
        batches, _ = begin(run)
        turns(run, batches)
        with pytest.raises(ValueError, match="score is a tensor of 2 elements"):
            run.finish({"score": torch.ones(2)})
        assert not (tmp_path / "run" / "model.safetensors").exists()
        assert run.finish({"score": torch.ones(1)}).score == 1.0


def test_anything_with_a_state_is_saved_and_restored(tmp_path):
    """A user-defined object is restored as it was saved, by its name."""
    with pytest.raises(Interrupted), opened(tmp_path, stop_at=3) as run:
        mean = Mean()
        batches, _ = begin(run, mean=mean)
        for _, batch in run.steps(batches):
            mean.total += float(batch.sum())
            run.log_step(total=mean.total)
    with opened(tmp_path, resume=True) as run:
        again = Mean()
        begin(run, mean=again)
        assert again.total == mean.total != 0.0
