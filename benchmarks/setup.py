"""How long `make setup` takes when nothing changed, in the demo's project (`make demo` makes it).

python benchmarks/setup.py [PROJECT]
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "build" / "demo" / "demo-project"
ROUNDS = 10


def main(project: Path = PROJECT) -> None:
    """Print the median, beside that of a make that does nothing but start this Python."""
    if not (project / ".venv").exists():
        sys.exit("error: the project has no environment; run make demo first")
    command = ["make", "setup", "ACCELERATOR=cpu", f"PYTHON={sys.executable}"]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    times, starts = [], []
    for _ in range(ROUNDS):
        times.append(seconds(command, project))
        starts.append(seconds(["make", "python", f"PYTHON={sys.executable}"], project))
    again, start = statistics.median(times), statistics.median(starts)
    print(f"make setup, nothing changed: {again:.2f} s (median of {ROUNDS}); target: under 1")
    print(f"make setup / make and a Python alone: {again / start:.1f} ({start:.2f} s)")


def seconds(command: list[str], project: Path) -> float:
    """The time that a command takes; it must succeed."""
    begun = time.perf_counter()
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
