"""Batches by any number of threads: the same, in order, and nothing waits for ever."""

import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from real.repro import SampleStreams
from real.repro.backend.loader import Batches, fetch
from real.repro.backend.patience import take
from real.repro.random.sampler import BatchSampler
from real.repro.signals import StopRequest


class Noise:
    """Samples that draw, one by one, at uneven speed."""

    def __init__(self, streams):
        self.streams, self.threads = streams, set()

    def __len__(self):
        return 40

    def __getitem__(self, key):
        epoch, index = key
        self.threads.add(threading.current_thread().name)
        time.sleep(0.001 * (index % 3))
        return self.streams(epoch, index).random(5), index


def batches(dataset, num_workers, start=0):
    sampler = BatchSampler(40, 8, seed=1, num_epochs=3, start=start)
    return Batches(dataset, sampler, num_workers, 2)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_any_number_of_threads_gives_the_same_batches(num_workers):
    """From the beginning, and from a step in the middle; by as many threads as asked for."""
    alone = [*batches(Noise(SampleStreams(0)), 0)]
    dataset = Noise(SampleStreams(0))
    found = [*batches(dataset, num_workers)]
    assert len(found) == len(alone) == 15
    for ours, theirs in zip(found, alone, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert len(dataset.threads) == num_workers
    later = [*batches(Noise(SampleStreams(0)), num_workers, start=7)]
    assert np.array_equal(later[0][0], alone[7][0])


def test_streams_may_be_asked_by_many_threads_at_once():
    """Each has a generator of its own."""
    streams = SampleStreams(5)
    keys = [(epoch, index) for epoch in range(3) for index in range(200)]
    alone = [SampleStreams(5)(*key).random(3).tolist() for key in keys]
    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(lambda key: streams(*key).random(3).tolist(), keys)] == alone


def test_an_error_of_the_data_set_is_raised_where_the_batch_is_taken():
    """With its own type, however many batches were asked for ahead."""

    class Broken(Noise):
        def __getitem__(self, key):
            if key[1] == 13:
                raise KeyError("thirteen")
            return super().__getitem__(key)

    for num_workers in (0, 2):
        with pytest.raises(KeyError, match="thirteen"):
            list(batches(Broken(SampleStreams(0)), num_workers))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_batch_that_never_comes_ends_the_loop(monkeypatch, num_workers):
    """After LOADER_PATIENCE, with a sentence; the thread that waits is left behind."""
    monkeypatch.setenv("LOADER_PATIENCE", "0.3")
    told = threading.Event()

    class Stuck(Noise):
        def __getitem__(self, key):
            if len(self.threads) and key[1] == 13:
                told.wait(60)
            return super().__getitem__(key)

    with StopRequest() as stop:
        started = time.monotonic()
        list(take(batches(Stuck(SampleStreams(0)), num_workers), stop))
        assert time.monotonic() - started < 30
    told.set()
    assert "no batch came for 0.3 seconds" in stop.failure


def test_threads_end_with_the_loop():
    """Also one that is left early."""
    for taken in (2, 15):
        iterator = iter(batches(Noise(SampleStreams(0)), 3))
        for _ in range(taken):
            next(iterator)
        iterator.close()
        deadline = time.monotonic() + 5
        while any(t.name.startswith("loader-") for t in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_samples_of_any_kind_are_stacked():
    """Numbers, arrays, tuples, dictionaries, named tuples."""
    Pair = namedtuple("Pair", "image label")

    class Kinds:
        def __getitem__(self, key):
            index = key[1]
            return {"pair": Pair(np.full((2, 2), index), index), "more": (index, [np.ones(3)])}

    batch = fetch(Kinds(), [(0, 4), (0, 7)])
    assert batch["pair"].image.shape == (2, 2, 2)
    assert batch["pair"].label.tolist() == [4, 7]
    assert batch["more"][0].tolist() == [4, 7]
    assert batch["more"][1][0].shape == (2, 3)
