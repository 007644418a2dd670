"""One long file of characters, never read whole: sequences are cut out of a memory map."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

SUBJECTS = ("the cat", "a dog", "the old man", "every child", "no one")
VERBS = ("sees", "follows", "likes", "finds")
OBJECTS = ("a ball", "the house", "some bread", "a long road", "the sea")
NUM_SENTENCES = 5_000
NUM_SYMBOLS = 128


@dataclass(frozen=True)
class Text:
    """Where the file is, and which of its characters are of the split."""

    path: Path
    begin: int
    end: int

    def open(self) -> np.ndarray:
        return np.memmap(self.path, np.uint8, "r")[self.begin : self.end]


@dataclass(frozen=True)
class Splits:
    train: Text
    val: Text
    sha256: str

    def describe(self) -> dict[str, Any]:
        size = self.val.end
        return {"name": "sentences", "num_samples": size, "sha256": self.sha256}


def load_data(folder: Path) -> Splits:
    """Make the file if it is not there; the last tenth is for validation."""
    path = folder / "sentences.txt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text("".join(_sentence(number) for number in range(NUM_SENTENCES)))
        partial.replace(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    cut = size * 9 // 10
    return Splits(Text(path, 0, cut), Text(path, cut, size), digest)


class Sequences(Dataset):
    """Stretches int64 [context + 1] of the text, fetched by `(epoch, index)`."""

    def __init__(self, text: Text, context: int) -> None:
        self.text, self.context = text, context
        self._characters: np.ndarray | None = None

    def __len__(self) -> int:
        return (self.text.end - self.text.begin - 1) // self.context

    def __getitem__(self, key: tuple[int, int]) -> torch.Tensor:
        if self._characters is None:  # opened by each process for itself
            self._characters = self.text.open()
        begin = key[1] * self.context
        return torch.from_numpy(self._characters[begin : begin + self.context + 1].astype(np.int64))


def _sentence(number: int) -> str:
    draw = int.from_bytes(hashlib.blake2b(f"{number}".encode(), digest_size=8).digest(), "little")
    words = []
    for choices in (SUBJECTS, VERBS, OBJECTS):
        draw, choice = divmod(draw, len(choices))
        words.append(choices[choice])
    return f"{' '.join(words)}.\n"
