"""The order of the samples as a pure function of (seed, epoch, position).

No permutation is stored: resuming at any step takes the same time and memory for a thousand
samples as for a billion, and there is no loader state to save.
"""

from collections.abc import Iterator

import numpy as np

from .streams import derive

_ROUNDS = 8
_CHUNK = 4096  # positions computed at once: 32 kB, enough to hide NumPy's overhead per call


class Permutation:
    """A keyed bijection of 0 … n-1: a Feistel network, with cycle walking down to `n`.

    Luby and Rackoff, SIAM J. Comput. 17(2), 1988, for the network; Black and Rogaway, "Ciphers
    with arbitrary finite domains", CT-RSA 2002, for the walk. The round function is the finalizer
    of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    """

    def __init__(self, num_samples: int, key: int) -> None:
        assert num_samples >= 1, num_samples
        self.num_samples = num_samples
        bits = max(2, (num_samples - 1).bit_length())
        self._half_bits = (bits // 2, bits - bits // 2)
        self._keys = [np.uint64(derive(key, "round", index)) for index in range(_ROUNDS)]
        # Every round is an even permutation, but half of all permutations are odd.
        self._odd = num_samples > 1 and derive(key, "parity") % 2 == 1

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Sample indices at `positions`, both int64 of the same shape [K]."""
        values = self._encrypt(positions.astype(np.uint64))
        # The network permutes the next power of two; walk until every value is within range.
        while len(outside := np.flatnonzero(values >= self.num_samples)):
            values[outside] = self._encrypt(values[outside])
        if self._odd:  # a transposition of samples 0 and 1
            values[values < 2] ^= np.uint64(1)
        return values.astype(np.int64)

    def _encrypt(self, values: np.ndarray) -> np.ndarray:
        left_bits, right_bits = map(np.uint64, self._half_bits)
        one = np.uint64(1)
        left, right = values >> right_bits, values & ((one << right_bits) - one)
        for index, key in enumerate(self._keys):
            if index % 2:
                right ^= _mix(left + key) & ((one << right_bits) - one)
            else:
                left ^= _mix(right + key) & ((one << left_bits) - one)
        return (left << right_bits) | right


class BatchSampler:
    """Batches of `(epoch, index)` from optimizer step `start` to the last one.

    The index comes with its epoch, so that fetching a sample can key its randomness by both. The
    incomplete last batch of an epoch is dropped; which samples it contains varies by epoch.
    With `accumulate`, each step's batch comes in that many parts of equal size.

    Every part is cut into `num_pieces` equal pieces. Each rank yields its own `pieces`, which are
    neighbours: `batch_size` counts the samples of all ranks, whose slices in order are exactly what
    a single process would yield.

    Raises:
        ValueError: the batch size does not fit the data, the parts or the pieces; or not exactly
            one of `num_epochs` and `num_steps` is given.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        *,
        seed: int,
        num_epochs: int | None = None,
        num_steps: int | None = None,
        start: int = 0,
        accumulate: int = 1,
        pieces: range = range(1),
        num_pieces: int = 1,
    ) -> None:
        if not 1 <= batch_size <= num_samples:
            raise ValueError(
                f"global_batch_size must be at least 1 and at most {num_samples}, the number of "
                f"training samples; got {batch_size}"
            )
        if accumulate < 1 or batch_size % (accumulate * num_pieces):
            raise ValueError(
                "global_batch_size must be a multiple of accumulate times the number of pieces "
                f"(distributed.num_pieces), {accumulate} x {num_pieces}; got {batch_size}"
            )
        if (num_epochs is None) == (num_steps is None):
            raise ValueError("a training has either num_epochs or num_steps; give one of them")
        assert 0 <= pieces.start < pieces.stop <= num_pieces, (pieces, num_pieces)
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.accumulate = accumulate
        piece = batch_size // accumulate // num_pieces
        parts = range(pieces.start * piece, batch_size, piece * num_pieces)
        self.shards = [slice(begin, begin + len(pieces) * piece) for begin in parts]
        self.seed = seed
        self.start = start
        self.steps_per_epoch = num_samples // batch_size
        self.num_steps = num_steps if num_epochs is None else self.steps_per_epoch * num_epochs

    def __len__(self) -> int:
        return (self.num_steps - self.start) * self.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        step = self.start
        while step < self.num_steps:
            epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
            order = Permutation(self.num_samples, derive(self.seed, "shuffle", epoch))
            for batch in self._batches(order, step_in_epoch):
                if step == self.num_steps:
                    return
                for shard in self.shards:
                    yield [(epoch, index) for index in batch[shard]]
                step += 1

    def _batches(self, order: Permutation, first: int) -> Iterator[list[int]]:
        stride = max(1, _CHUNK // self.batch_size)
        for begin in range(first, self.steps_per_epoch, stride):
            end = min(begin + stride, self.steps_per_epoch)
            indices = order(np.arange(begin * self.batch_size, end * self.batch_size))
            yield from indices.reshape(-1, self.batch_size).tolist()


def _mix(values: np.ndarray) -> np.ndarray:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
