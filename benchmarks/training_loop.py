"""The whole training loop against plain ones: as a tutorial has it, and with our own switches.

Runs inside the demo's environment (`make demo` makes it): python benchmarks/training_loop.py
"""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pairs import report

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "build" / "demo" / "demo-project"
ROUNDS = 7
EPOCHS = 20


def main() -> None:
    """Start the comparison in the demo's environment, since torch lives there."""
    python = PROJECT / ".venv" / "bin" / "python"
    if not python.exists():
        sys.exit("error: the demo's environment is missing; run make demo first")
    subprocess.run([python, __file__, "inside"], cwd=PROJECT, check=True)
    command = [python, "-m", "demo_project", "--help"]
    times = []
    for _ in range(10):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    median = statistics.median(times)
    print(f"python -m demo_project --help: {median:.3f} s (median of 10); target: under 0.3")


def our_batches(config, data):
    """The batches that a run takes, without the run: the same samples in the same order."""
    from demo_project.data import TrainSet
    from demo_project.repro import Batches, SampleStreams
    from demo_project.repro.random.sampler import BatchSampler

    size = config.training.global_batch_size
    sampler = BatchSampler(len(data.train), size, seed=config.seed, num_epochs=EPOCHS)
    samples = TrainSet(data.train, config.data, SampleStreams(config.seed, "augment"))
    return Batches(samples, sampler, config.data.num_workers, config.data.prefetch_factor)


def plain_loop(config, *, bare: bool) -> float:
    """Steps per second of a loop that trains and does nothing else.

    With our loader and switches; or `bare`, as a tutorial has it: torch's defaults, a shuffling
    `DataLoader` that fetches sample by sample, augmentation from one generator. Model, optimizer
    and threads are ours.
    """
    import numpy as np
    import torch
    import torch.nn.functional as F
    from demo_project.data import load_data
    from demo_project.model import build_model
    from demo_project.optim import build_optimizer
    from demo_project.repro import set_seed
    from torch.nn.utils import clip_grad_norm_
    from torch.utils.data import DataLoader, Dataset

    class Plain(Dataset):
        def __init__(self, split) -> None:
            self.split = split
            self.random = np.random.default_rng()

        def __len__(self) -> int:
            return len(self.split)

        def __getitem__(self, index: int):
            image, shift = self.split.images[index], config.data.max_shift
            _, height, width = image.shape
            padded = np.zeros((len(image), height + 2 * shift, width + 2 * shift), image.dtype)
            padded[:, shift : shift + height, shift : shift + width] = image
            top, left = self.random.integers(2 * shift + 1, size=2)
            moved = padded[:, top : top + height, left : left + width]
            return torch.from_numpy(moved), int(self.split.labels[index])

    set_seed(config.seed, config.determinism)
    data = load_data(config.data, Path("data"))
    settings = config.training
    if bare:
        torch.use_deterministic_algorithms(False)
        size = settings.global_batch_size
        epoch = DataLoader(Plain(data.train), batch_size=size, shuffle=True, drop_last=True)
        loader = itertools.chain.from_iterable(epoch for _ in range(EPOCHS))
    else:
        loader = our_batches(config, data)
    model = build_model(config.model, num_classes=10, mean=data.mean, std=data.std)
    optimizer = build_optimizer(model, settings)
    model.train()
    num_steps = 0
    started = time.perf_counter()
    for images, labels in loader:
        loss = F.cross_entropy(model(images), labels, label_smoothing=settings.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
        num_steps += 1
    assert torch.are_deterministic_algorithms_enabled() is not bare
    return num_steps / (time.perf_counter() - started)


def our_loop(config) -> float:
    """Steps per second of `train_model`'s loop: log, checkpoints and bar on; evaluation apart."""
    from demo_project import train

    marks: list[float] = []
    evaluation = 0.0
    original_evaluate, original_steps = train.evaluate, train.Run.steps

    def evaluate(*arguments):
        nonlocal evaluation
        begun = time.perf_counter()
        result = original_evaluate(*arguments)
        evaluation += time.perf_counter() - begun
        return result

    def steps(run, batches):
        # Between the two marks lies each turn of the loop, with what the run does after it.
        marks.append(time.perf_counter())
        yield from original_steps(run, batches)
        marks.append(time.perf_counter() - evaluation)

    train.evaluate, train.Run.steps = evaluate, steps
    try:
        with tempfile.TemporaryDirectory() as scratch:
            result = train.train_model(config, run_dir=Path(scratch) / "run")
            manifest = json.loads((result.run_dir / "manifest.json").read_text())
    finally:
        train.evaluate, train.Run.steps = original_evaluate, original_steps
    return manifest["results"]["num_steps"] / (marks[1] - marks[0])


def inside() -> None:
    """Hold our loop against both, in turn."""
    from demo_project.config import load_config

    config = load_config("configs/baseline.yaml", [f"training.num_epochs={EPOCHS}"])
    for name, bare, target in (
        ("bare loop", True, 0.95),
        ("loop with our loader and switches", False, None),  # what the records alone cost
    ):
        report(
            name,
            lambda: our_loop(config),
            lambda bare=bare: plain_loop(config, bare=bare),
            target=target,
            rounds=ROUNDS,
        )


if __name__ == "__main__":
    inside() if sys.argv[1:] == ["inside"] else main()
