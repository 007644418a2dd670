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
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

SCHEMA = 1
MANIFEST = "manifest.json"
REQUIRED = (
    "schema",
    "run_id",
    "command",
    "seed",
    "config",
    "config_sha256",
    "code",
    "data",
    "environment",
    "hardware",
    "determinism",
    "results",
)


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
        ValueError: not a run directory, or a manifest that is torn or of another schema.
    """
    path = run_dir / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ValueError(f"{run_dir} is not a run directory: it has no {MANIFEST}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else None
        raise ValueError(f"{path} has schema {found!r}, expected {SCHEMA}")
    if missing := [name for name in REQUIRED if name not in manifest]:
        raise ValueError(f"{path} lacks the fields {', '.join(missing)}")
    return manifest


def find_project_root() -> Path:
    """The checkout: the folder with `pyproject.toml` above this file, or else the working one."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "pyproject.toml").is_file():
            return folder
    return Path.cwd()


def describe_code(root: Path) -> dict[str, Any]:
    """Commit, whether the tree differs from it, and a digest of the difference.

    Outside git, as in an image, the commit comes from the variable `CODE_COMMIT`.
    """
    status = _git(root, "status", "--porcelain=v1", "--untracked-files=all")
    if status is None:
        return {"commit": os.environ.get("CODE_COMMIT"), "dirty": None, "diff_sha256": None}
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    if not status:
        return {"commit": commit, "dirty": False, "diff_sha256": None}
    # Before the first commit there is nothing to compare with: the files themselves are the diff.
    total = hashlib.sha256((_git(root, "diff", "HEAD", "--binary") or "").encode())
    for name in sorted(_git(root, "ls-files", "-z", "-o", "-c", "--exclude-standard").split("\0")):
        path = root / name
        if path.is_file() and (commit is None or f"?? {name}" in status):
            total.update(name.encode() + b"\0" + path.read_bytes())
    return {"commit": commit, "dirty": True, "diff_sha256": total.hexdigest()}


def describe_environment(root: Path) -> dict[str, Any]:
    """Python, platform, every installed package, and a digest of the lock files."""
    packages = {d.metadata["Name"].lower(): d.version for d in metadata.distributions()}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": dict(sorted(packages.items())),
        "lock_sha256": _lock_sha256(root),
    }


def describe_hardware(accelerator: Mapping[str, Any]) -> dict[str, Any]:
    """The processor, and what torch reports of GPUs: `gpus`, `driver`, `cuda`, `cudnn`."""
    cpu, flags = _cpu()
    known = ("avx512f", "avx2", "avx", "sse4_2", "asimd")
    return {
        "cpu": cpu,
        "isa": [name for name in known if name in flags],
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


def _cpu() -> tuple[str, set[str]]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine(), set()
    fields = {
        key.strip().lower(): value.strip()
        for key, _, value in (line.partition(":") for line in text.splitlines())
    }
    flags = fields.get("flags") or fields.get("features") or ""
    return fields.get("model name") or platform.machine(), set(flags.split())
