"""One long file of tokens, never read whole: sequences are cut from a memory map. Yours to change.

The tokens of a text are its bytes: no tokenizer to install or to pin, and every language fits.
"""

import codecs
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from .config import Data, Model
from .repro import SampleStreams

SHAKESPEARE = Path(__file__).with_name("shakespeare.txt")
"""Tiny Shakespeare, in the public domain: 40,000 lines, as collected for karpathy/char-rnn."""
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Tokens:
    """A stretch of a file of tokens; it is opened by each process that reads it."""

    path: Path
    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin

    @cached_property
    def array(self) -> np.ndarray:
        """The tokens, unsigned integers [N], mapped into memory."""
        return open_tokens(self.path)[self.begin : self.end]

    def __getstate__(self) -> dict[str, Any]:
        # Loader processes get the path, not the content.
        return {name: value for name, value in self.__dict__.items() if name != "array"}


@dataclass(frozen=True)
class TextData:
    """A file in three disjoint stretches: training, validation and test, in this order."""

    name: str
    train: Tokens
    val: Tokens
    test: Tokens
    sha256: str
    """Digest of the file."""

    def describe(self) -> dict[str, Any]:
        """What the manifest records about the data."""
        return {
            "name": self.name,
            "num_samples": self.test.end,
            "sha256": self.sha256,
            "files": {self.train.path.name: self.sha256},
            "splits": {"val": self.val.begin, "test": self.test.begin},
        }


def load_data(config: Data, data_dir: Path, model: Model | None = None) -> TextData:
    """Check the file that `config` names and split it; a relative path is looked up in `data_dir`.

    Raises:
        ValueError: the file cannot be read, holds no text or tokens, a token that `model` does not
            know, or less than a sequence in one of its splits.
    """
    path = data_dir / config.path if config.path else SHAKESPEARE
    if path.exists() and not path.is_file():
        raise ValueError(f"cannot read {path}: it is not a file")
    try:
        digest = _check_text(path) if path.suffix.lower() == ".txt" else _digest(path)
        tokens = open_tokens(path)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None
    size = len(tokens)
    test = size - round(size * config.test_fraction)
    val = test - round(size * config.val_fraction)
    splits = {"train": (0, val), "val": (val, test), "test": (test, size)}
    if model is not None:
        _check_tokens(path, tokens, model.vocab_size)
        for name, (begin, end) in splits.items():
            if end - begin <= 2 * model.context:
                raise ValueError(
                    f"{path} has {size} tokens, {end - begin} of them for {name}; that takes more "
                    f"than twice model.context, {model.context}"
                )
    stretches = {name: Tokens(path, *ends) for name, ends in splits.items()}
    return TextData(path.stem, **stretches, sha256=digest)


def open_tokens(path: Path) -> np.ndarray:
    """The tokens of a file, mapped into memory: bytes of a text, or the array of a `.npy` file."""
    if path.suffix.lower() == ".txt":
        # An empty file cannot be mapped.
        return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
    if path.suffix.lower() != ".npy":
        raise ValueError(f"{path} is neither a .txt nor a .npy file")
    try:
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception:  # a damaged header fails in many ways
        tokens = None
    if not isinstance(tokens, np.ndarray):  # an archive of several arrays is none, either
        raise ValueError(f"{path} is not an array of NumPy, or is damaged")
    if tokens.ndim != 1 or tokens.dtype.kind != "u":
        raise ValueError(
            f"{path} must hold unsigned integers of one dimension, got {tokens.dtype} of shape "
            f"{tokens.shape}"
        )
    return tokens


class TrainSet(Dataset):
    """Sequences int64 [context + 1] of a stretch, fetched by `(epoch, index)`.

    Each epoch cuts the stretch at other places: a sequence begins up to `context` tokens later.
    """

    def __init__(self, tokens: Tokens, context: int, streams: SampleStreams) -> None:
        self.tokens = tokens
        self.context = context
        self.streams = streams

    def __len__(self) -> int:
        return len(self.tokens) // self.context - 1

    def __getitem__(self, key: tuple[int, int]) -> torch.Tensor:
        begin = key[1] * self.context + int(self.streams(*key).integers(self.context))
        return torch.from_numpy(
            self.tokens.array[begin : begin + self.context + 1].astype(np.int64)
        )


def sequences(tokens: Tokens, context: int) -> torch.Tensor:
    """A whole stretch as sequences int64 [N, context + 1], each beginning where one ends."""
    count = (len(tokens) - 1) // context
    starts = np.arange(count)[:, None] * context + np.arange(context + 1)
    return torch.from_numpy(tokens.array[starts].astype(np.int64))


def _check_text(path: Path) -> str:
    """The digest of a file, which must be UTF-8 text."""
    digest, decoder = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                if b"\0" in block:
                    raise ValueError(f"{path} is a binary file; tokens belong in a .npy file")
                decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text; tokens belong in a .npy file") from None
    return digest.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_tokens(path: Path, tokens: np.ndarray, vocab_size: int) -> None:
    for begin in range(0, len(tokens), _BLOCK):
        highest = int(tokens[begin : begin + _BLOCK].max())
        if highest >= vocab_size:
            raise ValueError(
                f"{path} holds token {highest}; model.vocab_size is {vocab_size}, so it must be "
                "larger"
            )
