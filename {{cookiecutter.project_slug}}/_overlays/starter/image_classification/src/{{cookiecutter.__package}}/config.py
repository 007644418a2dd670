"""The configuration of this project: what each key means. Yours to change.

`RunConfig` provides the keys that every run has: seed, experiment_name, paths, tracking, record
and determinism. Each key has a type, bounds, and a sentence below it; unknown keys are refused.
`Inert` marks a key that cannot change a bit of the result.
"""

from typing import Annotated, Literal

from pydantic import Field

from .repro import Inert, RunConfig, Section


class Model(Section):
    name: Literal["small_cnn", "resnet18"] = "small_cnn"
    """Architecture, built in `model.py`."""
    width: Annotated[int, Field(ge=1, le=4096)] = 32
    """Channels of the first stage; the later stages double it."""
    dropout: Annotated[float, Field(ge=0, le=0.95)] = 0.2
    """Probability of zeroing a feature before the classifier, in training only."""


class Training(Section):
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes the first GPU where there is one."""
    num_epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Passes over the training split."""
    global_batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """Samples an optimizer step; an epoch's incomplete last batch is dropped."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with Nesterov momentum 0.9; both fused."""
    learning_rate: Annotated[float, Field(gt=0, le=1e6)] = 1e-3
    """Peak learning rate, reached after the warm-up; cosine decay to zero follows."""
    warmup_epochs: Annotated[float, Field(ge=0, le=1_000_000)] = 1.0
    """Length of the linear warm-up, in epochs."""
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 1e-2
    """Decoupled (AdamW) or L2 (SGD) weight decay."""
    label_smoothing: Annotated[float, Field(ge=0, le=0.99)] = 0.0
    """Share of the target spread evenly over all classes."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this global L2 norm."""


class Data(Section):
    name: Literal["digits", "cifar10"] = "digits"
    """`digits` ships inside scikit-learn; `cifar10` is downloaded (170 MB), checked by sha256."""
    num_workers: Annotated[int, Field(ge=0, le=256), Inert] = 0
    """Loader processes; any number gives the same bits."""
    prefetch_factor: Annotated[int, Field(ge=1, le=1024), Inert] = 2
    """Batches that each loader process keeps ready; any number gives the same bits."""
    val_fraction: Annotated[float, Field(ge=0.01, le=0.45)] = 0.15
    """Share held out for validation, chosen by a hash of each sample's bytes."""
    test_fraction: Annotated[float, Field(ge=0.01, le=0.45)] = 0.15
    """Share held out for the test, where the data set has no test split of its own."""
    max_shift: Annotated[int, Field(ge=0, le=16)] = 1
    """Augmentation: the image moves by up to this many pixels in each direction."""
    horizontal_flip: bool = False
    """Augmentation: every second image, at random, is mirrored."""


class Config(RunConfig):
    model: Model = Model()
    training: Training = Training()
    data: Data = Data()


load_config = Config.load
