"""Two speeds measured in turn, and their ratio pair by pair: what the benchmarks print alike."""

import statistics
from collections.abc import Callable


def report(
    name: str,
    ours: Callable[[], float],
    theirs: Callable[[], float],
    *,
    target: float | None,
    rounds: int,
) -> None:
    """Run both in turn, the first pair to warm up, and print medians, ratio and target."""
    pairs = [(ours(), theirs()) for _ in range(rounds + 1)][1:]
    a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = [first / second for first, second in pairs]
    print(f"train_model: {a:.0f} steps/s, {name}: {b:.0f} (medians of {rounds} pairs)")
    print(
        f"train_model / {name}: {statistics.median(ratios):.3f} "
        f"(from {min(ratios):.3f} to {max(ratios):.3f})"
        + (f"; target: at least {target}" if target else "")
    )
