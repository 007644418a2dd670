"""The models have the shapes and sizes that they claim."""

import pytest
import torch

from {{ cookiecutter.__package }}.config import Model, Training
from {{ cookiecutter.__package }}.model import GridMean, build_model
from {{ cookiecutter.__package }}.optim import learning_rate

NO_DETERMINISTIC_CUDA = (
    torch.nn.AdaptiveAvgPool2d,
    torch.nn.AdaptiveAvgPool3d,
    torch.nn.AdaptiveMaxPool2d,
    torch.nn.AvgPool3d,
    torch.nn.CTCLoss,
    torch.nn.EmbeddingBag,
    torch.nn.FractionalMaxPool2d,
    torch.nn.FractionalMaxPool3d,
    torch.nn.MaxPool3d,
    torch.nn.MaxUnpool2d,
    torch.nn.ReflectionPad1d,
    torch.nn.ReflectionPad2d,
    torch.nn.ReflectionPad3d,
    torch.nn.ReplicationPad1d,
    torch.nn.ReplicationPad2d,
    torch.nn.ReplicationPad3d,
    torch.nn.Upsample,
)
"""Modules that `torch.use_deterministic_algorithms` documents as raising on CUDA."""


@pytest.mark.parametrize("name", ["small_cnn", "resnet18"])
def test_no_layer_lacks_a_deterministic_backward_pass_on_cuda(name):
    """A model that trains on a CPU also trains on a GPU, rather than failing at the first step."""
    model = build_model(Model(name=name, width=8), num_classes=10, mean=[0.0], std=[1.0])
    assert [m for m in model.modules() if isinstance(m, NO_DETERMINISTIC_CUDA)] == []


def test_grid_means_are_those_of_adaptive_pooling():
    """The same numbers as torch's layer, up to rounding."""
    features = torch.rand(2, 3, 8, 8)
    for size in (1, 2, 4):
        expected = torch.nn.functional.adaptive_avg_pool2d(features, size)
        assert torch.allclose(GridMean(size)(features), expected)


@pytest.mark.parametrize(
    ("config", "shape"),
    [(Model(name="small_cnn"), (2, 1, 8, 8)), (Model(name="resnet18", width=8), (2, 3, 32, 32))],
)
def test_stored_pixels_in_logits_out(config, shape):
    """uint8 images [B, C, H, W] become float32 logits [B, num_classes]."""
    channels = shape[1]
    model = build_model(config, num_classes=10, mean=[100.0] * channels, std=[50.0] * channels)
    logits = model(torch.zeros(shape, dtype=torch.uint8))
    assert logits.shape == (shape[0], 10)
    assert logits.dtype == torch.float32


def test_resnet18_has_the_published_number_of_parameters():
    """11,173,962 for 10 classes with the stem for small images, as in kuangliu/pytorch-cifar."""
    model = build_model(
        Model(name="resnet18", width=64), num_classes=10, mean=[0.0] * 3, std=[1.0] * 3
    )
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_173_962


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
