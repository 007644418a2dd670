"""Evaluation has no side effects, and a step is one traced function."""

import numpy as np
import pytest

from {{ cookiecutter.__package }}.config import Model, Training
from {{ cookiecutter.__package }}.data import Split
from {{ cookiecutter.__package }}.model import build_model
from {{ cookiecutter.__package }}.optim import build_optimizer
from {{ cookiecutter.__package }}.train import build_evaluation, build_step


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
