"""The configuration of a regression on a table."""

from typing import Annotated

from pydantic import Field

from .repro import Inert, RunConfig, Section


class Model(Section):
    hidden: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (64, 32)
    """Width of each hidden layer."""


class Training(Section):
    num_epochs: Annotated[int, Field(ge=1)] = 100
    """Passes over the training split."""
    global_batch_size: Annotated[int, Field(ge=1)] = 32
    """Samples an optimizer step."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    """Of AdamW, constant."""


class Data(Section):
    noise: Annotated[float, Field(ge=0)] = 0.05
    """Augmentation: standard deviation of what is added to each standardised feature."""
    num_workers: Annotated[int, Field(ge=0), Inert] = 0
    """Loader processes."""


class Config(RunConfig):
    model: Model = Model()
    training: Training = Training()
    data: Data = Data()


load_config = Config.load
