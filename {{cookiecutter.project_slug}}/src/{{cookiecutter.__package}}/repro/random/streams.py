"""One seed, many independent streams: keys derived from the seed, a purpose and coordinates.

Randomness is stateless: each draw is a function of the seed, a purpose and coordinates such as
(epoch, index) or the step. Nothing has to be saved to resume, the number of loader processes
cannot matter, and evaluation or logging cannot affect training. JAX's keys follow the same idea
(JEP 263).

Purposes used by the machinery itself: `shuffle` (epoch) and `loader` (first step).
"""

import hashlib
import threading
from typing import Any

import numpy as np

from ..config.base import MAX_SEED


def check_seed(seed: int) -> None:
    """Raise a `ValueError` unless `seed` is a whole number that all generators accept."""
    if type(seed) is not int or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed must be a whole number from 0 to {MAX_SEED}, got {seed!r}")


def derive(seed: int, *path: str | int) -> int:
    """A 63-bit key for the stream `path` of `seed`, such as `derive(0, "augment", epoch, index)`.

    Hashed, not added: `seed + epoch + worker` gives the same key to different coordinates, and
    torch's CPU generator keeps only the low 32 bits of its seed.
    """
    text = ":".join(map(str, (seed, *path)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


class SampleStreams:
    """A generator for each sample in each epoch: counter-based, so it can start anywhere.

    A single generator is reset to the start of each stream: this takes a microsecond, creating one
    takes ten. So finish drawing for one sample before asking for the next. Each loader process or
    thread has its own.

    Philox 4x64-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """

    def __init__(self, seed: int, purpose: str = "augment") -> None:
        self._seed, self._purpose = seed, purpose
        self._here = threading.local()

    def __call__(self, epoch: int, index: int) -> np.random.Generator:
        try:
            stream = self._here.stream
        except AttributeError:  # this thread's first
            stream = self._here.stream = _Stream(self._seed, self._purpose)
        return stream.at(epoch, index)

    def __reduce__(self) -> tuple[Any, ...]:
        # Sent to a loader process; what belongs to a thread stays here.
        return SampleStreams, (self._seed, self._purpose)


class _Stream:
    def __init__(self, seed: int, purpose: str) -> None:
        self._seed, self._purpose = seed, purpose
        self._epoch = -1
        self._bits = np.random.Philox(key=derive(seed, purpose))
        self._start = self._bits.state  # counter at zero, nothing buffered
        self._key = self._start["state"]["key"]  # two words: the epoch's key, and the index
        self._rng = np.random.Generator(self._bits)

    def at(self, epoch: int, index: int) -> np.random.Generator:
        if epoch != self._epoch:
            self._epoch, self._key[0] = epoch, derive(self._seed, self._purpose, epoch)
        self._key[1] = index
        self._bits.state = self._start
        return self._rng
