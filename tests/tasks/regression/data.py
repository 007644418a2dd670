"""The diabetes table of scikit-learn: 442 patients, ten features, one number to predict."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch.utils.data import Dataset

from .repro import SampleStreams


@dataclass(frozen=True)
class Table:
    """Features float32 [N, 10] and targets float32 [N]."""

    features: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def sha256(self) -> str:
        return hashlib.sha256(self.features.tobytes() + self.targets.tobytes()).hexdigest()


@dataclass(frozen=True)
class Splits:
    """Three disjoint splits, standardised by mean and deviation of the training split alone."""

    train: Table
    val: Table
    test: Table

    def describe(self) -> dict[str, Any]:
        splits = {"train": self.train, "val": self.val, "test": self.test}
        digests = {name: table.sha256() for name, table in splits.items()}
        return {
            "name": "diabetes",
            "num_samples": sum(map(len, splits.values())),
            "sha256": hashlib.sha256(" ".join(digests.values()).encode()).hexdigest(),
            "splits": digests,
        }


def load_data() -> Splits:
    """Split by a hash of each patient's features, then standardise."""
    source = load_diabetes(scaled=False)
    features, targets = source.data.astype(np.float64), source.target.astype(np.float64)
    draws = np.array([_unit_hash(row) for row in features])
    sides = (draws >= 0.3, (draws >= 0.15) & (draws < 0.3), draws < 0.15)
    train = sides[0]
    center, scale = features[train].mean(axis=0), features[train].std(axis=0)
    middle, spread = targets[train].mean(), targets[train].std()
    return Splits(
        *(
            Table(
                ((features[side] - center) / scale).astype(np.float32),
                ((targets[side] - middle) / spread).astype(np.float32),
            )
            for side in sides
        )
    )


class TrainSet(Dataset):
    """Training rows with a little noise, fetched by `(epoch, index)`."""

    def __init__(self, table: Table, noise: float, streams: SampleStreams) -> None:
        self.table, self.noise, self.streams = table, noise, streams

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, index = key
        row = self.table.features[index]
        noise = self.noise * self.streams(epoch, index).standard_normal(len(row), np.float32)
        return torch.from_numpy(row + noise), torch.tensor(self.table.targets[index])


def _unit_hash(row: np.ndarray) -> float:
    digest = hashlib.blake2b(row.tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64
