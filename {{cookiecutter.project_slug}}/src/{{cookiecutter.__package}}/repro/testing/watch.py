"""Watches a run from inside: its random keys, its samples, and side effects of evaluation."""

import random
import sys
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..backend import loader
from ..backend.state import capture, digest
from ..backend.watch import FRAMEWORK, SEEDINGS, watch_generators
from ..files import PROJECT
from ..random.sampler import BatchSampler
from ..run.lifecycle import Result, Run

OWN = (PROJECT, *FRAMEWORK)
"""Whose calls seed the generators of a run."""


@dataclass
class Observed:
    """What happened in a run, in order."""

    result: Result | None = None
    seedings: list[tuple[str, Any]] = field(default_factory=list)
    """Each generator that was seeded, and its key."""
    keys: list[list[tuple[int, int]]] = field(default_factory=list)
    """The `(epoch, index)` of each batch, or of each part of it."""
    dataset: Any = None
    sampler: BatchSampler | None = None
    evaluations: list[tuple[str, str]] = field(default_factory=list)
    """Digest of everything that is trained, after each step followed by a row, and at that row."""

    def own_keys(self, seed: int) -> list[int]:
        """Every key that a generator was given, except the initial seeding of each library.

        Raises:
            AssertionError: the seed did not reach a library, or a generator has a random seed.
        """
        rest = list(self.seedings)
        for entry in [(name, seed) for name in SEEDINGS]:
            assert entry in rest, f"set_seed did not reach every library: {entry} is missing"
            rest.remove(entry)
        assert all(key is not None for _, key in rest), "a generator was seeded by the system"
        return [int(key) for _, key in rest]

    def sample(self, epoch: int, index: int) -> str:
        """Fetch a sample of the data set and return its digest."""
        return digest({"sample": self.dataset[epoch, index]})

    def first_batch(self, epoch: int) -> list[int]:
        """Indices of the first batch of an epoch, or of its first part; even of one not run."""
        sampler = copy(self.sampler)
        sampler.start = epoch * sampler.steps_per_epoch
        sampler.num_steps = sampler.start + 1
        return [index for _, index in next(iter(sampler))]


def watch(train: Callable[..., Result], config: Any, run_dir: Path) -> Observed:
    """Call the project's own `train(config, run_dir=run_dir)` in this process."""
    seen = Observed()
    with pytest.MonkeyPatch.context() as patch:
        _watch_seeding(patch, seen)
        _watch_run(patch, seen)
        seen.result = train(config, run_dir=run_dir)
    return seen


def _watch_seeding(patch: pytest.MonkeyPatch, seen: Observed) -> None:
    def note(name: str, key: Any) -> None:
        # Other libraries have generators of their own: for names of temporary files, or made once
        # and for all while they are imported.
        if sys._getframe(2).f_globals.get("__name__", "").startswith(OWN):
            seen.seedings.append((name, key))

    def listen(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def heard(*arguments: Any, **named: Any) -> Any:
            note(name, arguments[0] if arguments else next(iter(named.values()), None))
            return function(*arguments, **named)

        patch.setattr(owner, name, heard)

    class Philox(np.random.Philox):
        @property
        def state(self) -> dict[str, Any]:
            return super().state

        @state.setter
        def state(self, value: dict[str, Any]) -> None:
            first, second = map(int, value["state"]["key"])
            note("Philox.state", first << 64 | second)
            super(Philox, type(self)).state.__set__(self, value)

    class Random(random.Random):
        def __init__(self, key: Any = None) -> None:
            note("Random", key)
            super().__init__(key)

    listen(random, "seed")
    for name in ("seed", "default_rng", "PCG64"):
        listen(np.random, name)
    patch.setattr(np.random, "Philox", Philox)
    patch.setattr(random, "Random", Random)
    watch_generators(patch, note)


def _watch_run(patch: pytest.MonkeyPatch, seen: Observed) -> None:
    log_step, log_metrics = Run.log_step, Run.log_metrics
    order, batches = BatchSampler.__iter__, loader.Batches.__init__
    after_step = ""

    def watched_step(run: Run, **numbers: Any) -> None:
        nonlocal after_step
        log_step(run, **numbers)
        after_step = _trained(run)

    def watched_metrics(run: Run, **numbers: Any) -> None:
        seen.evaluations.append((after_step, _trained(run)))
        log_metrics(run, **numbers)

    def watched_order(sampler: BatchSampler) -> Any:
        seen.sampler = sampler
        for keys in order(sampler):
            seen.keys.append(keys)
            yield keys

    def watched_batches(self: loader.Batches, dataset: Any, *rest: Any) -> None:
        seen.dataset = dataset
        batches(self, dataset, *rest)

    patch.setattr(Run, "log_step", watched_step)
    patch.setattr(Run, "log_metrics", watched_metrics)
    patch.setattr(BatchSampler, "__iter__", watched_order)
    patch.setattr(loader.Batches, "__init__", watched_batches)


def _trained(run: Run) -> str:
    return digest(capture(run._objects))
