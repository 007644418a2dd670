"""Data sets in memory, and splits by content. Yours to change."""

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .cifar import ARCHIVE, SHA256, load_cifar10
from .config import Data
from .repro import SampleStreams

NUM_DRAWS = 3  # uniform random numbers that `augment` uses per image


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, C, H, W] and labels int64 [N], always in the same memory layout.

    A digest ignores the layout, but what computes may not.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        for name in ("images", "labels"):
            array = getattr(self, name)
            # Strides of axes of length 1 are arbitrary, even where NumPy calls them contiguous.
            flat = np.ascontiguousarray(array).reshape(-1)
            object.__setattr__(self, name, flat.reshape(array.shape))

    def __len__(self) -> int:
        return len(self.labels)

    def sha256(self) -> str:
        """Digest of every image and label, in order: a single changed bit shows."""
        digest = hashlib.sha256()
        for array in (self.images, self.labels):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class ImageData:
    """A data set in three disjoint splits, with the constants that a model needs."""

    name: str
    train: Split
    val: Split
    test: Split
    num_classes: int
    mean: tuple[float, ...]
    """Per channel, computed on pixel values as stored."""
    std: tuple[float, ...]
    files: dict[str, str]
    """sha256 of each file that the data came from."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image: [C, H, W]."""
        return self.train.images.shape[1:]

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


def load_data(config: Data, data_dir: Path) -> ImageData:
    """Load the data set that `config.name` names; `data_dir` is where downloads are kept.

    Raises:
        ValueError: the data is not available, or does not match its sha256.
    """
    return {"digits": _digits, "cifar10": _cifar10}[config.name](config, data_dir)


class TrainSet:
    """Augmented training samples, fetched by `(epoch, index)`, a batch at a time."""

    def __init__(self, split: Split, config: Data, streams: SampleStreams) -> None:
        self.split = split
        self.config = config
        self.streams = streams

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: tuple[int, int]) -> tuple[np.ndarray, int]:
        images, labels = self.__getitems__([key])
        return images[0], int(labels[0])

    def __getitems__(self, keys: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        # Called for a whole batch: twice as fast as fetching one by one and stacking.
        indices = [index for _, index in keys]
        draws = np.stack([self.streams(epoch, index).random(NUM_DRAWS) for epoch, index in keys])
        images = augment(self.split.images[indices], self.config, draws)
        return images, self.split.labels[indices]


def augment(images: np.ndarray, config: Data, draws: np.ndarray) -> np.ndarray:
    """Shifted, optionally mirrored copies of images uint8 [B, C, H, W]; uncovered pixels are zero.

    `draws` float64 [B, NUM_DRAWS] is uniform in [0, 1): row shift, column shift, mirroring.
    """
    num_images, channels, height, width = images.shape
    shift = config.max_shift
    # Not `np.pad`, which is ten times slower for small images.
    padded = np.zeros((num_images, channels, height + 2 * shift, width + 2 * shift), images.dtype)
    padded[:, :, shift : shift + height, shift : shift + width] = images
    corners = (draws[:, :2] * (2 * shift + 1)).astype(np.int64).tolist()
    mirrored = (draws[:, 2] < 0.5).tolist() if config.horizontal_flip else [False] * num_images
    out = np.empty(images.shape, images.dtype)  # always the same layout, whatever that of `images`
    for target, source, (top, left), mirror in zip(out, padded, corners, mirrored, strict=True):
        moved = source[:, top : top + height, left : left + width]
        target[...] = moved[:, :, ::-1] if mirror else moved
    return out


def split_by_content(
    source: Split, val_fraction: float, test_fraction: float
) -> tuple[Split, Split, Split]:
    """Train, validation and test by a hash of each image's bytes.

    A sample stays in its split when the data set grows or is reordered, and equal images share a
    split. The seed of a run plays no part: runs of all seeds have the same test split.
    """
    draws = np.array([_unit_hash(image) for image in source.images])
    in_test = draws < test_fraction
    in_val = ~in_test & (draws < test_fraction + val_fraction)
    in_train = ~in_test & ~in_val
    train, val, test = (
        Split(source.images[chosen], source.labels[chosen])
        for chosen in (in_train, in_val, in_test)
    )
    return train, val, test


def _digits(config: Data, data_dir: Path) -> ImageData:
    # Inside scikit-learn, whose import would take a second of each start: 1,797 rows, of 8 x 8
    # pixels from 0 to 16 and a label.
    path = Path(find_spec("sklearn").origin).with_name("datasets") / "data" / "digits.csv.gz"
    table = np.loadtxt(path, dtype=np.int64, delimiter=",")
    images = table[:, :-1].reshape(-1, 1, 8, 8).astype(np.uint8)
    train, val, test = split_by_content(
        Split(images, table[:, -1]), config.val_fraction, config.test_fraction
    )
    # Mean and standard deviation of all pixels of the data set, to three digits.
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    return ImageData("digits", train, val, test, 10, (4.884,), (6.017,), files)


def _cifar10(config: Data, data_dir: Path) -> ImageData:
    (images, labels), test = load_cifar10(data_dir)
    train, val, _ = split_by_content(Split(images, labels), config.val_fraction, 0.0)
    # Per channel over the 50,000 training images, as widely used; here in units of 0 … 255.
    mean, std = (125.307, 122.950, 113.865), (62.993, 62.089, 66.705)
    files = {ARCHIVE: SHA256}  # checked at loading
    return ImageData("cifar10", train, val, Split(*test), 10, mean, std, files)


def _unit_hash(image: np.ndarray) -> float:
    digest = hashlib.blake2b(image.tobytes(), digest_size=8, person=b"split").digest()
    return int.from_bytes(digest, "little") / 2**64
