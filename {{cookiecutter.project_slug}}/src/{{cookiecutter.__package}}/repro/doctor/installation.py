"""The checklist items about the installation: Python, lock, packages, driver."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from .common import CannotTellError, Checked, cuda_environment, requirements_table, settings


def python_version(project: Checked) -> str:
    """The interpreter has the version named in `.python-version`."""
    root = project.root
    wanted = (root / ".python-version").read_text().strip()
    running = ".".join(map(str, sys.version_info[:3]))
    if f"{running}.".startswith(f"{wanted}."):
        return ""
    return f"the project asks for Python {wanted}, this is {running}; run make setup with PYTHON=…"


def lock_fits(project: Checked) -> str:
    """The lock passes `environment/check.py`: builds, indexes, hashes, dependencies."""
    root = project.root
    return _first(_check(root))


def installed_equals_lock(project: Checked) -> str:
    """The installed packages are those locked for one accelerator; any others are in the lock too,
    such as the notebook's tools."""
    root = project.root
    found = [_check(root, "--installed", name) for name in settings(root)["environments"]]
    if all(report["unread"] for report in found):
        raise CannotTellError(_first(found[0]))
    # The installation is for one of them; only its packages tell which.
    return "" if any(report["ok"] for report in found) else _first(found[0])


def _check(root: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(root / "environment" / "check.py"), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError:
        raise ValueError(" ".join(done.stderr.split())[-200:]) from None


def _first(report: dict[str, Any]) -> str:
    problems = [f"{title}: {each}" for title, found in report["problems"].items() for each in found]
    more = f"; and {len(problems) - 1} more: make lock-check" if len(problems) > 1 else ""
    return f"{problems[0]}{more}" if problems else ""


def cuda_documented(project: Checked) -> str:
    """The README names the CUDA version of the environment."""
    root = project.root
    cuda = cuda_environment(root).get("cuda")
    if not cuda:
        raise CannotTellError("this project has no CUDA environment")
    stated = requirements_table(root).get("CUDA", "")
    if not re.search(rf"(?<![\d.]){re.escape(cuda)}(?!\d)", stated):
        return f"README.md, Requirements, names no CUDA {cuda}; write the row"
    return ""


def driver(project: Checked) -> str:
    """The NVIDIA driver is new enough for the environment's CUDA."""
    root = project.root
    minimum = cuda_environment(root).get("min_driver")
    if not minimum:
        raise CannotTellError("this project has no CUDA environment")
    if not shutil.which("nvidia-smi"):
        raise CannotTellError(f"no NVIDIA driver here; CUDA runs need {minimum} or newer")
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True)
    found = re.findall(r"^\d+\.[\d.]+", done.stdout, re.MULTILINE)
    if done.returncode or not found:
        raise CannotTellError("nvidia-smi names no driver")
    if _numbers(found[0]) < _numbers(minimum):
        return f"driver {found[0]} is older than {minimum}; update it"
    return ""


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
