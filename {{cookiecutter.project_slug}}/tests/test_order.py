"""The order of the samples is a permutation, a pure function, and shuffles as well as torch's."""

import numpy as np
import pytest

from {{ cookiecutter.__package }}.order import BatchSampler, Permutation


@pytest.mark.parametrize("num_samples", [1, 2, 3, 4, 5, 7, 8, 9, 100, 1023, 1024, 1025, 20_000])
def test_every_sample_comes_exactly_once(num_samples):
    """The network and its cycle walking are a bijection of 0 … n-1."""
    order = Permutation(num_samples, key=3)(np.arange(num_samples))
    assert np.array_equal(np.sort(order), np.arange(num_samples))


def test_a_position_does_not_depend_on_what_was_asked_before():
    """Any stretch of the order is the same whether or not the start was computed."""
    order = Permutation(1000, key=5)
    assert np.array_equal(order(np.arange(1000))[700:], order(np.arange(700, 1000)))


def test_positions_are_uniform_over_many_keys():
    """Chi-square over (position, value) for 4,000 keys of a set of 10: as a random shuffle's."""
    counts = np.zeros((10, 10))
    for key in range(4000):
        counts[np.arange(10), Permutation(10, key)(np.arange(10))] += 1
    chi_square = ((counts - 400) ** 2 / 400).sum()
    # 81 degrees of freedom: mean 81, standard deviation 12.7; five of them either way.
    assert 81 - 5 * 12.7 < chi_square < 81 + 5 * 12.7


def test_neighbours_are_as_far_apart_as_in_a_random_shuffle():
    """Mean distance of successive values: a third of n, as for independent draws."""
    distances = [
        np.abs(np.diff(Permutation(5000, key)(np.arange(5000)))).mean() for key in range(9)
    ]
    assert np.mean(distances) == pytest.approx(5000 / 3, rel=0.02)


def batches(start: int) -> list[list[tuple[int, int]]]:
    return list(BatchSampler(103, 10, seed=1, num_epochs=3, start=start))


@pytest.mark.parametrize("start", [0, 1, 9, 10, 17, 29, 30])
def test_a_resumed_sampler_yields_what_was_left(start):
    """Starting at a step gives the rest of the uninterrupted sequence."""
    assert batches(start) == batches(0)[start:]


def test_epochs_differ_and_cover_distinct_samples():
    """Within an epoch no sample repeats; the next epoch has another order."""
    epochs = [
        [index for batch in batches(0)[e * 10 : e * 10 + 10] for _, index in batch] for e in (0, 1)
    ]
    assert all(len(set(epoch)) == 100 for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_a_batch_larger_than_the_data_is_refused():
    """The message names the key, the limit and the value."""
    with pytest.raises(ValueError, match=r"at most 5, .*got 6"):
        BatchSampler(5, 6, seed=0, num_epochs=1)
