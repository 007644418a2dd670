"""Hold the lock against what this project says its environments are: nothing is trusted.

python environment/check.py [--environment ENV] [--json]                  (`make lock-check`)
python environment/check.py --installed ENV [--json]

Checks, for each accelerator and platform: the framework's version, build and index, the CUDA
libraries, a sha256 for every file, no foreign index, nothing newer than the cut-off, every direct
dependency. With `--installed`: whether this interpreter's packages match the lock. Exit code 0:
everything is fine; 1: there are problems; 2: there is no readable lock.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from urllib.parse import urlsplit

import wheels
from failure import one_line
from locked import PYPI, LockError, Package, applies, here, normal, project, settings
from lockfile import PYTHON_ONLY, known_names, read_lock

CONDA_FORGE = "https://conda.anaconda.org/conda-forge"
FILES = {
    PYPI: ("files.pythonhosted.org",),
    "https://download.pytorch.org": ("download.pytorch.org", "download-r2.pytorch.org"),
}
"""The hosts that serve the files of an index, if not just the index itself."""
ONLY_CUDA = re.compile(r"nvidia-.*|cuda-(bindings|toolkit|pathfinder)|pytorch-gpu")
FRAMEWORKS = {"torch": ("torch", "pytorch"), "tensorflow": ("tensorflow-cpu", "tensorflow")}
"""The packages of a framework, by its key in `[tool.repro.environments.*]`."""
TOOLS = {"pip", "setuptools", "wheel", "uv"}
"""Packages that a fresh environment may contain although the lock does not list them."""


def main() -> int:
    """Check, print, and return the exit code."""
    options = _options()
    report: dict[str, list[str]] = {}
    unread = False
    for title, problems in _checks(options):
        try:
            report[title] = list(dict.fromkeys(problems))
        except LockError as error:
            report[title] = [str(error)]
            unread = True
    failed = {title: problems for title, problems in report.items() if problems}
    if options.json:
        print(json.dumps({"ok": not failed, "unread": unread, "problems": report}))
    else:
        _print(report)
    return 2 if unread else 1 if failed else 0


def _checks(options: argparse.Namespace) -> Iterator[tuple[str, Iterator[str]]]:
    if options.installed:
        yield f"{options.installed} installed", installed_problems(options.installed)
        return
    for name in [options.environment] if options.environment else settings()["environments"]:
        for platform in settings()["environments"][name]["platforms"]:
            yield f"{name} {platform}", lock_problems(name, platform)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = list(settings()["environments"])
    parser.add_argument("--environment", choices=names, help="only this one")
    parser.add_argument("--installed", choices=names, help="this interpreter's packages instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def _print(report: dict[str, list[str]]) -> None:
    for title, problems in report.items():
        for problem in problems:
            print(f"error: {title}: {problem}", file=sys.stderr)
        if problems:
            continue
        if title.endswith("installed"):
            print(f"{title:<20} holds: every package is the lock's")
        else:
            packages = read_lock(*title.split())
            files = sum(len(package.artefacts) for package in packages)
            print(f"{title:<20} holds: {len(packages)} packages, {files} hashed files")


def lock_problems(environment: str, platform: str) -> Iterator[str]:
    """All problems of the lock of `environment` on `platform`, one line each.

    Raises:
        LockError: there is no lock, or it cannot be read.
    """
    packages = read_lock(environment, platform)
    by_name = {package.name: package for package in packages}
    wanted = settings()["environments"][environment]
    yield from _framework_problems(by_name, wanted, platform)
    yield from _cuda_problems(by_name, wanted, environment)
    yield from _direct_problems(by_name, platform)
    seen: dict[str, str] = {}
    for package in packages:
        if seen.setdefault(package.name, package.version) != package.version:
            yield f"{package.name} stands in it twice: {seen[package.name]} and {package.version}"
        yield from _artefact_problems(package)
        yield from _wheel_problems(package, platform)


def _framework_problems(packages: dict[str, Package], wanted: dict, platform: str) -> Iterator[str]:
    framework = next(name for name in FRAMEWORKS if name in wanted)
    version = wanted[framework][platform.split("-")[0]]
    found = [packages[name] for name in FRAMEWORKS[framework] if name in packages]
    if not found:
        yield f"{framework} is not in it, and must be {version}"
        return
    package = found[0]
    # conda states the build of torch by a package, not by a local version.
    same = version.split("+")[0] if package.name == "pytorch" else version
    if package.version != same:
        yield f"{framework} is {package.version} and must be {same}"
    if package.name == "tensorflow" and "cuda" not in wanted and platform == "linux-x86_64":
        yield "tensorflow is the CUDA build here, and must be tensorflow-cpu"
    allowed = _indexes(package.name, wanted, platform)
    if package.index and package.index not in allowed:
        yield f"{framework} comes from {package.index} and must come from {' or '.join(allowed)}"


def _indexes(name: str, wanted: dict, platform: str) -> list[str]:
    if name == "pytorch":
        return [CONDA_FORGE]
    index = wanted.get("index", PYPI)
    # On macOS there is a single build, on PyPI and on the PyTorch index alike.
    return [index, PYPI] if platform.startswith("macos") and index != PYPI else [index]


def _cuda_problems(packages: dict[str, Package], wanted: dict, environment: str) -> Iterator[str]:
    libraries = {name: p.version for name, p in packages.items() if ONLY_CUDA.fullmatch(name)}
    if "cuda" not in wanted:
        if libraries:
            yield f"{environment} must hold no CUDA library, and has {', '.join(sorted(libraries))}"
        return
    line = ".".join(wanted["cuda"].split(".")[:2])
    runtimes = [p for name, p in packages.items() if re.fullmatch(r"nvidia-cuda-runtime.*", name)]
    runtimes += [packages["cuda-version"]] if "cuda-version" in packages else []  # conda's
    if not runtimes:
        yield f"it has no CUDA runtime, and must have CUDA {line}"
    for runtime in runtimes:
        if not f"{runtime.version}.".startswith(f"{line}."):
            yield f"{runtime.name} is {runtime.version} and must be of CUDA {line}"
    for library in ("cudnn", "nccl"):
        pinned = wanted.get(library)
        for name, version in libraries.items():
            if pinned and re.fullmatch(rf"nvidia-{library}-cu\d+", name) and version != pinned:
                yield f"{name} is {version} and must be {pinned}"


def _direct_problems(packages: dict[str, Package], platform: str) -> Iterator[str]:
    file = project()
    named = [*file["project"]["dependencies"], *file.get("dependency-groups", {}).get("dev", [])]
    for requirement in (each for each in named if isinstance(each, str)):  # no included groups
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*([^;]*)", requirement)
        name, specifier = normal(match[1]), match[2].strip(" ()")
        marker = requirement.partition(";")[2].strip()
        if not applies(marker, platform):
            continue
        package = packages.get(name) or packages.get(f"{name}-base")  # conda's split packages
        if package is None:
            yield f"older than pyproject.toml: {name} is not in it; run make lock"
        elif not _allows(specifier, package.version):
            yield f"older than pyproject.toml: it has {name} {package.version}; run make lock"


def _allows(specifier: str, version: str) -> bool:
    """Whether a version specifier (PEP 440) accepts a version. Outside the environment, only exact
    specifiers can be checked; the rest is checked inside, once it is installed."""
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        exact = re.fullmatch(r"===?\s*([^\s,]+)", specifier)
        if not exact:
            return True
        if exact[1].endswith(".*"):
            return f"{version}.".startswith(exact[1].removesuffix("*"))
        return _release(exact[1]) == _release(version)
    return SpecifierSet(specifier).contains(version, prereleases=True)


def _release(version: str) -> str:
    return re.sub(r"(\.0)+$", "", version)


def _wheel_problems(package: Package, platform: str) -> Iterator[str]:
    where = f"{package.name} {package.version}"
    names = [a.file for a in package.artefacts if a.file.endswith(".whl")]
    if names and not any(wheels.fits(name, platform) for name in names):
        yield f"{where} has no wheel for {platform}"
    for name in names:
        if not wheels.is_of(name, package.name, package.version):
            yield f"{where} names {name}, which is another package or version"


def _artefact_problems(package: Package) -> Iterator[str]:
    where = f"{package.name} {package.version}"
    if not package.artefacts:
        yield f"{where} has no wheel"
    for artefact in package.artefacts:
        if not re.fullmatch(r"[0-9a-f]{64}", artefact.sha256):
            yield f"{where} has no sha256{f' for {artefact.file}' if artefact.file else ''}"
        if artefact.url and urlsplit(artefact.url).hostname not in _hosts(package.index):
            index = package.index or "an index"
            yield f"{where} is fetched from {artefact.url}, no place of {index}"
        if artefact.uploaded > settings()["cutoff"] and package.name != "torch":
            yield f"{where} is of {artefact.uploaded[:10]}, newer than {settings()['cutoff'][:10]}"
    is_torch = package.name in ("torch", "pytorch")
    allowed = PYPI if PYTHON_ONLY else CONDA_FORGE
    if package.index and not is_torch and package.index != allowed:
        yield f"{where} comes from {package.index} and must come from {allowed}"


def _hosts(index: str) -> tuple[str | None, ...]:
    if not index:  # conda's locks name no index for pip packages
        return tuple(host for hosts in FILES.values() for host in hosts)
    known = next((hosts for start, hosts in FILES.items() if index.startswith(start)), None)
    return known or (urlsplit(index).hostname,)


def installed_problems(environment: str) -> Iterator[str]:
    """How the packages of this interpreter differ from the lock, one line each.

    Raises:
        LockError: there is no lock, it cannot be read, or it is not for this platform.
    """
    if not here():
        raise LockError("this platform is not one that the project is locked for")
    locked = {package.name: package.version for package in read_lock(environment, here())}
    found = ((d.metadata["Name"], d.version) for d in metadata.distributions())
    installed = {normal(name): version for name, version in found if name}
    for name, version in sorted(locked.items()):
        if name not in installed and PYTHON_ONLY:
            yield f"{name} is missing; run make setup"
        elif installed.get(name, version) != version:
            yield f"{name} is {installed[name]} instead of {version}; run make setup"
    if PYTHON_ONLY:
        yield from _unmet(set(locked))
    own = normal(project()["project"]["name"])
    for name in sorted(set(installed) - known_names() - TOOLS - {own}):
        if PYTHON_ONLY:
            yield f"{name} {installed[name]} is not in the lock; run make setup"


def _unmet(names: set[str]) -> Iterator[str]:
    # The lock is installed without resolving dependencies: missing ones only show here.
    from packaging.requirements import Requirement

    for name in sorted(names):
        try:
            needs = metadata.distribution(name).requires or []
        except metadata.PackageNotFoundError:
            continue  # reported already
        for need in map(Requirement, needs):
            if need.marker and not need.marker.evaluate({"extra": ""}):
                continue
            try:
                version = metadata.version(need.name)
            except metadata.PackageNotFoundError:
                yield f"{name} needs {need.name}, which the lock does not have; run make lock"
                continue
            if not need.specifier.contains(version, prereleases=True):
                yield f"{name} needs {need}, and the lock has {version}; run make lock"


if __name__ == "__main__":
    sys.exit(one_line(main))
