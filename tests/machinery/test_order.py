"""The order of the samples is a permutation, a pure function, and shuffles as well as torch's."""

import numpy as np
import pytest
import torch
from real.repro.backend.pieces import share
from real.repro.random.sampler import BatchSampler, Permutation
from scipy.stats import chi2_contingency


@pytest.mark.parametrize("num_samples", [1, 2, 3, 4, 5, 7, 8, 9, 100, 1023, 1024, 1025, 20_000])
def test_every_sample_comes_exactly_once(num_samples):
    """The network and its cycle walking are a bijection of 0 … n-1."""
    order = Permutation(num_samples, key=3)(np.arange(num_samples))
    assert np.array_equal(np.sort(order), np.arange(num_samples))


def test_a_position_does_not_depend_on_what_was_asked_before():
    """Any segment of the order is the same whether or not the start was computed."""
    order = Permutation(1000, key=5)
    assert np.array_equal(order(np.arange(1000))[700:], order(np.arange(700, 1000)))


def cycles(order: np.ndarray) -> int:
    """Number of cycles of a permutation."""
    seen, count = np.zeros(len(order), bool), 0
    for start in range(len(order)):
        count += not seen[start]
        while not seen[start]:
            seen[start] = True
            start = order[start]
    return count


STATISTICS = {
    "fixed points": lambda order: int((order == np.arange(len(order))).sum()),
    "cycles": cycles,
    "ascents": lambda order: int((np.diff(order) > 0).sum()),
    "distance of neighbours": lambda order: int(np.abs(np.diff(order)).sum()),
    "distance from the own place": lambda order: int(np.abs(order - np.arange(len(order))).sum()),
    "first sample": lambda order: int(order[0]),
    "overlap of halves": lambda order: int((order[:50] < 50).sum()),
    "alternation": lambda order: int((np.diff(order % 2) != 0).sum()),
}


@pytest.fixture(scope="module")
def shuffles() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Three thousand orders of 100 samples: ours by key, and `torch.randperm`'s by seed."""
    ours = [Permutation(100, key)(np.arange(100)) for key in range(3000)]
    return ours, [
        torch.randperm(100, generator=torch.Generator().manual_seed(seed)).numpy()
        for seed in range(3000)
    ]


@pytest.mark.parametrize("name", STATISTICS)
def test_orders_are_shuffled_as_well_as_torchs(shuffles, name):
    """A statistic of many orders has the distribution that it has under `torch.randperm`.

    Chi-square of the two histograms; keys and seeds are fixed, so it cannot fail by chance."""
    ours, theirs = ([STATISTICS[name](order) for order in orders] for orders in shuffles)
    edges = np.unique(np.quantile(np.concatenate([ours, theirs]), np.linspace(0, 1, 11)))
    table = np.array([np.histogram(side, edges)[0] for side in (ours, theirs)])
    assert chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue > 0.001


def test_orders_of_neighbouring_keys_are_unrelated(shuffles):
    """Samples at the same place in the orders of successive keys: one in a hundred agrees."""
    orders = np.array(shuffles[0])
    agreeing = (orders[1:] == orders[:-1]).mean()
    assert agreeing == pytest.approx(0.01, abs=0.001)


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


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_the_shards_of_all_ranks_are_the_batches_of_one_process(size):
    """No sample is lost or fetched twice, at any start, and the order does not change; the ranks
    need not have the same number of pieces."""
    how = {"seed": 1, "num_epochs": 3, "start": 4, "num_pieces": 5}
    ranks = [BatchSampler(103, 10, pieces=share(5, rank, size), **how) for rank in range(size)]
    joined = [[key for shard in shards for key in shard] for shards in zip(*ranks, strict=True)]
    assert joined == batches(4)
    with pytest.raises(ValueError, match=r"distributed.num_pieces\), 1 x 3; got 10"):
        BatchSampler(103, 10, seed=1, num_epochs=1, num_pieces=3)


def test_a_billion_samples_take_no_memory_and_no_time():
    """The last batch of 10^9 samples is available at once: nothing of that length is created."""
    sampler = BatchSampler(10**9, 100, seed=0, num_epochs=1, start=10**7 - 1)
    (batch,) = list(sampler)
    assert len({index for _, index in batch}) == 100
    assert all(0 <= index < 10**9 for _, index in batch)


def test_a_batch_larger_than_the_data_is_refused():
    """The message names the key, the limit and the value."""
    with pytest.raises(ValueError, match=r"at most 5, .*got 6"):
        BatchSampler(5, 6, seed=0, num_epochs=1)
