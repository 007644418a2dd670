"""Evaluation has no side effects."""

import numpy as np
import pytest
import torch

from {{ cookiecutter.__package }}.config import Model
from {{ cookiecutter.__package }}.data import Split
from {{ cookiecutter.__package }}.model import build_model
from {{ cookiecutter.__package }}.train import evaluate

CPU = torch.device("cpu")


@pytest.fixture
def split():
    random = np.random.default_rng(0)
    images = random.integers(0, 17, (50, 1, 8, 8), np.uint8)
    return Split(images, random.integers(0, 10, 50))


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = Model(width=8, dropout=0.5)
    return build_model(config, num_classes=10, mean=[5.0], std=[6.0]).train()


def test_evaluation_is_repeatable_and_has_no_dropout(model, split):
    """The same numbers each time, equal to those of the model without dropout."""
    first = evaluate(model, split, 16, CPU)
    assert evaluate(model, split, 16, CPU) == first
    for layer in model:
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    assert evaluate(model, split, 16, CPU) == first


def test_evaluation_leaves_no_trace(model, split):
    """Weights, batch statistics, the training mode and torch's generator stay as they were."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    evaluate(model, split, 16, CPU)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), generator)
    assert model.training


def test_evaluation_counts_every_sample_once(model, split):
    """The last, smaller batch is weighted correctly: equal to a single batch, up to rounding."""
    loss, accuracy = evaluate(model, split, 16, CPU)
    whole_loss, whole_accuracy = evaluate(model, split, 50, CPU)
    assert loss == pytest.approx(whole_loss)
    assert accuracy == whole_accuracy
