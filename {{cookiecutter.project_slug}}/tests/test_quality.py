"""Randomness is used well, not just repeatably: what must differ does, and no key is used twice.

One run is watched from inside for each of two seeds, whatever the task.
"""

from pathlib import Path

import numpy as np
import pytest

from {{ cookiecutter.__package }} import load_config, train_model
from {{ cookiecutter.__package }}.repro.testing import watch

SMOKE = Path(__file__).resolve().parents[1] / "configs" / "smoke.yaml"
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    """One watched run per seed."""
    folder = tmp_path_factory.mktemp("watched")
    return [watch(train_model, load_config(SMOKE, seed=s), folder / str(s)) for s in SEEDS]


def test_no_key_is_used_twice(observed):
    """Each generator of a run has its own key; runs of two seeds share none."""
    first, second = (seen.own_keys(seed) for seen, seed in zip(observed, SEEDS, strict=True))
    assert first
    assert len(set(first)) == len(first)
    assert not set(first) & set(second)


def test_an_epoch_takes_no_sample_twice_and_the_next_has_another_order(observed):
    """The order of one epoch says nothing about the next, and starts at any sample."""
    fetched = [key for batch in observed[0].keys for key in batch]
    assert len(set(fetched)) == len(fetched)
    first = [index for epoch, index in fetched if epoch == 0]
    assert abs(np.corrcoef(first, np.arange(len(first)))[0, 1]) < 0.2
    assert observed[0].keys[0] != observed[1].keys[0]
    assert observed[0].first_batch(0) == first[: len(observed[0].keys[0])]
    assert observed[0].first_batch(0) != observed[0].first_batch(1)


def test_a_sample_depends_on_its_key_and_on_nothing_else(observed):
    """Fetched again, in another order, it is the same; if augmented, it differs by epoch."""
    seen = observed[0]
    keys = [(epoch, index) for epoch in (0, 1) for index in range(20)]
    samples = {key: seen.sample(*key) for key in keys}
    assert {key: seen.sample(*key) for key in reversed(keys)} == samples
    moved = sum(samples[0, index] != samples[1, index] for index in range(20))
    assert moved == 0 or moved > 10


def test_evaluation_touches_nothing_that_is_trained(observed):
    """Weights, batch statistics and moments are the same before and after each row."""
    for seen in observed:
        assert seen.evaluations
        assert all(before == after for before, after in seen.evaluations)
