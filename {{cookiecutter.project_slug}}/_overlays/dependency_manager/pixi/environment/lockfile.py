"""pixi's lock: one file, in which each environment lists its files per platform."""

from typing import Any

from locked import ROOT, SUBDIRS, Artefact, LockError, Package, normal, read_yaml

LOCK = ROOT / "pixi.lock"

PYTHON_ONLY = False
"""Whether every entry is a Python package, under the name it has when installed."""


def read_lock(environment: str, platform: str) -> list[Package]:
    """Read the packages of `environment` on `platform`.

    Raises:
        LockError: the file is missing or damaged.
    """
    try:
        lock = read_yaml(LOCK)
        entries = {entry.get("conda") or entry["pypi"]: entry for entry in lock["packages"]}
        chosen = lock["environments"][environment]["packages"][SUBDIRS[platform]]
        return [_package(entries[item.get("conda") or item["pypi"]]) for item in chosen]
    except (KeyError, TypeError, AttributeError) as error:
        raise LockError(f"pixi.lock is damaged: {type(error).__name__} {error}") from None


def known_names() -> set[str]:
    """Names of all packages that the project locks, including the notebook's tools."""
    return {_package(entry).name for entry in read_yaml(LOCK)["packages"]}


def _package(entry: dict[str, Any]) -> Package:
    url = entry.get("conda") or entry["pypi"]
    file = url.rsplit("/", 1)[-1].replace("%2B", "+")
    artefact = Artefact(file, entry.get("sha256", ""), url)
    if "pypi" in entry:
        return Package(normal(entry["name"]), entry["version"], "", (artefact,))
    name, version, _ = file.removesuffix(".conda").removesuffix(".tar.bz2").rsplit("-", 2)
    return Package(normal(name), version, url.rsplit("/", 2)[0], (artefact,))
