"""pixi's lock: one file; environments name the files that they take on each platform."""

from typing import Any

from locked import ROOT, Artefact, LockError, Package, normal, read_text

WITHOUT = {"upload dates"}
"""What this format does not record."""

PYTHON_ONLY = False
"""Whether every entry is a Python package, by the name that it has when installed."""

SUBDIRS = {"linux-x86_64": "linux-64", "linux-aarch64": "linux-aarch64", "macos-arm64": "osx-arm64"}


def read_lock(environment: str, platform: str) -> list[Package]:
    """The packages of `environment` on `platform`.

    Raises:
        LockError: the file is missing or damaged.
    """
    try:
        lock = _lock()
        entries = {entry.get("conda") or entry["pypi"]: entry for entry in lock["packages"]}
        chosen = lock["environments"][environment]["packages"][SUBDIRS[platform]]
        return [_package(entries[item.get("conda") or item["pypi"]]) for item in chosen]
    except (KeyError, TypeError, AttributeError) as error:
        raise LockError(f"pixi.lock is damaged: {type(error).__name__} {error}") from None


def known_names() -> set[str]:
    """Names of all packages that the project locks, the notebook's tools too."""
    return {_package(entry).name for entry in _lock()["packages"]}


def _lock() -> dict[str, Any]:
    import yaml  # part of the environment, which pixi makes: the check runs inside it

    try:
        return yaml.safe_load(read_text(ROOT / "pixi.lock"))
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise LockError(f"pixi.lock is not YAML: {reason}") from None


def _package(entry: dict[str, Any]) -> Package:
    url = entry.get("conda") or entry["pypi"]
    file = url.rsplit("/", 1)[-1].replace("%2B", "+")
    artefact = Artefact(file, entry.get("sha256", ""), url)
    if "pypi" in entry:
        return Package(normal(entry["name"]), entry["version"], "", (artefact,))
    name, version, _ = file.removesuffix(".conda").removesuffix(".tar.bz2").rsplit("-", 2)
    return Package(normal(name), version, url.rsplit("/", 2)[0], (artefact,))
