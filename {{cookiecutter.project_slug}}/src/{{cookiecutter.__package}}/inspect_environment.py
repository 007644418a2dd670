"""The doctor's items about the environment: Python, the lock, what is installed, the driver."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from .inspection import CannotTellError, requirements_table, settings
from .manifest import lock_files

_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)(?: ; ([^\\]+?))?(?: \\)?$", re.MULTILINE)


def python_version(root: Path) -> str:
    """The interpreter is of the release that `.python-version` names."""
    wanted = (root / ".python-version").read_text().strip()
    running = ".".join(map(str, sys.version_info[:3]))
    if f"{running}.".startswith(f"{wanted}."):
        return ""
    return f"the project asks for Python {wanted}, this is {running}; run make setup with PYTHON=…"


def lock_hashed(root: Path) -> str:
    """There is a lock of the environment, and it holds a sha256 for every artefact."""
    files = environment_locks(root)
    if not files:
        return "no lock of an environment; run make lock and commit what it writes"
    for path in files:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".txt":
            blocks = re.split(r"\n(?=[A-Za-z0-9])", text)
            bare = [b.split("==")[0] for b in blocks if "==" in b and "--hash=sha256:" not in b]
        else:
            bare = [] if re.search(r"sha256[:=\"]", text) else ["everything"]
        if bare:
            return f"{path.name} holds no sha256 for {', '.join(bare)}; run make lock"
    return ""


def installed_equals_lock(root: Path) -> str:
    """What is installed has the versions of the lock, and nothing of it is missing."""
    from packaging.markers import Marker

    versions: dict[str, set[str]] = {}
    counts: dict[str, int] = {}
    files = environment_locks(root)
    for path in files:
        names = set()
        for name, version, marker in _locked(path):
            if not marker or Marker(marker).evaluate():
                versions.setdefault(_normal(name), set()).add(version)
                names.add(_normal(name))
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    if not versions:
        raise CannotTellError(_unread(root))
    found = ((d.metadata["Name"], d.version) for d in metadata.distributions())
    installed = {_normal(name): version for name, version in found if name}
    # CPU and CUDA environments differ; what stands in the lock of both must be there in each.
    in_all = len([path for path in files if not path.name.startswith("torch-")])
    pip = any(path.suffix == ".txt" for path in files)
    missing = sorted(n for n, c in counts.items() if pip and c >= in_all and n not in installed)
    wrong = [
        f"{name} {installed[name]} instead of {' or '.join(sorted(found))}"
        for name, found in sorted(versions.items())
        if name in installed and installed[name] not in found
    ]
    wrong += [f"{name} is missing" for name in missing]
    return f"{'; '.join(wrong)}; run make setup" if wrong else ""


def lock_current(root: Path) -> str:
    """Every dependency that `pyproject.toml` names stands in the lock, at a version it allows."""
    from packaging.requirements import Requirement

    with (root / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    wanted = project["project"].get("dependencies", [])
    wanted = [*wanted, *project.get("dependency-groups", {}).get("dev", [])]
    names = {path.stem for path in environment_locks(root)}
    for extra, requirements in project["project"].get("optional-dependencies", {}).items():
        # pip has a lock an environment; one that is not locked yet is `make lock`'s business.
        if extra in names or not names & {"cpu", "cuda"}:
            wanted += requirements
    found: dict[str, set[str]] = {}
    for path in environment_locks(root):
        for name, version, _ in _locked(path):
            found.setdefault(_normal(name), set()).add(version)
    if not found:
        raise CannotTellError(_unread(root))
    stale = []
    for requirement in map(Requirement, wanted):
        if requirement.marker and not requirement.marker.evaluate():
            continue
        versions = found.get(_normal(requirement.name), set())
        if not versions:
            stale.append(f"{requirement.name} is not in it")
        elif not any(requirement.specifier.contains(v, prereleases=True) for v in versions):
            stale.append(f"it has {requirement.name} {', '.join(sorted(versions))}")
    return f"older than pyproject.toml: {'; '.join(stale)}; run make lock" if stale else ""


def _unread(root: Path) -> str:
    if not environment_locks(root):
        return "there is no lock yet; run make lock"
    return "this lock format is checked by its own manager"


def environment_locks(root: Path) -> list[Path]:
    """The locks of what trains."""
    # The notebook's tools and the MLflow server have environments of their own.
    return [path for path in lock_files(root) if path.name not in ("notebook.txt", "mlflow.txt")]


def _locked(path: Path) -> Iterator[tuple[str, str, str]]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".txt":
        yield from _REQUIREMENT.findall(text)
    elif path.name in ("uv.lock", "poetry.lock"):
        for package in tomllib.loads(text)["package"]:
            yield package["name"], package["version"], ""


def cuda_documented(root: Path) -> str:
    """The CUDA line of the environment is the one that the README names."""
    cuda = settings(root).get("cuda")
    if not cuda:
        raise CannotTellError("this project has no CUDA environment")
    stated = requirements_table(root).get("CUDA", "")
    if not re.search(rf"(?<![\d.]){re.escape(cuda)}(?!\d)", stated):
        return f"README.md, Requirements, names no CUDA {cuda}; write the row"
    return ""


def driver(root: Path) -> str:
    """The NVIDIA driver is at least the one that the environment's CUDA needs."""
    minimum = settings(root).get("min_driver")
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


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
