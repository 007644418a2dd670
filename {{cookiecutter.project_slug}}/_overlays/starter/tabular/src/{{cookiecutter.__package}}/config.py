"""The configuration of this project: what each key means. Yours to change.

`RunConfig` provides the keys that every run has: seed, experiment_name, paths, tracking, record
and determinism. Each key has a type, bounds, and a sentence below it; unknown keys are refused.
`Inert` marks a key that cannot change a bit of the result.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from .repro import Inert, RunConfig, Section


class Model(Section):
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=65_536)], ...], Field(max_length=64)] = (
        64,
        32,
    )
    """Width of each hidden layer; an empty list is a linear model."""
    dropout: Annotated[float, Field(ge=0, le=0.95)] = 0.1
    """Probability of zeroing a hidden unit, in training only."""


class Training(Section):
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes the first GPU where there is one."""
    num_epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 30
    """Passes over the training split."""
    global_batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    """Rows an optimizer step; an epoch's incomplete last batch is dropped."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with Nesterov momentum 0.9; both fused."""
    learning_rate: Annotated[float, Field(gt=0, le=1e6)] = 1e-3
    """Peak learning rate, reached after the warm-up; cosine decay to zero follows."""
    warmup_epochs: Annotated[float, Field(ge=0, le=1_000_000)] = 1.0
    """Length of the linear warm-up, in epochs."""
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 1e-2
    """Decoupled (AdamW) or L2 (SGD) weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this global L2 norm."""


class Data(Section):
    name: Literal["diabetes", "breast_cancer", "file"] = "diabetes"
    """`diabetes` (regression) and `breast_cancer` (classification) ship inside scikit-learn; `file`
    is the table in `path`."""
    path: str = ""
    """With `name: file`, a file `.csv` or `.parquet`, absolute or relative to `paths.data_dir`."""
    target: str = ""
    """With `name: file`, the column to predict."""
    task: Literal["regression", "classification"] = "regression"
    """With `name: file`, what the target is: a number or a class."""
    drop: tuple[str, ...] = ()
    """Columns that are left out, such as an identifier."""
    categories: tuple[str, ...] = ()
    """Columns of numbers that are names, such as a postcode; columns of text always are."""
    missing: Literal["refuse", "fill"] = "refuse"
    """`fill` replaces a missing number by the column's training mean, and a missing name by one of
    its own."""
    delimiter: Literal[",", ";", "\t", "|"] = ","
    """Between the fields of a CSV file; `tab` and `pipe` are names for two of them."""
    num_workers: Annotated[int, Field(ge=0, le=256), Inert] = 0
    """Loader processes; any number gives the same bits."""
    prefetch_factor: Annotated[int, Field(ge=1, le=1024), Inert] = 2
    """Batches that each loader process keeps ready; any number gives the same bits."""
    val_fraction: Annotated[float, Field(ge=0.01, le=0.45)] = 0.15
    """Share held out for validation, chosen by a hash of each row's features."""
    test_fraction: Annotated[float, Field(ge=0.01, le=0.45)] = 0.15
    """Share held out for the test, chosen by the same hash."""
    noise: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Augmentation: standard deviation of the noise added to standardized features."""

    @field_validator("delimiter", mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        names = {"tab": "\t", "\\t": "\t", "pipe": "|"}
        return names.get(given, given) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _a_file_has_a_path_and_a_target(self) -> "Data":
        if self.name != "file" and (self.path or self.target):
            raise ValueError(f"name: {self.name} has no path and no target; use name: file")
        if self.name == "file" and not (self.path and self.target):
            raise ValueError("name: file needs path and target")
        return self


class Config(RunConfig):
    model: Model = Model()
    training: Training = Training()
    data: Data = Data()


load_config = Config.load
