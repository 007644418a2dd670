"""Typed configuration: YAML in, frozen dataclasses out, and every mistake named by its key.

Nothing here imports torch. Values may name environment variables as `${NAME}` or
`${NAME:-default}`; they stay unresolved in the record of a run, so that no secret and no path of
one machine gets into it (`environment.py` resolves them).
"""

import difflib
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import yaml

from .strict_yaml import parse_yaml

MAX_SEED = 2**32 - 1
"""Largest seed that NumPy's global generator takes; Python and torch take more."""


@dataclass(frozen=True)
class Range:
    """The closed interval a number must lie in; `above` excludes the lower end."""

    low: float
    high: float = math.inf
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        lower = f"above {self.low}" if self.above else f"at least {self.low}"
        return lower if self.high == math.inf else f"{lower} and at most {self.high}"


@dataclass(frozen=True)
class Pattern:
    """The form that a text must have, and how to say so."""

    regex: str
    words: str

    def __contains__(self, value: str) -> bool:
        return re.fullmatch(self.regex, value) is not None

    def __str__(self) -> str:
        return self.words


class Section:
    """Base of all sections: a value is checked where it is born, whoever builds the section."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self), include_extras=True)
        for entry in fields(self):
            value = _checked(hints[entry.name], getattr(self, entry.name), entry.name)
            object.__setattr__(self, entry.name, value)


@dataclass(frozen=True, kw_only=True)
class Model(Section):
    name: Literal["small_cnn", "resnet18"] = "small_cnn"
    """Architecture, built in `model.py`."""
    width: Annotated[int, Range(1, 4096)] = 32
    """Channels of the first stage; the later stages double it."""
    dropout: Annotated[float, Range(0, 0.95)] = 0.2
    """Probability of zeroing a feature before the classifier, in training only."""


@dataclass(frozen=True, kw_only=True)
class Training(Section):
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes the first GPU where there is one."""
    num_epochs: Annotated[int, Range(1, 1_000_000)] = 20
    """Passes over the training split."""
    global_batch_size: Annotated[int, Range(1, 1_000_000)] = 64
    """Samples an optimizer step; an epoch's incomplete last batch is dropped."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with Nesterov momentum 0.9; both fused."""
    learning_rate: Annotated[float, Range(0, 1e6, above=True)] = 1e-3
    """Peak learning rate, reached after the warm-up; cosine decay to zero follows."""
    warmup_epochs: Annotated[float, Range(0, 1_000_000)] = 1.0
    """Length of the linear warm-up, in epochs."""
    weight_decay: Annotated[float, Range(0, 1e6)] = 1e-2
    """Decoupled (AdamW) or L2 (SGD) weight decay."""
    label_smoothing: Annotated[float, Range(0, 0.99)] = 0.0
    """Share of the target spread evenly over all classes."""
    max_grad_norm: Annotated[float, Range(0, above=True)] = 1.0
    """Gradients are scaled down to this global L2 norm."""
    checkpoint_every: Annotated[int, Range(1, 10**9)] = 100
    """Optimizer steps between two checkpoints; one more is written at the end."""
    keep_checkpoints: Annotated[int, Range(1, 10**9)] = 3
    """Newest checkpoints that stay on disk."""


@dataclass(frozen=True, kw_only=True)
class Data(Section):
    name: Literal["digits", "cifar10"] = "digits"
    """`digits` ships inside scikit-learn; `cifar10` is downloaded (170 MB), checked by sha256."""
    num_workers: Annotated[int, Range(0, 256)] = 0
    """Loader processes; any number gives the same bits."""
    prefetch_factor: Annotated[int, Range(1, 1024)] = 2
    """Batches that each loader process keeps ready; any number gives the same bits."""
    val_fraction: Annotated[float, Range(0.01, 0.45)] = 0.15
    """Share held out for validation, chosen by a hash of each sample's bytes."""
    test_fraction: Annotated[float, Range(0.01, 0.45)] = 0.15
    """Share held out for the test, where the data set has no test split of its own."""
    max_shift: Annotated[int, Range(0, 16)] = 1
    """Augmentation: the image moves by up to this many pixels in each direction."""
    horizontal_flip: bool = False
    """Augmentation: every second image, at random, is mirrored."""


@dataclass(frozen=True, kw_only=True)
class Paths(Section):
    data_dir: str = "${DATA_DIR:-data}"
    """Where downloads are kept."""
    output_dir: str = "${OUTPUT_DIR:-outputs}"
    """Where run directories are made."""


@dataclass(frozen=True, kw_only=True)
class Tracking(Section):
    mlflow_uri: str = "${MLFLOW_TRACKING_URI:-}"
    """MLflow server to report to; empty: none, the run directory is the record."""


@dataclass(frozen=True, kw_only=True)
class Determinism(Section):
    profile: Literal["fast", "portable"] = "fast"
    """`fast`: the best instructions of this CPU. `portable`: AVX2 on every x86-64 CPU, so that
    processors of other makers and years give the same bits; needs AVX2, costs up to half the speed.
    """
    deterministic_algorithms: bool = True
    """Refuse operations that have no deterministic implementation."""
    cudnn_benchmark: bool = False
    """Let cuDNN time its kernels and take the fastest: another choice on another day."""
    matmul_precision: Literal["ieee", "tf32"] = "ieee"
    """float32 products: exact inputs, or TF32 on GPUs that have it."""
    num_threads: Annotated[int, Range(1, 1024)] = 1
    """CPU threads of torch and NumPy; another number gives other bits."""
    fill_uninitialized_memory: bool = False
    """Fill fresh tensors with NaN, so that reading one unwritten shows; costs up to 13 %."""


@dataclass(frozen=True, kw_only=True)
class Config(Section):
    seed: Annotated[int, Range(0, MAX_SEED)]
    """The one seed; every stream of random numbers is derived from it. 0 is a seed like others."""
    experiment_name: Annotated[
        str, Pattern(r"[A-Za-z0-9][\w.-]{0,63}", "letters, digits, '.', '_' and '-', at most 64")
    ] = "baseline"
    """Name of the MLflow experiment and start of the run's name."""
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    data: Data = field(default_factory=Data)
    paths: Paths = field(default_factory=Paths)
    tracking: Tracking = field(default_factory=Tracking)
    determinism: Determinism = field(default_factory=Determinism)


INERT_KEYS = ("data.num_workers", "data.prefetch_factor", "paths", "tracking", "experiment_name")
"""Keys, or sections of keys, whose value cannot change a bit of the result."""


def is_inert(key: str) -> bool:
    """Whether a dotted key is one of `INERT_KEYS`, or lies in one of those sections."""
    return any(key == name or key.startswith(f"{name}.") for name in INERT_KEYS)


def load_config(
    path: str | Path, overrides: Iterable[str] = (), *, seed: int | None = None
) -> Config:
    """Read a YAML file, apply `section.key=value` overrides in order, then `seed`.

    Raises:
        ValueError: the file is not readable YAML, or a key or value is refused.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():
            # The program may start itself again, and a pipe cannot be read twice.
            raise ValueError(f"cannot read config {path}: not a regular file")
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot read config {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"config {path} is not UTF-8 text") from None
    try:
        tree = parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"config {path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"config {path} must be a mapping of keys, got {_kind(tree)}")
    for override in overrides:
        _apply(tree, override)
    if seed is not None:
        tree["seed"] = seed
    return config_from_dict(tree)


def config_from_dict(tree: Mapping[str, Any]) -> Config:
    """Build a `Config` from nested mappings.

    Raises:
        ValueError: an unknown key, a missing one, a wrong type or a value out of range.
    """
    return _build(Config, tree, "")


def as_config(config: Config | Mapping[str, Any] | str | Path) -> Config:
    """A configuration from whatever a caller has: one already, nested mappings, or a file."""
    if isinstance(config, Config):
        return config
    return config_from_dict(config) if isinstance(config, Mapping) else load_config(config)


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as plain nested dictionaries, every default filled in."""
    return asdict(config)


def to_yaml(config: Config) -> str:
    """The configuration as YAML that `load_config` takes."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def config_sha256(tree: Mapping[str, Any]) -> str:
    """Digest of the resolved configuration, as canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _build(cls: type, tree: Any, path: str) -> Any:
    if not isinstance(tree, Mapping):
        raise ValueError(f"{path.rstrip('.')} must be a section of keys, got {_kind(tree)}")
    known = {entry.name: entry for entry in fields(cls)}
    hints = get_type_hints(cls)
    for key in tree:
        if key not in known:
            nearest = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = (
                f"did you mean {path + nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"
            )
            raise ValueError(f"unknown key {path + str(key)!r}; {hint}")
    for name, entry in known.items():
        required = entry.default is MISSING and entry.default_factory is MISSING
        if required and name not in tree:
            raise ValueError(f"missing key {path + name!r}")
    values = {
        key: _build(hints[key], value, f"{path}{key}.") if is_dataclass(hints[key]) else value
        for key, value in tree.items()
    }
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{path}{error}") from None


def _checked(hint: Any, value: Any, name: str) -> Any:
    """Return `value` as its declared type (an int where a float is asked for becomes one)."""
    bounds = None
    if get_origin(hint) is Annotated:
        hint, bounds = get_args(hint)
    assert not isinstance(hint, UnionType), "optional values are not part of the house style"
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(
                f"{name} must be one of {', '.join(map(str, get_args(hint)))}; got {value!r}"
            )
        return value
    if hint is float and type(value) is int:
        value = float(value) if abs(value) < 2**53 else math.inf
    # `type(…) is`, not `isinstance`: a bool is an int to Python, a mistake to a user.
    if type(value) is not hint:
        raise ValueError(f"{name} must be {_NAMES.get(hint, hint.__name__)}, got {_kind(value)}")
    if hint is float and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value}")
    if bounds is not None and value not in bounds:
        raise ValueError(f"{name} must be {bounds}, got {repr(value)[:60]}")
    return value


def _apply(tree: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise ValueError(f"an override looks like section.key=value, got {override!r}")
    *sections, key = dotted.split(".")
    node = tree
    for section in sections:
        node = node.setdefault(section, {})
        if not isinstance(node, dict):
            raise ValueError(f"{dotted!r}: {section!r} is a value, not a section")
    try:
        node[key] = parse_yaml(text) if text else ""
    except ValueError as error:
        raise ValueError(f"{dotted!r}: {text[:60]!r} is not a YAML value: {error}") from None


_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a section of keys"
    return f"{type(value).__name__} {str(value)[:60]!r}"
