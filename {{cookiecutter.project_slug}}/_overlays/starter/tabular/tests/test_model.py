"""The model and the metrics have the shapes and values that they claim."""

import numpy as np
import pytest
import torch

from {{ cookiecutter.__package }}.config import Model, Training
from {{ cookiecutter.__package }}.data import Split, TableData
from {{ cookiecutter.__package }}.metrics import compute_metrics, loss_function
from {{ cookiecutter.__package }}.model import build_model
from {{ cookiecutter.__package }}.optim import learning_rate


@pytest.mark.parametrize("hidden", [(), (5,), (8, 4, 2)])
def test_features_in_outputs_out(hidden):
    """float32 [B, F] becomes float32 [B, num_outputs], for any number of hidden layers."""
    model = build_model(Model(hidden=hidden), num_features=7, num_outputs=3)
    outputs = model(torch.zeros(4, 7))
    assert outputs.shape == (4, 3)
    assert outputs.dtype == torch.float32


def data(task, scale=1.0):
    """A table of nothing, for its task and scale."""
    empty = Split(np.zeros((0, 1), np.float32), np.zeros(0, np.float32))
    return TableData("t", task, empty, empty, empty, 2, scale, {})


def test_the_metrics_of_a_regression():
    """By hand: errors 0 and 2, targets 1 and 3 with variance 1; the unit is the target's own."""
    outputs, targets = torch.tensor([[1.0], [5.0]]), torch.tensor([1.0, 3.0])
    found = compute_metrics(data("regression", 10.0), outputs, targets)
    assert found == {"loss": 2.0, "mae": 10.0, "r2": -1.0}


def test_the_metrics_of_a_classification():
    """By hand: even odds cost ln 2; two of three are right."""
    outputs = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    found = compute_metrics(data("classification"), outputs, torch.tensor([0, 1, 1]))
    assert found["accuracy"] == pytest.approx(2 / 3)
    alone = loss_function("classification", outputs[:1], torch.tensor([0]))
    assert alone.item() == pytest.approx(0.6931472)


def test_the_learning_rate_warms_up_then_falls_to_zero():
    """Linear to the peak, then a cosine that ends just above zero."""
    config = Training(learning_rate=1.0, warmup_epochs=1)
    rates = [
        learning_rate(step, steps_per_epoch=10, num_steps=100, config=config) for step in range(100)
    ]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001
