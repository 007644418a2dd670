"""The expected results of the baseline: `docs/expected.json`, and the table in the README.

`make expected` trains the baseline here and writes both; `tests/test_expected.py` checks a fresh
run against the file: equal bits on the same class of machine, within a tolerance elsewhere.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..backend import facts
from ..config.base import is_inert
from ..config.load import config_from_dict, flatten, load_config, to_dict
from ..config.run_config import RunConfig, complete
from ..entry import for_children
from ..env import read_cpu
from ..files import PROJECT, find_project_root
from ..run.manifest import read_manifest
from .readme import around, row

CONFIG = "configs/baseline.yaml"
COMPUTING = (*facts.PACKAGES, "numpy", "scikit-learn")
"""The packages that compute."""
TOLERANCE = 0.05
"""Default relative tolerance between machines, unless the file states another."""
BEGIN, END = "<!-- expected results: make expected -->", "<!-- end of expected results -->"


def expected_path(root: Path) -> Path:
    """Path of the file with the expected results in the checkout at `root`."""
    return root / "docs" / "expected.json"


def write_expected(config_class: type[RunConfig]) -> None:
    """Train the baseline in every profile this machine supports, and write the file and the table.

    Raises:
        ValueError: a run failed, or the README lacks the markers.
    """
    root = find_project_root()
    readme = root / "README.md"
    before, after = around(readme.read_text(encoding="utf-8"), BEGIN, END)
    config = load_config(config_class, root / CONFIG)
    tolerance = _tolerance(root)
    expected = {
        "config": to_dict(config),
        "defaults": to_dict(config_from_dict(config_class, {"seed": 0})),
        "data_sha256": None,
        "tolerance": {},
        "runs": [],
    }
    for profile in profiles():
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
        for name, value in results["metrics"].items():
            share = float(f"{abs(value or 0) * TOLERANCE:.1g}")
            expected["tolerance"][name] = tolerance.get(name, share)
    text = json.dumps(expected, indent=2, ensure_ascii=False)
    expected_path(root).write_text(text + "\n", encoding="utf-8")
    readme.write_text(before + table(expected) + after, encoding="utf-8")
    print(table(expected), end="")


def profiles() -> list[str]:
    """The determinism profiles that this machine can run; the last one holds on most machines."""
    return ["fast", *(["portable"] if facts.PORTABLE and "avx2" in read_cpu()[1] else [])]


def run_baseline(root: Path, profile: str) -> tuple[float, dict[str, Any]]:
    """Train the baseline in a separate process; return its duration in seconds and its manifest."""
    with tempfile.TemporaryDirectory(prefix="expected-") as scratch:
        run_dir = Path(scratch) / "run"
        command = [sys.executable, "-m", PROJECT, "train", "--config", str(root / CONFIG)]
        command += ["--run-dir", str(run_dir), "--scratch", "tracking.mlflow_uri="]
        command += [f"determinism.profile={profile}"]
        started = time.monotonic()
        done = subprocess.run(command, env=for_children(), stdout=subprocess.DEVNULL)
        if done.returncode:
            raise ValueError(f"the baseline could not be trained: exit code {done.returncode}")
        return time.monotonic() - started, read_manifest(run_dir)


def machine_class(manifest: Mapping[str, Any], profile: str) -> dict[str, Any]:
    """The facts in which two machines must agree to give the same bits in a profile."""
    hardware, packages = manifest["hardware"], manifest["environment"]["packages"]
    portable = profile == "portable"
    return {
        "cpu": "any x86-64 CPU with AVX2" if portable else hardware["cpu"],
        "isa": ["avx2"] if portable else hardware["isa"],
        **{name: manifest["determinism"].get(name) for name in facts.MACHINE},
        "system": manifest["environment"]["platform"].split("-")[0],
        "gpus": hardware["gpus"],
        # The packages that compute; the rest of the environment does not affect any number.
        **{name: packages.get(name) for name in COMPUTING},
    }


def differing_keys(
    before: Mapping[str, Any], now: Mapping[str, Any], inert: tuple[str, ...]
) -> Iterator[str]:
    """Keys that can change results and differ between two configurations, with both values."""
    before, now = flatten(complete(before)), flatten(complete(now))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key) and not is_inert(key, inert):
            yield f"{key} was {before.get(key)!r}, is {now.get(key)!r}"


def table(expected: Mapping[str, Any]) -> str:
    """The README's table of the expected results."""
    names = list(dict.fromkeys(n for run in expected["runs"] for n in run["metrics"]))
    head = ["config", "seed", "profile", *(n.replace("_", " ") for n in names)]
    lines = [row([*head, "time", "measured on"]), "|---" * (len(head) + 2) + "|"]
    for run in expected["runs"]:
        cells = [f"`{Path(CONFIG).name}`", expected["config"]["seed"], run["profile"]]
        cells += [_shown(name, run["metrics"].get(name)) for name in names]
        lines.append(row([*cells, f"{run['seconds']} s", _machine(run["machine_class"])]))
    return "".join(f"{line}\n" for line in lines)


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "none"
    return f"{100 * value:.2f} %" if name.endswith("accuracy") else f"{value:.4f}"


def _tolerance(root: Path) -> dict[str, float]:
    """The tolerance stated in the existing file, which may have been measured."""
    try:
        found = json.loads(expected_path(root).read_text(encoding="utf-8"))["tolerance"]
        return {str(name): float(value) for name, value in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def readme_table(readme: str) -> str:
    """The table between the markers of a README.

    Raises:
        ValueError: a marker is missing.
    """
    before, after = around(readme, BEGIN, END)
    return readme[len(before) : len(readme) - len(after)]


def _machine(found: Mapping[str, Any]) -> str:
    where = ", ".join([*found["gpus"], found["cpu"]])
    version = next(found[name] for name in facts.PACKAGES if found.get(name))
    return f"{where}, {facts.NAME} {version}, NumPy {found['numpy']}"
