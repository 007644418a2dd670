"""The baseline's loop in a project of this version against one of an earlier commit.

By default that before there were ranks: what they cost one process whose batch is one piece. Both
run in the demo's environment (`make demo` makes it), in turn, each run a process of its own:
python benchmarks/versions.py [COMMIT]
"""

import os
import subprocess
import sys
import tempfile
from functools import partial
from itertools import count
from pathlib import Path

from pairs import report

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / "build" / "demo" / "demo-project" / ".venv" / "bin" / "python"
BEFORE_RANKS = "12a026d"
PAIRS, EPOCHS = 14, 60
_numbers = count()


def bake(template: Path, folder: Path) -> Path:
    """A project of a version, by a process of its own: a template's functions are imported once."""
    command = [sys.executable, "-P", "-m", "cookiecutter", template, "--no-input", "-o", folder]
    answers = ["project_slug=demo-project", "stack=torch-2.13.0-cpu"]
    subprocess.run([*command, *answers], check=True, capture_output=True)
    return folder / "demo-project"


def steps_per_second(project: Path, scratch: Path) -> float:
    """From the first entry of the log to the final weights: no imports, no curves."""
    run_dir = scratch / f"run-{next(_numbers)}"
    command = [PYTHON, "train.py", "--config", "configs/baseline.yaml", "--run-dir", run_dir]
    environ = {n: v for n, v in os.environ.items() if not n.startswith("PYTHON")}
    command.append(f"training.num_epochs={EPOCHS}")
    subprocess.run(command, cwd=project, env=environ, check=True, capture_output=True)
    log = run_dir / "steps.jsonl"
    born = subprocess.check_output(["stat", "--format", "%.W", log], text=True)
    seconds = (run_dir / "model.safetensors").stat().st_mtime - float(born)
    return len(log.read_text().splitlines()) / seconds


def main() -> None:
    """Print the ratio; at most 1.05 times as long is at least 0.95 of the speed."""
    if not PYTHON.exists():
        sys.exit("error: the demo's environment is missing; run make demo first")
    commit = sys.argv[1] if sys.argv[1:] else BEFORE_RANKS
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        subprocess.run(["git", "clone", "--quiet", ROOT, scratch / "template"], check=True)
        checkout = ["git", "-C", scratch / "template", "checkout", "--quiet", commit]
        subprocess.run(checkout, check=True)
        now, before = bake(ROOT, scratch / "now"), bake(scratch / "template", scratch / "before")
        speeds = [partial(steps_per_second, project, scratch) for project in (now, before)]
        report(f"that of {commit}", *speeds, target=0.95, rounds=PAIRS)


if __name__ == "__main__":
    main()
