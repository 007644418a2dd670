"""Execute a run again from its manifest, in a fresh process, and compare every step and weight."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .compare import compare_runs, report
from .config import config_from_dict, config_sha256, to_yaml
from .manifest import read_manifest
from .record import WEIGHTS, weights_file_sha256

IDENTICAL, DIFFERS = 0, 1


def verify(run_dir: Path) -> int:
    """Print whether executing `run_dir` again gives the same bits; 0 if it does, 1 if not.

    Raises:
        ValueError: the run is not complete, is damaged, or could not be executed.
    """
    manifest = read_manifest(run_dir)
    results = manifest["results"]
    if not results.get("completed"):
        raise ValueError(f"{run_dir} is not complete; finish it with train --resume {run_dir}")
    if config_sha256(manifest["config"]) != manifest["config_sha256"]:
        raise ValueError(f"{run_dir}: the config in the manifest is not the one it was made with")
    if weights_file_sha256(run_dir / WEIGHTS) != results["weights_sha256"]:
        raise ValueError(f"{run_dir / WEIGHTS} does not hold the weights that the manifest names")
    config = config_from_dict(manifest["config"])
    print(f"executing {manifest['run_id']} again: seed {config.seed}, {results['num_steps']} steps")
    with tempfile.TemporaryDirectory(prefix="verify-") as scratch:
        config_path, again = Path(scratch, "config.yaml"), Path(scratch, "run")
        config_path.write_text(to_yaml(config), encoding="utf-8")
        _execute(config_path, again)
        result = compare_runs(run_dir, again)
        repeated = read_manifest(again)["results"]["metrics"]
    print(f"metrics: {json.dumps(repeated)}")
    print("\n".join(report(result)))
    return IDENTICAL if result.identical else DIFFERS


def _execute(config_path: Path, run_dir: Path) -> None:
    # A verification is not an experiment: it is not tracked anywhere.
    overrides = ["tracking.mlflow_uri="]
    command = [sys.executable, "-m", __package__, "train"]
    command += ["--config", str(config_path), "--run-dir", str(run_dir), *overrides]
    done = subprocess.run(command, env=os.environ, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise ValueError(f"the run could not be executed again: exit code {done.returncode}")
