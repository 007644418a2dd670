"""conda-lock's files: one per accelerator, with an entry for each package and platform."""

from typing import Any

from locked import ROOT, SUBDIRS, Artefact, LockError, Package, normal, read_yaml

PYTHON_ONLY = False
"""Whether every entry is a Python package, under the name it has when installed."""


def read_lock(environment: str, platform: str) -> list[Package]:
    """Read the packages of `environment` on `platform`.

    Raises:
        LockError: the file is missing or damaged.
    """
    try:
        entries = _entries(environment)
        chosen = [e for e in entries if e["platform"] == SUBDIRS[platform]]
        return [_package(entry) for entry in chosen]
    except (KeyError, TypeError, AttributeError) as error:
        raise LockError(
            f"{environment}.conda-lock.yml is damaged: {type(error).__name__} {error}"
        ) from None


def known_names() -> set[str]:
    """Names of all packages that the project locks."""
    files = sorted(ROOT.glob("*.conda-lock.yml"))
    return {normal(e["name"]) for path in files for e in _entries(path.name.split(".")[0])}


def _entries(environment: str) -> list[dict[str, Any]]:
    return read_yaml(ROOT / f"{environment}.conda-lock.yml")["package"]


def _package(entry: dict[str, Any]) -> Package:
    url = entry["url"]
    index = url.rsplit("/", 2)[0] if entry["manager"] == "conda" else ""
    artefact = Artefact(url.rsplit("/", 1)[-1], entry["hash"].get("sha256", ""), url)
    return Package(normal(entry["name"]), entry["version"], index, (artefact,))
