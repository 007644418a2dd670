"""Evaluation has no side effects, a step is one traced function, and a run reports what it did."""

import json
from pathlib import Path

import numpy as np
import pytest

from {{ cookiecutter.__package }} import load_config, train
from {{ cookiecutter.__package }}.config import Model, Training
from {{ cookiecutter.__package }}.data import Split, load_data
from {{ cookiecutter.__package }}.model import build_model
from {{ cookiecutter.__package }}.optim import build_optimizer
from {{ cookiecutter.__package }}.train import build_evaluation, build_step

SMOKE = Path(__file__).resolve().parents[1] / "configs" / "smoke.yaml"


@pytest.fixture
def split():
    random = np.random.default_rng(0)
    images = random.integers(0, 17, (50, 1, 8, 8), np.uint8)
    return Split(images, random.integers(0, 10, 50))


@pytest.fixture
def model():
    config = Model(width=8, dropout=0.5)
    return build_model(config, shape=(1, 8, 8), num_classes=10, mean=[5.0], std=[6.0])


def test_evaluation_is_repeatable_and_has_no_dropout(model, split):
    """The same numbers each time, of a model that would drop half of its features in training."""
    evaluate = build_evaluation(model, 16)
    first = evaluate(split)
    assert evaluate(split) == first
    logits = model(split.images, training=False)
    assert np.array_equal(logits, model(split.images, training=False))
    assert not np.array_equal(logits, model(split.images, training=True))


def test_evaluation_leaves_no_trace(model, split):
    """Weights, batch statistics and the streams of the layers stay as they were."""
    before = [variable.numpy().copy() for variable in model.variables]
    build_evaluation(model, 16)(split)
    after = [variable.numpy().copy() for variable in model.variables]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_evaluation_counts_every_sample_once(model, split):
    """The last, smaller batch is weighted correctly: equal to a single batch, up to rounding."""
    loss, accuracy = build_evaluation(model, 16)(split)
    whole_loss, whole_accuracy = build_evaluation(model, 50)(split)
    assert loss == pytest.approx(whole_loss)
    assert accuracy == whole_accuracy


def test_a_step_is_traced_once_and_moves_every_weight(model, split):
    """Another learning rate is no other function; the norm is that before clipping."""
    training = Training(max_grad_norm=0.01)
    step = build_step(model, build_optimizer(model, training), training)
    before = [variable.numpy().copy() for variable in model.trainable_variables]
    norms = [float(step(split.images, split.labels, np.float32(lr))[1]) for lr in (0.1, 0.05)]
    assert step.experimental_get_tracing_count() == 1
    assert min(norms) > 0.01
    after = [variable.numpy().copy() for variable in model.trainable_variables]
    assert not any(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_training_drops_features_at_random(model, split):
    """At a learning rate of zero nothing else differs between two steps on the same batch."""
    training = Training()
    step = build_step(model, build_optimizer(model, training), training)
    losses = [float(step(split.images, split.labels, np.float32(0))[0]) for _ in range(2)]
    assert losses[0] != losses[1]


def test_the_log_has_exact_losses_and_the_results_are_of_the_test_split(tmp_path, monkeypatch):
    """Rounded, a loss would no longer be a number of float32."""
    evaluated = []

    def watched(*given):
        evaluate = build_evaluation(*given)

        def noted(split):
            evaluated.append((split.sha256(), evaluate(split)))
            return evaluated[-1][1]

        return noted

    monkeypatch.setattr(train, "build_evaluation", watched)
    config = load_config(SMOKE)
    result = train.train_model(config, run_dir=tmp_path / "run")
    data = load_data(config.data, tmp_path)
    *rows, (tested, (loss, accuracy)) = evaluated
    assert {digest for digest, _ in rows} == {data.val.sha256()}
    assert tested == data.test.sha256()
    assert (result.loss, result.accuracy) == (loss, accuracy)
    lines = (tmp_path / "run" / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [float.fromhex(json.loads(line)["loss"]) for line in lines]
    assert losses == [float(np.float32(loss)) for loss in losses]
