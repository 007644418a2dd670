"""The model: features float32 [B, F] to outputs float32 [B, num_outputs]. Yours to change."""

from itertools import pairwise

from torch import nn

from .config import Model


def build_model(config: Model, *, num_features: int, num_outputs: int) -> nn.Module:
    """A multilayer perceptron: linear layers with ReLU and dropout between them."""
    widths = [num_features, *config.hidden]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(config.dropout)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], num_outputs))
