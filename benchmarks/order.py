"""The order of the samples: computed, against `torch.randperm`, which stores it.

Runs in the demo's environment (`make demo` makes it): python benchmarks/order.py
Each figure comes from a process of its own, so that its memory is its own.
"""

import resource
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "build" / "demo" / "demo-project"
SIZES = (10**6, 10**8, 10**9)
STRETCH = 10**7  # positions that are computed where an epoch would take minutes
BATCH = 100


def main() -> None:
    """Print first batch, throughput and memory of both, and what a resume costs."""
    python = PROJECT / ".venv" / "bin" / "python"
    if not python.exists():
        sys.exit("error: the demo's environment is missing; run make demo first")
    for task in ("computed", "stored"):
        for size in SIZES:
            subprocess.run([python, __file__, task, str(size)], cwd=PROJECT, check=True)
    subprocess.run([python, __file__, "resume", str(10**7)], cwd=PROJECT, check=True)


def memory() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def computed(size: int) -> None:
    """Our order: the first batch, then a stretch of the epoch."""
    from demo_project.repro.random.sampler import BatchSampler

    before = memory()
    started = time.perf_counter()
    batches = iter(BatchSampler(size, BATCH, seed=0, num_epochs=1))
    next(batches)
    first = time.perf_counter() - started
    stretch = min(size, STRETCH)
    started = time.perf_counter()
    for _ in islice(batches, stretch // BATCH - 1):
        pass
    each = (time.perf_counter() - started) / stretch * 1e9
    report("computed", size, first, each, memory() - before)


def stored(size: int) -> None:
    """torch's: the whole permutation first, then lists of it, as its samplers yield them."""
    import torch

    before = memory()
    started = time.perf_counter()
    order = torch.randperm(size, generator=torch.Generator().manual_seed(0))
    order[:BATCH].tolist()
    first = time.perf_counter() - started
    stretch = min(size, STRETCH)
    started = time.perf_counter()
    for begin in range(BATCH, stretch, BATCH):
        [(0, index) for index in order[begin : begin + BATCH].tolist()]
    each = (time.perf_counter() - started) / stretch * 1e9
    report("stored", size, first, each, memory() - before)


def report(name: str, size: int, first: float, each: float, megabytes: float) -> None:
    print(
        f"{name:>8}, 10^{len(str(size)) - 1} samples: first batch after {first * 1e3:.1f} ms, "
        f"then {each:.0f} ns a sample; {megabytes:.0f} MB"
    )


def resume(size: int) -> None:
    """The first batch after 90 % of an epoch: computed there, or reached by skipping batches."""
    import torch
    from demo_project.repro.random.sampler import BatchSampler
    from torch.utils import data

    position = size // BATCH * 9 // 10
    times = []
    for _ in range(5):
        started = time.perf_counter()
        next(iter(BatchSampler(size, BATCH, seed=0, num_epochs=1, start=position)))
        times.append(time.perf_counter() - started)
    ours = sorted(times)[2]
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(0)
    sampler = data.RandomSampler(range(size), generator=generator)
    next(islice(iter(data.BatchSampler(sampler, BATCH, drop_last=True)), position, None))
    skipping = time.perf_counter() - started
    print(
        f"resume at 90 % of 10^{len(str(size)) - 1} samples: {ours * 1e3:.2f} ms computed, "
        f"{skipping:.2f} s skipping batches in the sampler; ratio {skipping / ours:.0f}"
    )


if __name__ == "__main__":
    if sys.argv[1:]:
        {"computed": computed, "stored": stored, "resume": resume}[sys.argv[1]](int(sys.argv[2]))
    else:
        main()
