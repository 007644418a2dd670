"""The training loop against a plain PyTorch loop: same model, loader and determinism flags.

Runs inside the demo's environment (`make demo` makes it): python benchmarks/training_loop.py
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def plain_loop(config) -> float:
    """Steps per second of a loop that trains and does nothing else."""
    import torch
    import torch.nn.functional as F
    from demo_project.data import build_loader, load_data
    from demo_project.model import build_model
    from demo_project.optim import build_optimizer
    from demo_project.order import BatchSampler
    from demo_project.seeding import set_seed
    from torch.nn.utils import clip_grad_norm_

    set_seed(config.seed, config.determinism)
    data = load_data(config.data, Path("data"))
    settings = config.training
    sampler = BatchSampler(
        len(data.train), settings.global_batch_size, seed=config.seed, num_epochs=EPOCHS
    )
    model = build_model(config.model, num_classes=10, mean=data.mean, std=data.std)
    optimizer = build_optimizer(model, settings)
    model.train()
    num_steps = 0
    started = time.perf_counter()
    for images, labels in build_loader(data.train, config.data, sampler):
        loss = F.cross_entropy(model(images), labels, label_smoothing=settings.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
        num_steps += 1
    assert torch.are_deterministic_algorithms_enabled()
    return num_steps / (time.perf_counter() - started)


def our_loop(config) -> float:
    """Steps per second of `train_model`'s loop: log, checkpoints and bar on; evaluation apart."""
    from demo_project import train

    marks: list[float] = []
    evaluation = 0.0
    original_evaluate, original_loader = train.evaluate, train.build_loader

    def evaluate(*arguments):
        nonlocal evaluation
        begun = time.perf_counter()
        result = original_evaluate(*arguments)
        evaluation += time.perf_counter() - begun
        return result

    def timed(loader):
        marks.append(time.perf_counter())
        yield from loader
        marks.append(time.perf_counter() - evaluation)

    train.evaluate = evaluate
    train.build_loader = lambda *arguments: timed(original_loader(*arguments))
    try:
        with tempfile.TemporaryDirectory() as scratch:
            result = train.train_model(config, run_dir=Path(scratch) / "run")
            manifest = json.loads((result.run_dir / "manifest.json").read_text())
    finally:
        train.evaluate, train.build_loader = original_evaluate, original_loader
    return manifest["results"]["num_steps"] / (marks[1] - marks[0])


def inside() -> None:
    """Run both loops in turn and print the ratio, pair by pair."""
    from demo_project.config import load_config

    config = load_config("configs/baseline.yaml", [f"training.num_epochs={EPOCHS}"])
    pairs = [(our_loop(config), plain_loop(config)) for _ in range(ROUNDS + 1)][1:]
    ours, plain = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = [a / b for a, b in pairs]
    print(f"train_model: {ours:.0f} steps/s, plain loop: {plain:.0f} (medians of {ROUNDS} pairs)")
    print(
        f"train_model / plain: {statistics.median(ratios):.3f} "
        f"(from {min(ratios):.3f} to {max(ratios):.3f}); target: at least 0.95"
    )


if __name__ == "__main__":
    inside() if sys.argv[1:] == ["inside"] else main()
