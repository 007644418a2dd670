"""poetry's lock: one file for all accelerators and platforms; markers choose from it."""

from typing import Any

from locked import PYPI, ROOT, Artefact, LockError, Package, applies, normal, read_toml

PYTHON_ONLY = True
"""Whether every entry is a Python package, under the name it has when installed."""


def read_lock(environment: str, platform: str, groups: tuple[str, ...] = ("dev",)) -> list[Package]:
    """Read the packages of `environment` on `platform`, including the dependency groups.

    Raises:
        LockError: the file is missing or damaged.
    """
    try:
        wanted = {"main", *groups}
        chosen = [p for p in _packages() if _belongs(p, environment, platform, wanted)]
        return [_package(entry) for entry in chosen]
    except (KeyError, TypeError, AttributeError) as error:
        raise LockError(f"poetry.lock is damaged: {type(error).__name__} {error}") from None


def known_names() -> set[str]:
    """Names of all packages that the project locks, including the notebook's tools."""
    return {normal(package["name"]) for package in _packages()}


def _packages() -> list[dict[str, Any]]:
    return read_toml(ROOT / "poetry.lock").get("package", [])


def _belongs(entry: dict[str, Any], environment: str, platform: str, wanted: set[str]) -> bool:
    groups = wanted & set(entry["groups"])
    markers = entry.get("markers", "")
    if isinstance(markers, str):
        markers = dict.fromkeys(groups, markers)
    return any(applies(markers.get(group, ""), platform, {environment}) for group in groups)


def _package(entry: dict[str, Any]) -> Package:
    wheels = [file for file in entry["files"] if file["file"].endswith(".whl")]
    artefacts = tuple(
        Artefact(file["file"], file.get("hash", "").removeprefix("sha256:")) for file in wheels
    )
    index = entry.get("source", {}).get("url", PYPI)
    return Package(normal(entry["name"]), entry["version"], index, artefacts)
