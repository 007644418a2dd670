"""The configuration of this project: what each key means. Yours to change.

`RunConfig` provides the keys that every run has: seed, experiment_name, paths, tracking, record
and determinism. Each key has a type, bounds, and a sentence below it; unknown keys are refused.
`Inert` marks a key that cannot change a bit of the result.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .repro import Inert, RunConfig, Section


class Model(Section):
    num_layers: Annotated[int, Field(ge=1, le=1024)] = 2
    """Transformer blocks."""
    num_heads: Annotated[int, Field(ge=1, le=1024)] = 2
    """Attention heads of each block; they divide the width."""
    width: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Features of a token between the blocks."""
    context: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """Tokens that the model sees at once."""
    vocab_size: Annotated[int, Field(ge=2, le=2**32)] = 256
    """Different tokens: 256 for the bytes of a text."""
    dropout: Annotated[float, Field(ge=0, le=0.95)] = 0.1
    """Probability of zeroing a feature, in training only."""

    @model_validator(mode="after")
    def _the_heads_divide_the_width(self) -> "Model":
        if self.width % self.num_heads:
            raise ValueError(f"width must be a multiple of num_heads, {self.num_heads}")
        return self


class Training(Section):
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes the first GPU where there is one."""
    num_steps: Annotated[int, Field(ge=1, le=1_000_000_000)] = 1000
    """Optimizer steps; the training is counted in steps, not in epochs."""
    eval_every: Annotated[int, Field(ge=1, le=1_000_000_000)] = 100
    """Steps between two evaluations."""
    global_batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    """Sequences an optimizer step."""
    accumulate: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Parts in which the gradient of a step is computed: more take less memory."""
    learning_rate: Annotated[float, Field(gt=0, le=1e6)] = 3e-3
    """Peak learning rate, reached after the warm-up; cosine decay to a tenth follows."""
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000_000)] = 50
    """Length of the linear warm-up."""
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 0.1
    """Decoupled weight decay of the matrices; biases and scales have none."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this global L2 norm."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the matrix products, by autocast; the weights are always float32."""
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """Decay a step of the running average of the weights, which is what is evaluated and kept."""


class Data(Section):
    path: str = ""
    """A text (`.txt`) or token ids (`.npy`, unsigned integers of one dimension), absolute or
    relative to `paths.data_dir`; empty: Shakespeare, 1 MB, which comes with the project."""
    num_workers: Annotated[int, Field(ge=0, le=256), Inert] = 0
    """Loader processes; any number gives the same bits."""
    prefetch_factor: Annotated[int, Field(ge=1, le=1024), Inert] = 2
    """Batches that each loader process keeps ready; any number gives the same bits."""
    val_fraction: Annotated[float, Field(ge=0.001, le=0.45)] = 0.05
    """Share held out for validation: the stretch before the test's."""
    test_fraction: Annotated[float, Field(ge=0.001, le=0.45)] = 0.05
    """Share held out for the test: the end of the file."""


class Sample(Section):
    prompt: Annotated[str, Field(min_length=1)] = "\n"
    """How the text that is generated after the training begins."""
    num_tokens: Annotated[int, Field(ge=0, le=1_000_000)] = 300
    """Its length without the prompt; 0 generates none."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 0.8
    """Below 1 prefers likely tokens."""


class Config(RunConfig):
    model: Model = Model()
    training: Training = Training()
    data: Data = Data()
    sample: Sample = Sample()


load_config = Config.load
