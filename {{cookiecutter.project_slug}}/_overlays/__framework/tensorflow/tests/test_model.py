"""The models have the shapes and sizes that they claim."""

import numpy as np
import pytest

from {{ cookiecutter.__package }}.config import Model, Training
from {{ cookiecutter.__package }}.model import build_model
from {{ cookiecutter.__package }}.optim import (
    build_optimizer,
    cross_entropy,
    learning_rate,
)


@pytest.mark.parametrize(
    ("config", "shape"),
    [(Model(name="small_cnn"), (1, 8, 8)), (Model(name="resnet18", width=8), (3, 32, 32))],
)
def test_stored_pixels_in_logits_out(config, shape):
    """uint8 images [B, C, H, W] become float32 logits [B, num_classes]."""
    constants = {"mean": [100.0] * shape[0], "std": [50.0] * shape[0]}
    model = build_model(config, shape=shape, num_classes=10, **constants)
    logits = model(np.zeros((2, *shape), np.uint8))
    assert logits.shape == (2, 10)
    assert logits.dtype == "float32"


def test_resnet18_has_the_published_number_of_parameters():
    """11,173,962 for 10 classes with the stem for small images, as in kuangliu/pytorch-cifar."""
    config, shape = Model(name="resnet18", width=64), (3, 32, 32)
    constants = {"mean": [0.0] * 3, "std": [1.0] * 3}
    model = build_model(config, shape=shape, num_classes=10, **constants)
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_variables) == 11_173_962


def test_every_variable_has_a_name_of_its_own():
    """Weights are saved by name, and Keras numbers layers without one by what came before."""
    model = build_model(Model(width=8), shape=(1, 8, 8), num_classes=10, mean=[5.0], std=[6.0])
    optimizer = build_optimizer(model, Training())
    for variables in (model.weights, optimizer.variables):
        paths = [variable.path for variable in variables]
        assert len({*paths}) == len(paths)
    assert not any(part[-1].isdigit() and "_" in part for part in model.layers[-1].path.split("/"))


def test_the_loss_is_that_of_the_smoothed_target():
    """By hand, for one sample of three classes."""
    logits = np.array([[2.0, 0.0, -1.0]], np.float32)
    log_probabilities = logits - np.log(np.exp(logits).sum())
    for smoothing in (0.0, 0.3):
        target = np.array([1 - smoothing, 0, 0]) + smoothing / 3
        expected = -(target * log_probabilities).sum()
        loss = cross_entropy(np.array([0]), logits, smoothing)
        assert float(loss[0]) == pytest.approx(expected, rel=1e-6)


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
