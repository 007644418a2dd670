"""What went into a run: code, data, configuration, environment, hardware and switches.

Nothing here imports a framework; the caller passes in what only that knows.
"""

import hashlib
import json
import os
import platform
import shlex
import shutil
import stat
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ..env import read_cpu
from ..files import MANIFEST, PACKAGE, PROJECT, write_whole
from ..git import find_repository, git, read_checkout
from ..redact import without_secrets
from .bytecode import is_outdated

SCHEMA = 4
ANSWERS = ".template.json"
"""Records what the project was generated from: template version and answers."""
FIELDS: dict[str, tuple[str, ...]] = {
    "schema": (),
    "project": (),
    "run_id": (),
    "command": (),
    "seed": (),
    "config": ("*",),
    "config_sha256": (),
    "code": ("commit", "dirty", "diff_sha256", "files", "machinery", "template"),
    "data": ("name", "num_samples", "sha256", "*"),
    "environment": ("python", "platform", "packages", "lock_sha256"),
    "hardware": ("cpu", "isa", "num_cores", "gpus", "driver", "cuda", "cudnn", "*"),
    "determinism": ("*",),
    "results": ("metrics", "best", "weights_sha256", "logs", "num_steps", "completed"),
}
"""Every field and its content; `*`: any other name. A resumed run also has `resumes`."""

MACHINERY = PACKAGE / "repro"
SUMS = "repro.sum"
"""Lists every file that belongs to the template, with the sha256 it was generated with."""
_INSTRUCTION_SETS = (
    *("amx_tile", "avx512_fp16", "avx512_bf16", "avx512_vnni", "avx512f"),
    *("avx_vnni", "avx2", "fma", "avx", "sse4_2", "sve", "asimd"),
)
"""The CPU flags by which numerical libraries choose their code."""


def write_manifest(run_dir: Path, manifest: Mapping[str, Any]) -> None:
    """Write `manifest.json` atomically."""
    write_whole(run_dir / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")


def read_manifest(run_dir: Path) -> dict[str, Any]:
    """Read the manifest of a run.

    Raises:
        ValueError: this is not a run directory of this project, or its manifest is incomplete, has
            another schema, or has missing or unknown fields.
    """
    path = run_dir / MANIFEST
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for a writer
            raise ValueError("it is not a file")
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{run_dir} is not a run directory: it has no {MANIFEST}") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if isinstance(manifest, dict) and manifest.get("schema") in (2, 3):
        _from_older(manifest)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else None
        raise ValueError(f"{path} has schema {found!r}, expected {SCHEMA}")
    _check_fields(path, manifest, FIELDS, also=("resumes",))
    for section, names in FIELDS.items():
        if names and not isinstance(manifest[section], dict):
            raise ValueError(f"{path}: the field {section} must be an object")
        if names:
            _check_fields(path, manifest[section], names, prefix=f"{section}.")
    logs, resumes = manifest["results"]["logs"], manifest.get("resumes", [])
    if not isinstance(logs, dict | None) or not isinstance(resumes, list):
        raise ValueError(f"{path}: results.logs must be an object or null, resumes a list")
    if not all(isinstance(each, dict) and type(each.get("step")) is int for each in resumes):
        raise ValueError(f"{path}: each of resumes must be an object with its step")
    if manifest["project"] != PROJECT:
        project = manifest["project"]
        raise ValueError(f"{run_dir} is a run of project {project!r}, this is {PROJECT!r}")
    return manifest


def num_ranks(manifest: Mapping[str, Any]) -> int:
    """How many processes shared a run when it began, or was resumed last."""
    last = [manifest, *manifest.get("resumes", [])][-1]
    return last["hardware"].get("ranks", {}).get("num_ranks", 1)


def is_ordered(manifest: Mapping[str, Any]) -> bool:
    """Whether the bits of a run depend on the number of its processes."""
    return manifest["config"].get("distributed", {}).get("gradients") == "ordered"


def _from_older(manifest: dict[str, Any]) -> None:
    """Upgrade an older manifest: before version 0.2.0 it did not name the template's version, and
    before 0.3.0 it listed the machinery's files together with the task's."""
    manifest["schema"] = SCHEMA
    if isinstance(manifest.get("code"), dict):
        manifest["code"].setdefault("template", None)
        manifest["code"].setdefault("machinery", None)


def _check_fields(
    path: Path,
    found: Mapping[str, Any],
    wanted: Iterable[str],
    *,
    also: tuple[str, ...] = (),
    prefix: str = "",
) -> None:
    if missing := sorted(set(wanted) - {"*"} - set(found)):
        raise ValueError(f"{path} lacks the fields {', '.join(prefix + name for name in missing)}")
    if "*" in wanted:
        return
    if unknown := sorted(set(found) - set(wanted) - set(also)):
        raise ValueError(f"{path} has unknown fields: {', '.join(prefix + n for n in unknown)}")


def describe_code(root: Path, *, leave_out: Path | None = None) -> dict[str, Any]:
    """The commit, whether the tree differs from it, digests of the difference and of each source
    file, and the version of the template.

    Outside git, as in an image, the commit comes from the variable `CODE_COMMIT`, with the suffix
    `-dirty` if the tree had changes. Runs are not code: everything next to `leave_out`, the run's
    directory, is ignored.
    """
    return {
        **_describe_commit(root, leave_out),
        "files": _task_files(root),
        "machinery": describe_machinery(root),
        "template": _template_version(root),
    }


def _describe_commit(root: Path, leave_out: Path | None) -> dict[str, Any]:
    named = os.environ.get("CODE_COMMIT", "")
    if not is_under_git(root, or_named=bool(named)):
        commit, _, mark = named.partition("-")
        dirty = bool(mark) if commit else None
        return {"commit": commit or None, "dirty": dirty, "diff_sha256": None}
    run_dir = leave_out.resolve() if leave_out else None
    # A run in the project's own folder: everything next to it is the project.
    runs = run_dir.parent if run_dir and run_dir.parent != root.resolve() else run_dir
    checkout = read_checkout(root, leave_out=runs)
    dirty = bool(checkout.changes)
    return {"commit": checkout.commit, "dirty": dirty, "diff_sha256": checkout.diff_sha256}


def is_under_git(root: Path, *, or_named: bool = False) -> bool:
    """Whether `root` is a repository, or tracked by the one that contains it.

    Raises:
        GitError: git fails or is not installed (except when the commit is known otherwise).
    """
    repository = find_repository(root)
    if repository is None or (or_named and shutil.which("git") is None):
        return False
    known = git(root, "ls-files", "-z", "--", "pyproject.toml")
    return bool(known) or repository == root


def _template_version(root: Path) -> str | None:
    try:
        return str(json.loads((root / ANSWERS).read_text(encoding="utf-8"))["template"]["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # by now part of another project


def _task_files(root: Path) -> dict[str, str]:
    """sha256 of each file of the task, sub-packages included, by its path in the checkout.

    Raises:
        ValueError: Python executes an older compilation of one of them.
    """
    inside = {path for path in PACKAGE.rglob("*.py") if MACHINERY not in path.parents}
    sources = {f"src/{PROJECT}/{path.relative_to(PACKAGE).as_posix()}": path for path in inside}
    if outdated := [name for name, path in sources.items() if is_outdated(path)]:
        raise ValueError(
            f"{outdated[0]} was changed and kept its time, so Python executes what it had compiled "
            "before; touch the file, or delete its __pycache__"
        )
    sources |= {"train.py": root / "train.py"} if (root / "train.py").is_file() else {}
    return {name: sha256(path.read_bytes()) for name, path in sorted(sources.items())}


def describe_machinery(root: Path) -> dict[str, Any]:
    """One digest over the machinery's files, and the names of those that were edited."""
    files = {
        path.relative_to(MACHINERY).as_posix(): sha256(path.read_bytes())
        for path in sorted(MACHINERY.rglob("*.py"))
    }
    text = "".join(f"{digest}  {name}\n" for name, digest in files.items())
    prefix = f"src/{PROJECT}/{MACHINERY.name}/"
    sums = read_sums(root)
    made = {n.removeprefix(prefix): d for n, d in sums.items() if n.startswith(prefix)}
    names = sorted(files.keys() | made.keys())
    edited = [name for name in names if files.get(name) != made.get(name)]
    return {
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "edited": edited if made else None,
    }


def read_sums(root: Path) -> dict[str, str]:
    """sha256 of each file that belongs to the template, by path, as listed in `repro.sum`;
    `sha256sum --check repro.sum` compares them too."""
    try:
        lines = (root / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def sha256(content: bytes) -> str:
    """The digest in the format used by all records."""
    return hashlib.sha256(content).hexdigest()


def describe_environment(root: Path) -> dict[str, Any]:
    """Python, platform, every installed package, and a digest of the lock files."""
    packages: dict[str, str] = {}
    for distribution in metadata.distributions():
        # Of two packages with one name, the first on the path is imported. No name: half removed.
        if name := distribution.metadata["Name"]:
            packages.setdefault(name.lower(), distribution.version)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": dict(sorted(packages.items())),
        "lock_sha256": _lock_sha256(root),
    }


def describe_hardware(accelerator: Mapping[str, Any]) -> dict[str, Any]:
    """The processor, and what a framework reports of GPUs: `gpus`, `driver`, `cuda`, `cudnn`."""
    cpu, flags = read_cpu()
    return {
        "cpu": cpu,
        "isa": [name for name in _INSTRUCTION_SETS if name in flags],
        "num_cores": os.cpu_count(),
        **accelerator,
    }


def lock_files(root: Path) -> list[Path]:
    """The existing lock files among those named by `[tool.repro] locks` in `pyproject.toml`."""
    with (root / "pyproject.toml").open("rb") as file:
        patterns = tomllib.load(file)["tool"]["repro"]["locks"]
    return sorted(path for pattern in patterns for path in root.glob(pattern))


def command_line() -> str:
    """The command line of this process, without the interpreter's path and without passwords."""
    return without_secrets(shlex.join(["python", *sys.orig_argv[1:]]))


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
