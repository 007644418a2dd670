"""Seeding reaches every generator and switch, and refuses what is not a seed."""

import random

import numpy as np
import pytest
import torch
from real.config import Training
from real.optim import build_optimizer
from real.repro import env
from real.repro.backend.facts import PORTABLE
from real.repro.backend.sections import Determinism
from real.repro.backend.seeding import (
    read_determinism,
    seed_stream,
    seed_worker,
    set_determinism,
    set_seed,
)
from real.repro.config.base import MAX_SEED
from real.repro.random.streams import SampleStreams, derive


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), torch.rand(()).item()


@pytest.mark.parametrize("seed", [0, 1, MAX_SEED])
def test_a_seed_repeats_all_three_libraries(seed):
    """Python, NumPy and torch draw the same after the same seed; 0 is a seed."""
    set_seed(seed)
    first = draws()
    set_seed(seed)
    assert draws() == first


def test_seed_zero_is_not_seed_one():
    """A falsy seed is honoured, not replaced by a default."""
    set_seed(0)
    zero = draws()
    set_seed(1)
    assert all(a != b for a, b in zip(zero, draws(), strict=True))


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, 1.0, "1", None, True])
def test_what_is_not_a_seed_is_refused_with_the_range(seed):
    """The message says what is allowed and what was given."""
    with pytest.raises(ValueError, match=f"from 0 to {MAX_SEED}, got"):
        set_seed(seed)


def test_the_switches_are_set_and_read_back():
    """What the manifest records is what torch reports, not what was asked for."""
    set_seed(0, Determinism(num_threads=1))
    found = read_determinism()
    assert found["deterministic_algorithms"] is True
    assert found["warn_only"] is False
    assert found["cudnn_benchmark"] is False
    assert found["matmul_precision"] in ("ieee", "highest")
    assert found["num_threads"] == 1
    assert found["environment"]["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_the_record_follows_the_switches():
    """A different value of each switch is read back correctly, and then restored."""
    other = Determinism(
        deterministic_algorithms=False,
        cudnn_benchmark=True,
        matmul_precision="tf32",
        num_threads=2,
        fill_uninitialized_memory=True,
    )
    try:
        set_determinism(other)
        found = read_determinism()
        assert found["deterministic_algorithms"] is found["cudnn_deterministic"] is False
        assert found["cudnn_benchmark"] is found["fill_uninitialized_memory"] is True
        assert found["matmul_precision"] in ("tf32", "high")
        assert found["num_threads"] == 2
    finally:
        set_determinism(Determinism())


def test_the_portable_profile_caps_all_three_libraries():
    """torch and oneDNN at AVX2, MKL at the one mode that is the same for every maker."""
    assert PORTABLE == {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_CBWR": "COMPATIBLE",
    }


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_optimizer_is_the_fused_one(name):
    """The ordinary one divides by a square root that is the processor's own approximation."""
    optimizer = build_optimizer(torch.nn.Linear(2, 2), Training(optimizer=name))
    assert optimizer.defaults["fused"] is True


def test_the_portable_profile_is_refused_where_it_cannot_hold(monkeypatch):
    """torch loaded without its variables, or a CPU without AVX2: one line that says what to do."""
    with pytest.raises(ValueError, match=r"ATEN_CPU_CAPABILITY=avx2 .* before Python"):
        set_determinism(Determinism(profile="portable"))
    monkeypatch.setattr(env, "read_cpu", lambda: ("abacus", {"sse2"}))
    with pytest.raises(ValueError, match=r"CPU with AVX2; this is abacus; use .*profile=fast"):
        env.check_portable()


def test_a_loader_process_seeds_python_and_numpy_from_torchs_seed():
    """Transforms that draw from a global stream repeat for the same torch seed."""
    torch.manual_seed(11)
    seed_worker(0)
    first = draws()[:2]
    torch.manual_seed(11)
    seed_worker(0)
    assert draws()[:2] == first
    torch.manual_seed(12)
    seed_worker(0)
    assert draws()[:2] != first


def test_streams_do_not_collide():
    """Purposes, epochs, indices and seeds each give another key; order of coordinates counts."""
    keys = {
        derive(seed, purpose, epoch, index)
        for seed in range(4)
        for purpose in ("augment", "shuffle")
        for epoch in range(10)
        for index in range(100)
    }
    assert len(keys) == 4 * 2 * 10 * 100
    assert derive(0, "augment", 1, 23) != derive(0, "augment", 12, 3)


def test_a_sample_draws_the_same_whoever_draws_before():
    """A sample's generator is a function of (seed, epoch, index) alone."""
    expected = SampleStreams(0)(2, 5).random(3)
    streams = SampleStreams(0)
    streams(2, 4).random(1000)
    streams(2, 4).integers(3)  # half a word stays buffered
    assert np.array_equal(streams(2, 5).random(3), expected)
    assert not np.array_equal(SampleStreams(1)(2, 5).random(3), expected)


def test_a_step_draws_the_same_whoever_draws_before():
    """Dropout at step 7 does not depend on what was drawn up to there."""
    seed_stream(0, "dropout", 7)
    expected = torch.rand(3)
    torch.rand(1000)
    seed_stream(0, "dropout", 7)
    assert torch.equal(torch.rand(3), expected)
