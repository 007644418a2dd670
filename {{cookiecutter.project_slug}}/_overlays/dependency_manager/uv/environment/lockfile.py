"""uv's lock: one file for all accelerators and platforms, a graph rooted at this project."""

from typing import Any

from locked import ROOT, Artefact, LockError, Package, applies, normal, project, read_toml

PYTHON_ONLY = True
"""Whether every entry is a Python package, under the name it has when installed."""


def read_lock(environment: str, platform: str, groups: tuple[str, ...] = ("dev",)) -> list[Package]:
    """Read the packages of `environment` on `platform`, including the dependency groups.

    Raises:
        LockError: the file is missing or damaged.
    """
    try:
        return _walk(environment, platform, groups)
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise LockError(f"uv.lock is damaged: {type(error).__name__} {error}") from None


def known_names() -> set[str]:
    """Names of all packages that the project locks, including the notebook's tools."""
    return {package["name"] for package in _packages()}


def _packages() -> list[dict[str, Any]]:
    return read_toml(ROOT / "uv.lock")["package"]


def _walk(environment: str, platform: str, groups: tuple[str, ...]) -> list[Package]:
    name = normal(project()["project"]["name"])
    extras = {f"extra-{len(name)}-{name}-{environment}"}
    packages = _packages()
    root = next(p for p in packages if p["name"] == name and "editable" in p["source"])
    queue = [
        *root.get("dependencies", []),
        *root["optional-dependencies"][environment],
        *(edge for group in groups for edge in root["dev-dependencies"][group]),
    ]
    found: dict[tuple[str, str], dict[str, Any]] = {}
    seen: set[tuple[str, str, str]] = set()
    while queue:
        edge = queue.pop()
        if not applies(edge.get("marker", ""), platform, extras):
            continue
        package = _target(edge, packages)
        found[package["name"], package["version"]] = package
        for extra in ["", *edge.get("extra", [])]:
            if (visit := (package["name"], package["version"], extra)) not in seen:
                seen.add(visit)
                more = package.get("optional-dependencies", {}).get(extra, [])
                queue += more if extra else package.get("dependencies", [])
    return [_package(found[key]) for key in sorted(found)]


def _target(edge: dict[str, Any], packages: list[dict[str, Any]]) -> dict[str, Any]:
    # An edge gives version and source if the name alone is ambiguous.
    return next(
        package
        for package in packages
        if package["name"] == edge["name"]
        and edge.get("version", package["version"]) == package["version"]
        and edge.get("source", package["source"]) == package["source"]
    )


def _package(entry: dict[str, Any]) -> Package:
    # Wheels only: nothing is built during set-up.
    artefacts = tuple(
        Artefact(
            file=wheel["url"].rsplit("/", 1)[-1].replace("%2B", "+"),
            sha256=wheel.get("hash", "").removeprefix("sha256:"),
            url=wheel["url"],
            uploaded=wheel.get("upload-time", ""),
        )
        for wheel in entry.get("wheels", [])
    )
    # Other sources than a registry (git, a path, a URL) are reported as they are, and refused.
    index = entry["source"].get("registry") or str(entry["source"])
    return Package(normal(entry["name"]), entry["version"], index, artefacts)
