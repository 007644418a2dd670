"""The content of a lock, in the same form for all managers, and the markers that select from it.

Standard library only: this runs before the environment exists.
"""

import ast
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from failure import SetupError

ROOT = Path(__file__).resolve().parents[1]
PYPI = "https://pypi.org/simple"

PLATFORMS = {
    "linux-x86_64": {"sys_platform": "linux", "platform_machine": "x86_64"},
    "linux-aarch64": {"sys_platform": "linux", "platform_machine": "aarch64"},
    "macos-arm64": {"sys_platform": "darwin", "platform_machine": "arm64"},
}
"""The platforms this project can be locked for; each accelerator supports some of them."""

SUBDIRS = {"linux-x86_64": "linux-64", "linux-aarch64": "linux-aarch64", "macos-arm64": "osx-arm64"}
"""The same platforms by their conda names."""


@dataclass(frozen=True)
class Artefact:
    """One file that may be installed; whatever the lock does not state is empty."""

    file: str
    sha256: str = ""
    url: str = ""
    uploaded: str = ""
    """Upload time, ISO 8601 in UTC."""


@dataclass(frozen=True)
class Package:
    """One package, at its version for one accelerator and platform."""

    name: str
    version: str
    index: str = ""
    """Where it comes from; empty if the lock does not say."""
    artefacts: tuple[Artefact, ...] = ()


class LockError(SetupError):
    """The lock, or the part of `pyproject.toml` that describes it, is missing or unreadable."""


@cache
def project() -> dict[str, Any]:
    """The content of `pyproject.toml`.

    Raises:
        LockError: it is not valid TOML.
    """
    return read_toml(ROOT / "pyproject.toml")


def settings() -> dict[str, Any]:
    """The table `[tool.repro]`: requirements on this project's environments."""
    try:
        return project()["tool"]["repro"]
    except KeyError:
        raise LockError("pyproject.toml has no [tool.repro]; restore it") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, or raise a one-line `LockError`."""
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise LockError(f"{path.name} is not TOML: {error}") from None


def read_text(path: Path) -> str:
    """Read a text file, or raise a one-line `LockError`."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        where = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        reason = "this environment is not locked yet; run make lock"
        raise LockError(f"{where} is missing: {reason}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise LockError(f"{path.name} cannot be read: {error}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of conda or pixi, or raise a one-line `LockError`."""
    import yaml  # comes with the environments of these managers, and this runs inside one

    try:
        return yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise LockError(f"{path.name} is not YAML: {' '.join(str(error).split())}") from None


def here() -> str:
    """The platform of this machine, as named in `PLATFORMS`; empty if it is not among them."""
    machine = os.uname()
    system = {"Linux": "linux", "Darwin": "macos"}.get(machine.sysname, machine.sysname)
    name = f"{system}-{machine.machine}"
    return name if name in PLATFORMS else ""


def normal(name: str) -> str:
    """The normalized name of a package (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(packages: Iterable[Package]) -> str:
    """The packages as a requirements file with a sha256 for every file."""
    lines = []
    for package in packages:
        hashes = sorted({f"--hash=sha256:{a.sha256}" for a in package.artefacts if a.sha256})
        lines.append(" \\\n    ".join([f"{package.name}=={package.version}", *hashes]))
    return "".join(f"{line}\n" for line in lines)


def parse_requirements(text: str) -> Iterator[tuple[str, str, str, list[str]]]:
    """Name, version, marker and sha256 of each requirement in a fully pinned file."""
    if len(re.findall("--index-url", text)) > 1:
        raise LockError("it names more than one --index-url")
    for line in text.replace("\\\n", " ").splitlines():
        if re.fullmatch(r"--index-url https?://\S+", line):
            continue
        line = line.split(" #")[0].strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("-"):
            raise LockError(f"{line.split(' ')[0]} has no place in a lock")
        head, *options = line.split("--hash=")
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([^\s;]+)\s*(?:;\s*(.+))?", head.strip())
        if not match:
            raise LockError(f"{line.split(' ')[0]!r} is not an exact version")
        digests = [option.strip().removeprefix("sha256:") for option in options]
        yield normal(match[1]), match[2], (match[3] or "").strip(), digests


# --- markers ----------------------------------------------------------------------------------


def applies(marker: str, platform: str, extras: Iterable[str] = ()) -> bool:
    """Whether a marker (PEP 508) holds on `platform`, for this project's Python.

    A marker is a Python expression of names, strings, comparisons, `and` and `or`; it is parsed as
    one but never executed. `packaging` does the same, but is not available before set-up.

    Raises:
        LockError: it is not a valid marker.
    """
    if not marker:
        return True
    python = project()["project"]["requires-python"].removeprefix("==").removesuffix(".*")
    values = {
        **PLATFORMS[platform],
        "os_name": "posix",
        "platform_system": "Linux" if platform.startswith("linux") else "Darwin",
        "python_version": python,
        "python_full_version": f"{python}.99",  # stands for any patch release
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    try:
        return _holds(ast.parse(marker.strip(), mode="eval").body, values, set(extras))
    except (SyntaxError, KeyError, ValueError, TypeError):
        raise LockError(f"{marker!r} is no marker") from None


def _holds(node: ast.expr, values: Mapping[str, str], extras: set[str]) -> bool:
    if isinstance(node, ast.BoolOp):
        join = all if isinstance(node.op, ast.And) else any
        return join(_holds(part, values, extras) for part in node.values)
    if not isinstance(node, ast.Compare) or len(node.ops) != 1:
        raise ValueError
    left, right = node.left, node.comparators[0]
    names = [side.id for side in (left, right) if isinstance(side, ast.Name)]
    if names == ["extra"]:
        given = left.value if isinstance(left, ast.Constant) else right.value
        return (normal(given) in extras) == isinstance(node.ops[0], ast.Eq)
    a, b = (values[s.id] if isinstance(s, ast.Name) else s.value for s in (left, right))
    if names[0].startswith("python_") and not isinstance(node.ops[0], (ast.In, ast.NotIn)):
        if isinstance(b, str) and b.endswith(".*"):
            prefix = b.removesuffix("*")
            return f"{a}.".startswith(prefix) == isinstance(node.ops[0], ast.Eq)
        a, b = _numbers(a), _numbers(b)
    return _COMPARE[type(node.ops[0])](a, b)


_COMPARE = {
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
