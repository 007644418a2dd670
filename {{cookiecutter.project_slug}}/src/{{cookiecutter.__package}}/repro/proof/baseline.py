"""What the baseline is expected to come to: `docs/expected.json`, and the README's table of it.

`make expected` trains the baseline here and writes both; `tests/test_expected.py` holds a fresh run
against the file: equal bits on the same class of machine, within a tolerance elsewhere.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...config import INERT_KEYS, config_from_dict, flatten, load_config, to_dict
from ..entry import for_children
from ..env import read_cpu
from ..run.manifest import find_project_root, read_manifest

CONFIG = "configs/baseline.yaml"
TOLERANCE = {"test_accuracy": 0.015, "test_loss": 0.03}
"""How far apart two machines may be: seeds 0 to 3 on one are within half of it of their mean."""
BEGIN, END = "<!-- expected results: make expected -->", "<!-- end of expected results -->"
_HEADER = (
    "| config | seed | profile | test accuracy | test loss | time | measured on |",
    "|---|---|---|---|---|---|---|",
)


def expected_path(root: Path) -> Path:
    """Where the expected results of the checkout at `root` are kept."""
    return root / "docs" / "expected.json"


def write_expected() -> None:
    """Train the baseline in every profile that this machine can run; write the file and the table.

    Raises:
        ValueError: a run fails, or the README has lost its markers.
    """
    root = find_project_root()
    readme = root / "README.md"
    before, after = _around_table(readme.read_text(encoding="utf-8"))
    profiles = ["fast", *(["portable"] if "avx2" in read_cpu()[1] else [])]
    config = load_config(root / CONFIG)
    expected = {
        "config": to_dict(config),
        "defaults": to_dict(config_from_dict({"seed": 0})),
        "data_sha256": None,
        "tolerance": TOLERANCE,
        "runs": [],
    }
    for profile in profiles:
        seconds, manifest = run_baseline(root, profile)
        expected["data_sha256"] = manifest["data"]["sha256"]
        results = manifest["results"]
        run = {
            "profile": profile,
            "machine_class": machine_class(manifest, profile),
            "metrics": results["metrics"],
            "weights_sha256": results["weights_sha256"],
            "num_steps": results["num_steps"],
            "seconds": round(seconds),
        }
        expected["runs"].append(run)
    text = json.dumps(expected, indent=2, ensure_ascii=False)
    expected_path(root).write_text(text + "\n", encoding="utf-8")
    readme.write_text(before + table(expected) + after, encoding="utf-8")
    print(table(expected), end="")


def run_baseline(root: Path, profile: str) -> tuple[float, dict[str, Any]]:
    """Train the baseline in a process of its own: seconds from its start to its end, manifest."""
    with tempfile.TemporaryDirectory(prefix="expected-") as scratch:
        run_dir = Path(scratch) / "run"
        command = [sys.executable, "-m", __package__, "train", "--config", str(root / CONFIG)]
        command += ["--run-dir", str(run_dir), "tracking.mlflow_uri="]
        command += [f"determinism.profile={profile}"]
        started = time.monotonic()
        done = subprocess.run(command, env=for_children(), stdout=subprocess.DEVNULL)
        if done.returncode:
            raise ValueError(f"the baseline could not be trained: exit code {done.returncode}")
        return time.monotonic() - started, read_manifest(run_dir)


def machine_class(manifest: Mapping[str, Any], profile: str) -> dict[str, Any]:
    """What two machines must share to give the same bits in a profile."""
    hardware, packages = manifest["hardware"], manifest["environment"]["packages"]
    portable = profile == "portable"
    return {
        "cpu": "any x86-64 CPU with AVX2" if portable else hardware["cpu"],
        "isa": ["avx2"] if portable else hardware["isa"],
        "cpu_capability": manifest["determinism"]["cpu_capability"],
        "system": manifest["environment"]["platform"].split("-")[0],
        "gpus": hardware["gpus"],
        # What computes; the rest of the environment does not touch a number.
        **{name: packages.get(name) for name in ("torch", "numpy", "scikit-learn")},
    }


def differing_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Keys that two configurations do not share, with both values; those that matter."""
    before, now = flatten(before), flatten(now)
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key) and not key.startswith(INERT_KEYS):
            yield f"{key} was {before.get(key)!r}, is {now.get(key)!r}"


def table(expected: Mapping[str, Any]) -> str:
    """The README's table of the expected results."""
    rows = [
        f"| `{Path(CONFIG).name}` | {expected['config']['seed']} | {run['profile']} "
        f"| {100 * run['metrics']['test_accuracy']:.2f} % | {run['metrics']['test_loss']:.4f} "
        f"| {run['seconds']} s | {_machine(run['machine_class'])} |"
        for run in expected["runs"]
    ]
    return "".join(f"{line}\n" for line in (*_HEADER, *rows))


def readme_table(readme: str) -> str:
    """The table that a README holds between its markers.

    Raises:
        ValueError: a marker is missing.
    """
    before, after = _around_table(readme)
    return readme[len(before) : len(readme) - len(after)]


def _machine(facts: Mapping[str, Any]) -> str:
    where = ", ".join([*facts["gpus"], facts["cpu"]])
    return f"{where}, PyTorch {facts['torch']}, NumPy {facts['numpy']}"


def _around_table(readme: str) -> tuple[str, str]:
    head, begin, rest = readme.partition(f"{BEGIN}\n")
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md must hold the lines {BEGIN!r} and {END!r}, around the table")
    return head + begin, end + tail
