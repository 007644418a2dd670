"""Generation against cookiecutter's own cost: a bake here beside one of a one-file template.

Both run as whole processes, in turn; the ratio is taken pair by pair. Target: at most 1.4.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 15


def bare_template(folder: Path) -> Path:
    """A template of one file and one question."""
    project = folder / "bare" / "{{cookiecutter.project_slug}}"
    project.mkdir(parents=True)
    (project / "README.md").write_text("# {{ cookiecutter.project_slug }}\n")
    (folder / "bare" / "cookiecutter.json").write_text(json.dumps({"project_slug": "probe"}))
    return folder / "bare"


def seconds(template: Path, out: Path) -> float:
    """Wall time of one whole cookiecutter process."""
    command = [sys.executable, "-m", "cookiecutter", str(template), "--no-input"]
    started = time.perf_counter()
    subprocess.run([*command, "-o", str(out)], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Print both medians and the median of the ratios."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bare = bare_template(folder)
        pairs = []
        for round_ in range(ROUNDS + 1):
            out = folder / str(round_)
            pairs.append((seconds(ROOT, out / "this"), seconds(bare, out / "bare")))
        pairs = pairs[1:]  # the first pair warms the file cache
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = [a / b for a, b in pairs]
    low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
    print(f"bake: {ours:.3f} s, bare cookiecutter: {theirs:.3f} s (medians of {ROUNDS} pairs)")
    print(f"bake / bare: {middle:.2f} (from {low:.2f} to {high:.2f}); target: at most 1.4")


if __name__ == "__main__":
    main()
