"""Evaluation has no side effects."""

import numpy as np
import pytest
import torch

from {{ cookiecutter.__package }}.config import Model
from {{ cookiecutter.__package }}.data import Split, TableData
from {{ cookiecutter.__package }}.model import build_model
from {{ cookiecutter.__package }}.train import evaluate

CPU = torch.device("cpu")


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    features = random.standard_normal((50, 4), np.float32)
    split = Split(features, random.integers(0, 3, 50))
    return TableData("t", "classification", split, split, split, 3, 1.0, {})


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(Model(hidden=(8,), dropout=0.5), num_features=4, num_outputs=3).train()


def test_evaluation_leaves_no_trace(model, data):
    """Weights, the training mode and torch's generator stay as they were; dropout is off."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    first = evaluate(model, data, data.val, CPU)
    assert evaluate(model, data, data.val, CPU) == first
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), generator)
    assert model.training


def test_evaluation_counts_every_row_once(model, data):
    """The last, smaller batch is weighted correctly: equal to a single batch, up to rounding."""
    found = evaluate(model, data, data.val, CPU, batch_size=16)
    assert found == pytest.approx(evaluate(model, data, data.val, CPU, batch_size=50))
