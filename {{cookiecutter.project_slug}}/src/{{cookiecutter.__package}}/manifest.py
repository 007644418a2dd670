"""What a run was made of: code, data, configuration, environment, hardware and switches.

Nothing here imports torch; the caller hands in what only torch knows.
"""

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from .environment import read_cpu

SCHEMA = 3
MANIFEST = "manifest.json"
ANSWERS = ".template.json"
"""What the project was generated from: the template's version and the answers."""
FIELDS: dict[str, tuple[str, ...]] = {
    "schema": (),
    "project": (),
    "run_id": (),
    "command": (),
    "seed": (),
    "config": ("*",),
    "config_sha256": (),
    "code": ("commit", "dirty", "diff_sha256", "files", "template"),
    "data": ("name", "num_samples", "sha256", "files", "splits"),
    "environment": ("python", "platform", "packages", "lock_sha256"),
    "hardware": ("cpu", "isa", "num_cores", "gpus", "driver", "cuda", "cudnn"),
    "determinism": ("*",),
    "results": ("metrics", "best", "weights_sha256", "logs", "num_steps", "completed"),
}
"""Every field and what it holds; `*`: anything. A run that was resumed has `resumes` as well."""

_INSTRUCTION_SETS = (
    *("amx_tile", "avx512_fp16", "avx512_bf16", "avx512_vnni", "avx512f"),
    *("avx_vnni", "avx2", "fma", "avx", "sse4_2", "sve", "asimd"),
)
"""Those that numerical libraries choose their code by."""


def write_manifest(run_dir: Path, manifest: Mapping[str, Any]) -> None:
    """Write `manifest.json` whole or not at all."""
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    partial = run_dir / f"{MANIFEST}.partial"
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(run_dir / MANIFEST)


def read_manifest(run_dir: Path) -> dict[str, Any]:
    """Read the manifest of a run.

    Raises:
        ValueError: not a run directory of this project, or a manifest that is torn, of another
            schema, or with a field missing or unknown.
    """
    path = run_dir / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ValueError(f"{run_dir} is not a run directory: it has no {MANIFEST}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if isinstance(manifest, dict) and manifest.get("schema") == 2:
        _from_schema_2(manifest)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else None
        raise ValueError(f"{path} has schema {found!r}, expected {SCHEMA}")
    _check_fields(path, manifest, FIELDS, also=("resumes",))
    for section, names in FIELDS.items():
        if names and not isinstance(manifest[section], dict):
            raise ValueError(f"{path}: the field {section} must be an object")
        if names and names != ("*",):
            _check_fields(path, manifest[section], names, prefix=f"{section}.")
    logs, resumes = manifest["results"]["logs"], manifest.get("resumes", [])
    if not isinstance(logs, dict | None) or not isinstance(resumes, list):
        raise ValueError(f"{path}: results.logs must be an object or null, resumes a list")
    if not all(isinstance(each, dict) and type(each.get("step")) is int for each in resumes):
        raise ValueError(f"{path}: each of resumes must be an object with its step")
    if manifest["project"] != __package__:
        project = manifest["project"]
        raise ValueError(f"{run_dir} is a run of project {project!r}, this is {__package__!r}")
    return manifest


def _from_schema_2(manifest: dict[str, Any]) -> None:
    """Runs from before version 0.2.0 of the template did not record it."""
    manifest["schema"] = SCHEMA
    if isinstance(manifest.get("code"), dict):
        manifest["code"].setdefault("template", None)


def _check_fields(
    path: Path,
    found: Mapping[str, Any],
    wanted: Iterable[str],
    *,
    also: tuple[str, ...] = (),
    prefix: str = "",
) -> None:
    if missing := sorted(set(wanted) - set(found)):
        raise ValueError(f"{path} lacks the fields {', '.join(prefix + name for name in missing)}")
    if unknown := sorted(set(found) - set(wanted) - set(also)):
        raise ValueError(f"{path} has unknown fields: {', '.join(prefix + n for n in unknown)}")


def find_project_root() -> Path:
    """The checkout: the folder with `pyproject.toml` above this file, or else the working one."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "pyproject.toml").is_file():
            return folder
    return Path.cwd()


def describe_code(root: Path, *, leave_out: Path | None = None) -> dict[str, Any]:
    """Commit, whether the tree differs from it, a digest of the difference, one of each source,
    and the version of the template.

    Outside git, as in an image, the commit comes from the variable `CODE_COMMIT`, with `-dirty`
    behind it where the tree had changes. Runs are not code: what lies beside `leave_out`, the run's
    directory, does not count.
    """
    return {
        **_describe_commit(root, leave_out),
        "files": _source_files(root),
        "template": _template_version(root),
    }


def _describe_commit(root: Path, leave_out: Path | None) -> dict[str, Any]:
    top = _git(root, "rev-parse", "--show-toplevel")
    tracked = _git(root, "ls-files", "--error-unmatch", "pyproject.toml") is not None
    if top is None or not (tracked or Path(top).resolve() == root.resolve()):
        # No repository, or one that merely has this folder inside and knows nothing of it.
        commit, _, mark = os.environ.get("CODE_COMMIT", "").partition("-")
        dirty = bool(mark) if commit else None
        return {"commit": commit or None, "dirty": dirty, "diff_sha256": None}
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    # Before the first commit there is nothing to compare with: every file is a difference.
    new = ["--others"] if commit else ["--others", "--cached"]
    listed = _git(root, "ls-files", "-z", "--exclude-standard", *new) or ""
    outputs = leave_out.resolve().parent if leave_out else None
    names = sorted(
        name
        for name in listed.split("\0")
        if name and not (outputs and outputs != root and (root / name).is_relative_to(outputs))
    )
    changed = _git(root, "diff", "HEAD", "--binary", "--", ".") if commit else ""
    if not names and not changed:
        return {"commit": commit, "dirty": False, "diff_sha256": None}
    total = hashlib.sha256((changed or "").encode())
    for path in (root / name for name in names):
        if path.is_file():
            total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return {"commit": commit, "dirty": True, "diff_sha256": total.hexdigest()}


def _template_version(root: Path) -> str | None:
    try:
        return str(json.loads((root / ANSWERS).read_text(encoding="utf-8"))["template"]["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # somebody else's project by now


def _source_files(root: Path) -> dict[str, str]:
    """sha256 of each file that trains, by its path in the checkout."""
    package = Path(__file__).parent
    sources = {f"src/{__package__}/{path.name}": path for path in package.glob("*.py")}
    sources |= {"train.py": root / "train.py"} if (root / "train.py").is_file() else {}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in sorted(sources.items())
    }


def describe_environment(root: Path) -> dict[str, Any]:
    """Python, platform, every installed package, and a digest of the lock files."""
    found = ((d.metadata["Name"], d.version) for d in metadata.distributions())
    packages = {name.lower(): version for name, version in found if name}  # none: half removed
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": dict(sorted(packages.items())),
        "lock_sha256": _lock_sha256(root),
    }


def describe_hardware(accelerator: Mapping[str, Any]) -> dict[str, Any]:
    """The processor, and what torch reports of GPUs: `gpus`, `driver`, `cuda`, `cudnn`."""
    cpu, flags = read_cpu()
    return {
        "cpu": cpu,
        "isa": [name for name in _INSTRUCTION_SETS if name in flags],
        "num_cores": os.cpu_count(),
        **accelerator,
    }


def lock_files(root: Path) -> list[Path]:
    """The lock files that `[tool.repro] locks` in `pyproject.toml` names and that exist."""
    with (root / "pyproject.toml").open("rb") as file:
        patterns = tomllib.load(file)["tool"]["repro"]["locks"]
    return sorted(path for pattern in patterns for path in root.glob(pattern))


def command_line() -> str:
    """The command of this process, as typed, without the path of the interpreter."""
    return shlex.join(["python", *sys.orig_argv[1:]])


def _lock_sha256(root: Path) -> str | None:
    try:
        files = lock_files(root)
    except (OSError, KeyError):
        return None
    if not files:
        return None
    total = hashlib.sha256()
    for path in files:
        total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
