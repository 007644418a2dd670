"""What each promise costs: steps per second of the baseline with one switch set otherwise.

Runs in the demo's environment (`make demo` makes it): python benchmarks/costs.py
"""

import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools import demo  # noqa: E402  (the root is not a package)

PROJECT = ROOT / "build" / "demo" / "demo-project"
ROUNDS = 3
VARIANTS = {
    "portable profile": ("determinism.profile=portable",),
    "without deterministic algorithms": ("determinism.deterministic_algorithms=false",),
    "fresh memory filled": ("determinism.fill_uninitialized_memory=true",),
    "a checkpoint every 10 steps, not 100": ("record.checkpoint_every=10",),
    "two threads, not one": ("determinism.num_threads=2",),
}
CODE = """
import sys
sys.path.insert(0, sys.argv[1])
from training_loop import EPOCHS, our_loop
from demo_project.config import load_config
overrides = [f"training.num_epochs={EPOCHS}", *sys.argv[2:]]
print(our_loop(load_config("configs/baseline.yaml", overrides)))
"""


def main() -> None:
    """Interleave all variants with the default, round by round, and print the ratios."""
    python = PROJECT / ".venv" / "bin" / "python"
    if not python.exists():
        sys.exit("error: the demo's environment is missing; run make demo first")

    def speed(*overrides: str) -> float:
        capped = demo.PORTABLE if "determinism.profile=portable" in overrides else {}
        environ = {**os.environ, "MLFLOW_TRACKING_URI": "", "OMP_NUM_THREADS": "1", **capped}
        if "determinism.num_threads=2" in overrides:
            environ["OMP_NUM_THREADS"] = "2"
        command = [python, "-c", CODE, Path(__file__).parent, *overrides]
        done = subprocess.run(
            command, cwd=PROJECT, env=environ, check=True, capture_output=True, text=True
        )
        return float(done.stdout.splitlines()[-1])

    ratios: dict[str, list[float]] = {name: [] for name in VARIANTS}
    again = []
    for _ in range(ROUNDS):
        default = speed()
        for name, overrides in VARIANTS.items():
            ratios[name].append(speed(*overrides) / default)
        again.append(speed() / default)
    ratios["the default again (noise)"] = again
    for name, found in ratios.items():
        middle = statistics.median(found)
        print(f"{name}: {middle:.2f} of the default's speed ({min(found):.2f} to {max(found):.2f})")


if __name__ == "__main__":
    main()
