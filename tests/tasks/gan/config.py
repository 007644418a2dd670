"""The configuration of a generative adversarial network."""

from typing import Annotated

from pydantic import Field

from .repro import Inert, RunConfig, Section


class Model(Section):
    num_latents: Annotated[int, Field(ge=1)] = 16
    """Numbers that the generator makes an image of."""
    width: Annotated[int, Field(ge=1)] = 64
    """Of the hidden layers of both networks."""


class Training(Section):
    num_epochs: Annotated[int, Field(ge=1)] = 20
    """Passes over the images."""
    global_batch_size: Annotated[int, Field(ge=1)] = 64
    """Images a step."""
    learning_rates: tuple[float, float] = (1e-3, 2e-3)
    """Of the generator and of the critic."""


class Data(Section):
    num_workers: Annotated[int, Field(ge=0), Inert] = 0
    """Loader processes."""


class Config(RunConfig):
    model: Model = Model()
    training: Training = Training()
    data: Data = Data()


load_config = Config.load
