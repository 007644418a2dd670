"""Batches that are a pure function of the step, fetched by any number of threads.

Not by `tf.data`: a deterministic TensorFlow executes a map with Python inside one call at a time,
and the same batches cost it three to five times as much.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np

from ..random.sampler import BatchSampler
from .patience import patience

GRACE = 1
"""Seconds that the threads have to end with the loop."""


class Batches:
    """Batches for every step of a training; `Run.steps` iterates over them.

    The data set is asked by several threads at once: `SampleStreams` has a generator for each. Any
    `num_workers` and `prefetch_factor` give the same bits.
    """

    def __init__(
        self, dataset: Any, sampler: BatchSampler, num_workers: int, prefetch_factor: int
    ) -> None:
        self.num_steps = sampler.num_steps
        self.steps_per_epoch = sampler.steps_per_epoch
        self.accumulate = sampler.accumulate
        patience()  # checked here, before the record is started
        self._dataset, self._sampler = dataset, sampler
        self._num_threads, self._ahead = num_workers, num_workers * prefetch_factor

    def __iter__(self) -> Iterator[Any]:
        if self._num_threads:
            return self._by_threads()
        return (fetch(self._dataset, keys) for keys in self._sampler)

    def _by_threads(self) -> Iterator[Any]:
        todo: queue.SimpleQueue[tuple[Future[Any], Any] | None] = queue.SimpleQueue()
        # Daemons: one that waits for a disk which is gone must not keep the program from ending.
        threads = [
            threading.Thread(
                target=_work, args=(self._dataset, todo), name=f"loader-{number}", daemon=True
            )
            for number in range(self._num_threads)
        ]
        waiting: deque[Future[Any]] = deque()
        try:
            for thread in threads:
                thread.start()
            for keys in self._sampler:
                waiting.append(Future())
                todo.put((waiting[-1], keys))
                if len(waiting) > self._ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            for _ in threads:
                todo.put(None)
            # One that is still in somebody's C++ when the interpreter ends would abort it.
            deadline = time.monotonic() + GRACE
            for thread in threads:
                if thread.ident is not None:
                    thread.join(max(0.0, deadline - time.monotonic()))

    def epoch(self, step: int) -> int:
        """The epoch that `step` is in; both count from 0."""
        return step // self.steps_per_epoch

    def ends_epoch(self, step: int) -> bool:
        """Whether `step` is the last one of its epoch, or of the training."""
        return (step + 1) % self.steps_per_epoch == 0 or step + 1 == self.num_steps


def _work(dataset: Any, todo: "queue.SimpleQueue[tuple[Future[Any], Any] | None]") -> None:
    while (task := todo.get()) is not None:
        future, keys = task
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(fetch(dataset, keys))
        except BaseException as error:  # raised where the batch is taken
            future.set_exception(error)


def fetch(dataset: Any, keys: list[tuple[int, int]]) -> Any:
    """The samples of `(epoch, index)` as a batch, by the data set's `__getitems__` if it has one.

    Raises:
        ValueError: the samples cannot be stacked.
    """
    if hasattr(dataset, "__getitems__"):
        return dataset.__getitems__(keys)
    return _stacked([dataset[key] for key in keys])


def _stacked(samples: list[Any]) -> Any:
    first = samples[0]
    if isinstance(first, dict):
        return {key: _stacked([each[key] for each in samples]) for key in first}
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(_stacked([*each]) for each in zip(*samples, strict=True)))
    if isinstance(first, (list, tuple)):
        return type(first)(_stacked([*each]) for each in zip(*samples, strict=True))
    return np.stack([np.asarray(each) for each in samples])
