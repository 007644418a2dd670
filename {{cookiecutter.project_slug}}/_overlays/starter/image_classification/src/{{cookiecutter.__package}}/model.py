"""The models: images uint8 [B, C, H, W] to logits float32 [B, num_classes]. Yours to change."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .config import Model


def build_model(
    config: Model, *, num_classes: int, mean: Sequence[float], std: Sequence[float]
) -> nn.Module:
    """Build a model that takes pixels as stored; `mean` and `std` are per channel [C]."""
    build = {"small_cnn": _small_cnn, "resnet18": _resnet18}[config.name]
    return nn.Sequential(Normalize(mean, std), *build(config, len(mean), num_classes))


class Normalize(nn.Module):
    """Scale stored pixels to zero mean and unit variance; the weights include the constants."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.float() - self.mean) / self.std


class GridMean(nn.Module):
    """Means over a grid of `size` x `size` equal cells: [B, C, H, W] to [B, C, size, size].

    The same as `AdaptiveAvgPool2d`, which has no deterministic backward pass on CUDA.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        batch, channels, height, width = features.shape
        rows, columns = height // self.size, width // self.size
        cells = features.reshape(batch, channels, self.size, rows, self.size, columns)
        return cells.mean(dim=(3, 5))


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(self.body(features) + self.shortcut(features))


def _small_cnn(config: Model, in_channels: int, num_classes: int) -> list[nn.Module]:
    """Two convolution stages and a linear classifier: 20 thousand parameters at width 32."""
    width = config.width
    return [
        nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        GridMean(2),
        nn.Flatten(),
        nn.Dropout(config.dropout),
        nn.Linear(8 * width, num_classes),
    ]


def _resnet18(config: Model, in_channels: int, num_classes: int) -> list[nn.Module]:
    """ResNet-18 with the stem for small images: He et al., CVPR 2016, section 4.2.

    With `width` 64 it has the stages, blocks and channels of torchvision's `resnet18`, whose
    7 x 7 stem and max-pooling are for images of 224 pixels.
    """
    channels = [config.width * 2**stage for stage in range(4)]
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, channels[0], 3, padding=1, bias=False),
        nn.BatchNorm2d(channels[0]),
        nn.ReLU(),
    ]
    previous = channels[0]
    for stage, width in enumerate(channels):
        layers += [
            ResidualBlock(previous, width, stride=2 if stage else 1),
            ResidualBlock(width, width, stride=1),
        ]
        previous = width
    return [
        *layers,
        GridMean(1),
        nn.Flatten(),
        nn.Dropout(config.dropout),
        nn.Linear(previous, num_classes),
    ]
