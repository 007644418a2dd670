"""A DataLoader whose batches are a pure function of the step."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from ..random.sampler import BatchSampler
from ..random.streams import derive
from ..signals import ignore_stop_signals
from .patience import check_shared_memory, patience
from .seeding import seed_worker


class Batches:
    """Batches for every step of a training; `Run.steps` iterates over them.

    One iterator covers all epochs, so that loader processes start only once. Any `num_workers`
    and `prefetch_factor` give the same bits.
    """

    def __init__(
        self, dataset: Dataset, sampler: BatchSampler, num_workers: int, prefetch_factor: int
    ) -> None:
        self.num_steps = sampler.num_steps
        self.steps_per_epoch = sampler.steps_per_epoch
        self.accumulate = sampler.accumulate
        patience()  # checked here, before the record is started
        if num_workers:
            share = len(range(sampler.num_samples)[sampler.shards[0]])
            sample = _num_bytes(_first(dataset)) * share
            check_shared_memory(sample * num_workers * prefetch_factor)
        fetches_batches = hasattr(dataset, "__getitems__")
        self._loader = DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=_as_fetched if fetches_batches else default_collate,
            num_workers=num_workers,
            prefetch_factor=prefetch_factor if num_workers else None,
            worker_init_fn=_start_worker,
            # Without its own generator, each iterator would draw from torch's global stream.
            generator=torch.Generator().manual_seed(derive(sampler.seed, "loader", sampler.start)),
            pin_memory=torch.cuda.is_available(),
        )

    def __iter__(self) -> Iterator[Any]:
        return iter(self._loader)

    def epoch(self, step: int) -> int:
        """The epoch that `step` is in; both count from 0."""
        return step // self.steps_per_epoch

    def ends_epoch(self, step: int) -> bool:
        """Whether `step` is the last one of its epoch, or of the training."""
        return (step + 1) % self.steps_per_epoch == 0 or step + 1 == self.num_steps


def _as_fetched(batch: Any) -> Any:
    return batch


def _start_worker(worker_id: int) -> None:
    seed_worker(worker_id)
    ignore_stop_signals()


def _first(dataset: Any) -> Any:
    return dataset[(0, 0)]


def _num_bytes(sample: Any) -> int:
    """Bytes of shared memory that a sample takes; plain numbers are sent another way."""
    if isinstance(sample, torch.Tensor):
        return sample.numel() * sample.element_size()
    if hasattr(sample, "nbytes"):
        return sample.nbytes
    if isinstance(sample, dict):
        return sum(map(_num_bytes, sample.values()))
    if isinstance(sample, (list, tuple)):
        return sum(map(_num_bytes, sample))
    return 8 if isinstance(sample, (int, float)) else 0
