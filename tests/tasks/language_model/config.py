"""The configuration of a language model on characters."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .repro import Inert, RunConfig, Section


class Model(Section):
    width: Annotated[int, Field(ge=2)] = 32
    """Of the embeddings and of each layer."""
    num_heads: Annotated[int, Field(ge=1)] = 2
    """Of the attention."""
    context: Annotated[int, Field(ge=2)] = 32
    """Characters that are seen at once."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Probability of zeroing a feature, in training only."""

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "Model":
        if self.width % self.num_heads:
            raise ValueError(f"width must be a multiple of num_heads, {self.num_heads}")
        return self


class Training(Section):
    num_steps: Annotated[int, Field(ge=1)] = 200
    """Optimizer steps; the training is counted in steps, not in epochs."""
    eval_every: Annotated[int, Field(ge=1)] = 50
    """Steps between two evaluations."""
    global_batch_size: Annotated[int, Field(ge=1)] = 16
    """Sequences an optimizer step."""
    accumulate: Annotated[int, Field(ge=1)] = 2
    """Parts of a step's batch."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-2
    """Of AdamW, constant."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the matrix products, by autocast."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the running average of the weights."""
    max_grad_norm: float | None = 1.0
    """Gradients are scaled down to this norm; null: never."""


class Data(Section):
    num_workers: Annotated[int, Field(ge=0), Inert] = 0
    """Loader processes."""


class Config(RunConfig):
    model: Model = Model()
    training: Training = Training()
    data: Data = Data()


load_config = Config.load
