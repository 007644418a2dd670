"""A table in three splits, as numbers that a network takes. Yours to change."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from .config import Data
from .repro import SampleStreams
from .table import check_names, read_table

Columns = Mapping[str, np.ndarray]
"""float64 [N] or text [N] by name."""


@dataclass(frozen=True)
class Split:
    """Features float32 [N, F]; targets float32 [N], standardized, or classes int64 [N]."""

    features: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def sha256(self) -> str:
        """Digest of every number, in order: a single changed bit shows."""
        digest = hashlib.sha256()
        for array in (self.features, self.targets):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class TableData:
    """A table in three disjoint splits, with the constants that a model and its metrics need."""

    name: str
    task: Literal["regression", "classification"]
    train: Split
    val: Split
    test: Split
    num_outputs: int
    """1 for a regression, else the number of classes."""
    target_scale: float
    """Standard deviation of the training targets; 1 for a classification."""
    files: dict[str, str]
    """sha256 of each file that the data came from."""

    def describe(self) -> dict[str, Any]:
        """What the manifest records about the data; `sha256` covers every bit of every split."""
        splits = {"train": self.train, "val": self.val, "test": self.test}
        digests = {name: split.sha256() for name, split in splits.items()}
        return {
            "name": self.name,
            "num_samples": sum(map(len, splits.values())),
            "sha256": hashlib.sha256(" ".join(digests.values()).encode()).hexdigest(),
            "files": self.files,
            "splits": digests,
        }


def load_data(config: Data, data_dir: Path) -> TableData:
    """Load the table that `config` names; a relative `config.path` is looked up in `data_dir`.

    Raises:
        ValueError: the file cannot be read, or is no table that a network can be trained on.
    """
    target = config.target if config.name == "file" else "target"
    if target in config.drop:
        raise ValueError(f"data.drop names {target!r}, the target; leave out another column")
    if config.name == "file":
        path, task = data_dir / config.path, config.task
        columns = read_table(
            path, delimiter=config.delimiter, categories=config.categories, drop=config.drop
        )
        check_names(path, columns, target=[target])
    else:
        path, columns, task = _bundled(config.name)
        check_names(path, columns, categories=config.categories, drop=config.drop)
        columns = {n: c for n, c in columns.items() if n not in config.drop}
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    return prepare(columns, target, task, config, path.stem, files)


def prepare(
    columns: Columns, target: str, task: str, config: Data, name: str, files: dict[str, str]
) -> TableData:
    """Split a table by content, and turn its columns into numbers by what `train` shows.

    Raises:
        ValueError: a column or the target cannot be used; the message names it.
    """
    features = {key: column for key, column in columns.items() if key != target}
    _check(name, features, columns[target], config)
    targets, num_outputs = _targets(name, target, columns[target], task)
    sides = split_by_content(features, config.val_fraction, config.test_fraction)
    # A single row has no R2.
    if few := [side for side, rows in sides.items() if rows.sum() < 2]:
        raise ValueError(
            f"{name} has {len(targets)} rows, {int(sides[few[0]].sum())} of them for {few[0]}, "
            "which takes at least two: more rows, or other fractions"
        )
    encoded = [_encode(name, key, each, sides["train"]) for key, each in features.items()]
    matrix = np.hstack(encoded)
    scale = 1.0
    if task == "regression":
        mean, scale = _mean_and_std(name, target, targets[sides["train"]])
        targets = ((targets - mean) / scale).astype(np.float32)
    splits = {side: Split(matrix[rows], targets[rows]) for side, rows in sides.items()}
    return TableData(name, task, **splits, num_outputs=num_outputs, target_scale=scale, files=files)


def split_by_content(
    features: Columns, val_fraction: float, test_fraction: float
) -> dict[str, np.ndarray]:
    """Which rows bool [N] are in `train`, `val` and `test`, by a hash of each row's features.

    A row stays in its split when the table grows or is reordered, and equal rows share a split.
    The seed of a run plays no part: runs of all seeds have the same test split.
    """
    draws = np.array([_unit_hash(row) for row in zip(*features.values(), strict=True)])
    in_test = draws < test_fraction
    in_val = ~in_test & (draws < test_fraction + val_fraction)
    return {"train": ~in_test & ~in_val, "val": in_val, "test": in_test}


class TrainSet(Dataset):
    """Training rows with noise on the features, fetched by `(epoch, index)`, a batch at a time."""

    def __init__(self, split: Split, noise: float, streams: SampleStreams) -> None:
        self.split = split
        self.noise = noise
        self.streams = streams

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        features, targets = self.__getitems__([key])
        return features[0], targets[0]

    def __getitems__(self, keys: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        # `DataLoader` calls this for a batch: faster than fetching one by one and collating.
        indices = [index for _, index in keys]
        features = self.split.features[indices]
        if self.noise:
            width = features.shape[1]
            draws = [self.streams(*key).standard_normal(width, np.float32) for key in keys]
            features = features + np.float32(self.noise) * np.stack(draws)
        return torch.from_numpy(features), torch.from_numpy(self.split.targets[indices])


def _check(name: str, features: Columns, target: np.ndarray, config: Data) -> None:
    """Refuse what would train without a word and mean nothing."""
    if not features:
        raise ValueError(f"{name} has no column beside its target")
    if missing := int(_is_missing(target).sum()):
        raise ValueError(f"{name}: the target is missing in {missing} rows; remove them")
    seen: dict[bytes, str] = {}
    for key, column in features.items():
        gaps = _is_missing(column)
        if gaps.any() and config.missing == "refuse":
            raise ValueError(
                f"{name}: column {key!r} lacks {int(gaps.sum())} of {len(column)} values, first in "
                f"row {int(gaps.argmax()) + 1}; data.missing=fill fills them, data.drop leaves the "
                "column out"
            )
        if len(column) > 1 and len(set(column.tolist())) == 1:
            raise ValueError(
                f"{name}: column {key!r} is {_short(column[0])} in every row; leave it out with "
                "data.drop"
            )
        if column.dtype == object and key not in config.categories:
            _check_texts(name, key, column)
        digest = hashlib.sha256(repr(column.tolist()).encode()).digest()
        if (other := seen.setdefault(digest, key)) != key and len(column) > 1:
            raise ValueError(
                f"{name}: columns {other!r} and {key!r} are the same; leave one out with data.drop"
            )


def _check_texts(name: str, key: str, column: np.ndarray) -> None:
    """Refuse a column of text in which nearly every row is different."""
    different = len(set(column.tolist()))
    if different > max(20, len(column) // 2):
        raise ValueError(
            f"{name}: column {key!r} has {different} texts in {len(column)} rows, such as "
            f"{_short(column[0])}; write numbers as 1234.5, leave it out with data.drop, or name "
            "it in data.categories"
        )


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _targets(name: str, target: str, column: np.ndarray, task: str) -> tuple[np.ndarray, int]:
    is_text = column.dtype == object
    if task == "regression":
        if is_text:
            raise ValueError(
                f"{name}: target {target!r} is text, such as {_short(column[0])}; numbers are "
                "written as 1234.5, and data.task=classification takes classes"
            )
        if len(column) > 1 and len(set(column.tolist())) == 1:
            raise ValueError(f"{name}: target {target!r} is {column[0]} in every row")
        return column, 1
    classes, targets = np.unique(column.astype(str) if is_text else column, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"{name}: target {target!r} has one class only, {classes[0]}")
    if not is_text and (column % 1).any():
        raise ValueError(f"{name}: target {target!r} has fractions; data.task=regression fits")
    return targets.astype(np.int64), len(classes)


def _encode(name: str, key: str, column: np.ndarray, in_train: np.ndarray) -> np.ndarray:
    """Standardized numbers float32 [N, 1], or a column of 0 and 1 for each name in `train`."""
    if column.dtype == object:
        names = np.array([f"={name}" if name is not None else "" for name in column])
        # A name that only validation or test have is 0 in all of them.
        return (names[:, None] == np.unique(names[in_train])).astype(np.float32)
    mean, std = _mean_and_std(name, key, column[in_train])
    filled = np.where(np.isnan(column), mean, column)
    return ((filled - mean) / std).astype(np.float32)[:, None]


def _mean_and_std(name: str, key: str, numbers: np.ndarray) -> tuple[float, float]:
    present = numbers[~np.isnan(numbers)]
    if not len(present):
        return 0.0, 1.0
    if present.min() == present.max():  # its deviation may be rounded to a tiny number
        return float(present[0]), 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(present.mean()), float(present.std())
    if not np.isfinite([mean, std]).all():
        raise ValueError(f"{name}: the numbers of column {key!r} are too large; write smaller ones")
    return mean, std


def _is_missing(column: np.ndarray) -> np.ndarray:
    if column.dtype == object:
        return np.array([value is None for value in column], dtype=bool)
    return np.isnan(column)


def _unit_hash(row: tuple) -> float:
    text = "\x1f".join(map(repr, row)).encode()
    digest = hashlib.blake2b(text, digest_size=8, person=b"split").digest()
    return int.from_bytes(digest, "little") / 2**64


def _bundled(name: str) -> tuple[Path, Columns, str]:
    # Imported here: it takes a second, and a file of one's own does not need it.
    from sklearn.datasets import data as folder
    from sklearn.datasets import load_breast_cancer, load_diabetes

    # 442 patients, the progress of their disease after a year; 569 tumours, malignant or benign.
    load = {"diabetes": lambda: load_diabetes(scaled=False), "breast_cancer": load_breast_cancer}
    file = {"diabetes": "diabetes_data_raw.csv.gz", "breast_cancer": "breast_cancer.csv"}
    table = load[name]()
    columns = dict(zip(map(str, table.feature_names), table.data.T, strict=True))
    task = "regression" if name == "diabetes" else "classification"
    path = Path(folder.__path__[0]) / file[name]
    return path, {**columns, "target": table.target.astype(np.float64)}, task
