"""What `verify --segments 3` costs for a run, and for one ten times as long.

Runs in the demo's environment (`make demo` makes it): python benchmarks/segments.py
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "build" / "demo" / "demo-project"
EPOCHS = (4, 40)
ROUNDS = 3


def main() -> None:
    """Train both, then verify three segments of each in turn."""
    python = PROJECT / ".venv" / "bin" / "python"
    if not python.exists():
        sys.exit("error: the demo's environment is missing; run make demo first")

    def command(*arguments: object) -> float:
        started = time.perf_counter()
        subprocess.run(
            [python, "-m", "demo_project", *map(str, arguments)],
            cwd=PROJECT,
            env={**os.environ, "MLFLOW_TRACKING_URI": ""},
            check=True,
            capture_output=True,
        )
        return time.perf_counter() - started

    with tempfile.TemporaryDirectory() as scratch:
        runs = {epochs: Path(scratch) / str(epochs) for epochs in EPOCHS}
        for epochs, run_dir in runs.items():
            keep = ("record.keep_checkpoints=1000", "record.checkpoint_every=19")
            config = ("--config", "configs/baseline.yaml", "--run-dir", run_dir)
            seconds = command("train", *config, f"training.num_epochs={epochs}", *keep)
            print(f"{epochs} epochs, {19 * epochs} steps: trained in {seconds:.1f} s")
        pairs = [
            [command("verify", runs[epochs], "--segments", 3) for epochs in EPOCHS]
            for _ in range(ROUNDS)
        ]
    short, long = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"verify --segments 3: {short:.1f} s, and {long:.1f} s for ten times the steps")
    print(f"long / short: {ratio:.2f} (median of {ROUNDS} pairs); target: 1.0, at most 1.15")


if __name__ == "__main__":
    main()
