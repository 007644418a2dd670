"""`runs` over ten thousand run directories, beside reading and parsing the same manifests.

Both run as whole processes, in turn. Target: below 3 seconds on two cores.
"""

import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.unrendered import copy_package  # noqa: E402  (the template's root is not a package)

COUNT, ROUNDS, PACKAGES = 10_000, 5, 160
PARSE = """
import json, sys
from pathlib import Path
for path in Path(sys.argv[1]).glob("*/manifest.json"):
    json.loads(path.read_text(encoding="utf-8"))
"""
MANIFEST = {
    "schema": 4,
    "project": "bench",
    "run_id": "",
    "command": "python train.py --config configs/baseline.yaml training.num_epochs=5",
    "seed": 42,
    "config": {"seed": 42, "experiment_name": "baseline"},
    "config_sha256": "0" * 64,
    "code": {
        "commit": "0" * 40,
        "dirty": False,
        "diff_sha256": "0" * 64,
        "files": {f"src/bench/m{n}.py": "0" * 64 for n in range(10)},
        "machinery": {"sha256": "0" * 64, "edited": []},
        "template": "0.3.0",
    },
    "data": {"name": "digits", "num_samples": 1797, "sha256": "0" * 64},
    "environment": {
        "python": "3.11.7",
        "platform": "Linux",
        "packages": {f"package-{n}": "1.2.3" for n in range(PACKAGES)},
        "lock_sha256": "0" * 64,
    },
    "hardware": dict.fromkeys(("cpu", "isa", "num_cores", "gpus", "driver", "cuda", "cudnn")),
    "determinism": {},
    "results": {
        "metrics": {"test_loss": 0.1, "test_accuracy": 0.99},
        "best": None,
        "weights_sha256": "0" * 64,
        "logs": {},
        "num_steps": 570,
        "completed": True,
    },
}


def make_runs(folder: Path) -> None:
    """Ten thousand records, of which every tenth was stopped."""
    for number in range(COUNT):
        run_dir = folder / f"20260101-{number % 86400:06d}-baseline-seed{number}-calm-oak"
        run_dir.mkdir(parents=True)
        manifest = copy.deepcopy(MANIFEST)
        manifest |= {"run_id": run_dir.name, "seed": number}
        manifest["results"]["completed"] = number % 10 != 0
        (run_dir / "config.yaml").touch()
        (run_dir / "manifest.json").write_text(json.dumps(manifest, indent=2))


def seconds(*command: object, environ: dict[str, str]) -> float:
    """Wall time of a whole process."""
    started = time.perf_counter()
    subprocess.run(list(map(str, command)), check=True, capture_output=True, env=environ)
    return time.perf_counter() - started


def main() -> None:
    """Print the medians and their ratio."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        copy_package(folder / "src" / "bench")
        make_runs(folder / "outputs")
        environ = {**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONHASHSEED": "0"}
        pairs = [
            (
                seconds(sys.executable, "-m", "bench", "runs", folder / "outputs", environ=environ),
                seconds(sys.executable, "-c", PARSE, folder / "outputs", environ=environ),
            )
            for _ in range(ROUNDS)
        ]
    ours, bare = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"runs of {COUNT}: {ours:.2f} s, parsing alone {bare:.2f} s; {ratio:.2f} times")
    print("target: below 3 s")


if __name__ == "__main__":
    main()
