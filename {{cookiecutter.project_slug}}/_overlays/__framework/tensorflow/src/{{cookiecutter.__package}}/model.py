"""The models: images uint8 [B, C, H, W] to logits float32 [B, num_classes]. Yours to change.

Every layer has a name: Keras's own count the layers that a process has made before, and the names
are in the files of weights.
"""

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from .config import Model


def build_model(
    config: Model,
    *,
    shape: Sequence[int],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> keras.Model:
    """Build a model that takes pixels [C, H, W] as stored; `mean` and `std` are per channel [C]."""
    build = {"small_cnn": _small_cnn, "resnet18": _resnet18}[config.name]
    pixels = keras.Input(tuple(shape), dtype="uint8", name="pixels")
    features = build(config, Normalize(mean, std, name="normalize")(pixels))
    features = layers.Flatten(name="flatten")(features)
    features = layers.Dropout(config.dropout, name="dropout")(features)
    logits = layers.Dense(num_classes, name="classifier")(features)
    return keras.Model(pixels, logits, name=config.name)


class Normalize(layers.Layer):
    """Scale stored pixels [B, C, H, W] to zero mean and unit variance; the weights include the
    constants. The result has its channels last [B, H, W, C], as convolutions on a CPU need it."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], **how: object) -> None:
        super().__init__(**how)
        self._constants = {"mean": mean, "std": std}

    def build(self, shape: tuple[int | None, ...]) -> None:
        for name, values in self._constants.items():
            constant = keras.initializers.Constant(np.asarray(values, np.float32))
            size = (len(values),)
            weight = self.add_weight(shape=size, initializer=constant, trainable=False, name=name)
            setattr(self, name, weight)

    def call(self, pixels: keras.KerasTensor) -> keras.KerasTensor:
        pixels = keras.ops.transpose(keras.ops.cast(pixels, "float32"), (0, 2, 3, 1))
        return (pixels - self.mean) / self.std


def _small_cnn(config: Model, features: keras.KerasTensor) -> keras.KerasTensor:
    """Two convolution stages: 20 thousand parameters at width 32, with the classifier."""
    features = _relu(_conv_norm(features, config.width, "stage1"), "stage1")
    features = layers.MaxPooling2D(2, name="pool")(features)
    features = _relu(_conv_norm(features, 2 * config.width, "stage2"), "stage2")
    return _grid_mean(features, 2)


def _resnet18(config: Model, features: keras.KerasTensor) -> keras.KerasTensor:
    """ResNet-18 with the stem for small images: He et al., CVPR 2016, section 4.2."""
    features = _relu(_conv_norm(features, config.width, "stem"), "stem")
    for stage in range(4):
        channels = config.width * 2**stage
        features = _block(features, channels, 2 if stage else 1, f"stage{stage + 1}a")
        features = _block(features, channels, 1, f"stage{stage + 1}b")
    return _grid_mean(features, 1)


def _block(features: keras.KerasTensor, channels: int, stride: int, name: str) -> keras.KerasTensor:
    """Two 3 x 3 convolutions with a shortcut."""
    body = _relu(_conv_norm(features, channels, f"{name}_1", stride=stride), f"{name}_1")
    body = _conv_norm(body, channels, f"{name}_2")
    if stride != 1 or features.shape[-1] != channels:
        features = _conv_norm(features, channels, f"{name}_shortcut", size=1, stride=stride)
    return _relu(layers.Add(name=f"{name}_add")([body, features]), name)


def _conv_norm(
    features: keras.KerasTensor, channels: int, name: str, size: int = 3, stride: int = 1
) -> keras.KerasTensor:
    how = {"padding": "same", "use_bias": False, "name": f"{name}_conv"}
    features = layers.Conv2D(channels, size, stride, **how)(features)
    # The momentum and epsilon of PyTorch; Keras has 0.99 and 1e-3.
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(features)


def _relu(features: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.ReLU(name=f"{name}_relu")(features)


def _grid_mean(features: keras.KerasTensor, size: int) -> keras.KerasTensor:
    """Means over a grid of `size` x `size` equal cells: [B, H, W, C] to [B, size, size, C]."""
    _, height, width, _ = features.shape
    return layers.AveragePooling2D((height // size, width // size), name="grid")(features)
