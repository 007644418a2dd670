"""Hold the matrix against what a package registry tells, and propose rows for new releases.

python tools/matrix.py [--check] [--index URL]                                 (`make matrix`)

Read from metadata, without downloading a wheel: release dates, Pythons, NumPy and companions, the
CUDA, cuDNN and NCCL that PyPI's wheel brings. What differs is printed and, without `--check`,
written to `data/stacks.json`, with a row of status `proposed` for each newer release; no menu
shows it before somebody makes it `supported`. The rest is named as not checked.
"""

import argparse
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import template_logic as logic  # noqa: E402  (the template's root is not a package)
from tools import compact_json, registry  # noqa: E402

DATA = ROOT / "data" / "stacks.json"
OFFLINE_FACTS = (
    "minimum drivers and generations (NVIDIA), compute capabilities and the variants of the "
    "PyTorch index (PyTorch's RELEASE.md), image digests (Docker Hub), conda-forge's builds"
)
LINUX = {
    machine: {"platform_system": "Linux", "sys_platform": "linux", "platform_machine": machine}
    for machine in ("x86_64", "aarch64")
}
TOOLKIT_PINS = ("nvidia-cublas", "nvidia-cuda-nvrtc")


def observed(torch: str, pythons: list[str], index: str) -> dict[str, Any]:
    """What the registry says of a release of PyTorch; `variant` holds the facts of its own build.

    Raises:
        OSError: the registry cannot be reached.
        ValueError: it has no wheels of that release for Linux.
    """
    wheels = {
        f.python: f
        for f in registry.release("torch", torch, index)
        if f.name.endswith("x86_64.whl") and "linux" in f.name and f.python in pythons
    }
    if not wheels:
        raise ValueError(f"torch {torch}: the index has no wheel for Linux x86_64")
    one = wheels[max(wheels, key=Version)]
    needs = _requirements(one, "x86_64", max(wheels, key=Version))
    cuda = _cuda(needs)
    variant = {
        "cudnn": _pin(needs, rf"nvidia-cudnn-cu{cuda.split('.')[0]}"),
        "nccl": _pin(needs, rf"nvidia-nccl-cu{cuda.split('.')[0]}"),
    }
    if toolkit := _toolkit(needs, index):
        variant["toolkit"] = toolkit
    on_arm = _requirements(one, "aarch64", max(wheels, key=Version))
    arm = ["linux-aarch64"] if any(name.startswith("nvidia-cudnn") for name in on_arm) else []
    variant["platforms"] = ["linux-x86_64", *arm]
    return {
        "released": min(f.uploaded for f in wheels.values())[:10],
        "python": [python for python in pythons if python in wheels],
        "triton": re.sub(r"^[=~]+", "", str(needs["triton"].specifier)),
        "pypi_default": f"cu{cuda.replace('.', '')}",
        "variant": variant,
    }


def _requirements(wheel: registry.File, machine: str, python: str) -> dict[str, Requirement]:
    lines = registry.metadata(wheel).get_all("Requires-Dist") or []
    environment = {**LINUX[machine], "python_version": python, "extra": ""}
    needs = [Requirement(line) for line in lines]
    return {n.name: n for n in needs if not n.marker or n.marker.evaluate(environment)}


def _cuda(needs: dict[str, Requirement]) -> str:
    for name, need in needs.items():
        if re.fullmatch(r"cuda-toolkit|nvidia-cuda-runtime-cu\d+", name):
            return ".".join(_exact(need).split(".")[:2])
    raise ValueError("the wheel names no CUDA")


def _pin(needs: dict[str, Requirement], pattern: str) -> str | None:
    return next((_exact(n) for name, n in needs.items() if re.fullmatch(pattern, name)), None)


def _exact(need: Requirement) -> str:
    return str(need.specifier).removeprefix("==").removesuffix(".*")


def _toolkit(needs: dict[str, Requirement], index: str) -> dict[str, str]:
    if "cuda-toolkit" not in needs:
        return {}
    wanted = Version(_exact(needs["cuda-toolkit"]))
    wheels = registry.wheels("cuda-toolkit", index)
    wheel = next(f for f in wheels if Version(f.version) == wanted)
    named = {}
    for line in registry.metadata(wheel).get_all("Requires-Dist") or []:
        need = Requirement(line)
        if need.name in TOOLKIT_PINS:
            named[need.name] = _exact(need)
    return {name: named[name] for name in TOOLKIT_PINS}


def differences(release: dict[str, Any], index: str) -> dict[str, tuple[Any, Any]]:
    """Facts of a row that the registry contradicts, with both values."""
    seen = observed(release["torch"], release["python"], index)
    facts = release["variants"].get(seen["pypi_default"], {})
    found = {
        key: (release[key], seen[key])
        for key in ("released", "python", "pypi_default")
        if release[key] != seen[key]
    }
    if Version(release["triton"]) not in Requirement(f"triton~={seen['triton']}").specifier:
        found["triton"] = (release["triton"], seen["triton"])
    for key, value in seen["variant"].items():
        if facts.get(key) != value:
            found[f"variants.{seen['pypi_default']}.{key}"] = (facts.get(key), value)
    for problem, (ours, theirs) in companions(release, index).items():
        found[problem] = (ours, theirs)
    return found


def wheels_differ(release: dict[str, Any], index: str) -> dict[str, tuple[Any, Any]]:
    """Facts of a row that is not PyTorch's which the registry contradicts: date and Pythons of the
    wheels for Linux, and packages that are not there."""
    name = logic.framework_of(release)
    wheels = [f for f in registry.release(name, release[name], index) if "linux" in f.name]
    if not wheels:
        return {name: (release[name], "no wheel for Linux")}
    here = {f.python for f in wheels}
    seen = {
        "released": min(f.uploaded for f in wheels)[:10],
        "python": [python for python in release["python"] if python in here],
    }
    found = {key: (release[key], value) for key, value in seen.items() if release[key] != value}
    facts = release["variants"][release["pypi_default"]]
    major = release["pypi_default"].removeprefix("cu")[:2]
    packages = {"keras": release["keras"], "numpy": release["numpy"], **facts["toolkit"]}
    packages |= {f"nvidia-{each}-cu{major}": facts[each] for each in ("cudnn", "nccl")}
    for package, version in packages.items():
        if not registry.release(package, version, index):
            found[package] = (version, "no wheel")
    return found


def companions(release: dict[str, Any], index: str) -> dict[str, tuple[Any, Any]]:
    """NumPy, torchvision and torchaudio of a row, if they do not fit it."""
    found = {}
    numpy = {f.python for f in registry.release("numpy", release["numpy"], index)}
    if missing := [python for python in release["python"] if python not in numpy]:
        found["numpy"] = (release["numpy"], f"no wheels for Python {', '.join(missing)}")
    for name in ("torchvision", "torchaudio"):
        wheels = registry.release(name, release[name], index)
        linux = [f for f in wheels if "linux" in f.name or f.name.endswith("-any.whl")]
        if not linux:
            found[name] = (release[name], "no wheel")
            continue
        needs = _requirements(linux[0], "x86_64", release["python"][0])
        if "torch" in needs and release["torch"] not in needs["torch"].specifier:
            found[name] = (release[name], f"needs {needs['torch']}")
    return found


def proposals(releases: list[dict[str, Any]], index: str) -> list[dict[str, Any]]:
    """Rows for releases newer than all those in the data."""
    newest = max(Version(release["torch"]) for release in releases)
    versions = {Version(f.version) for f in registry.wheels("torch", index) if not f.yanked}
    new = [v for v in versions if v > newest and not v.is_prerelease and v.local is None]
    return [proposed(str(version), releases, index) for version in sorted(new)]


def proposed(torch: str, releases: list[dict[str, Any]], index: str) -> dict[str, Any]:
    """A row for a new release: facts from the registry, and the rest from the newest row."""
    newest = max(releases, key=lambda release: Version(release["torch"]))
    pythons = json.loads((ROOT / "data" / "packages.json").read_text())["pythons"]
    seen = observed(torch, list(pythons), index)
    default = seen["pypi_default"]
    like = newest["variants"].get(default) or newest["variants"][newest["pypi_default"]]
    variant = {**seen["variant"], "compute_capability": like["compute_capability"]}
    row = {
        "torch": torch,
        "released": seen["released"],
        "status": "proposed",
        "python": seen["python"],
        "numpy": newest["numpy"],
        "torchvision": _companion("torchvision", torch, index),
        "torchaudio": _companion("torchaudio", torch, index),
        "triton": seen["triton"],
        "pypi_default": default,
        "conda_forge": [],
        "variants": {default: variant, "cpu": {}},
        "source": f"https://pypi.org/project/torch/{torch}/: wheel metadata; compute capability as"
        f" of PyTorch {newest['torch']}: not checked",
        "checked": datetime.now(UTC).date().isoformat(),
    }
    return row


def _companion(name: str, torch: str, index: str) -> str:
    files = [f for f in registry.wheels(name, index) if not f.yanked]
    versions = {Version(f.version) for f in files if not Version(f.version).is_prerelease}
    for version in sorted(versions, reverse=True)[:8]:
        wheel = next(f for f in files if f.version == str(version))
        needs = _requirements(wheel, "x86_64", "3.12")
        if "torch" not in needs or torch in needs["torch"].specifier:
            return str(version)
    raise ValueError(f"no release of {name} takes torch {torch}")


def apply(release: dict[str, Any], found: dict[str, tuple[Any, Any]]) -> None:
    """Apply the differences to the data; a companion that does not fit needs a human."""
    for key, (_, value) in found.items():
        if key in ("numpy", "torchvision", "torchaudio", "pypi_default"):
            continue
        *path, last = key.split(".")
        place = release
        for part in path:
            place = place[part]
        place[last] = value


def main() -> int:
    """Print and apply the differences; return 1 if any are left."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--index", default=registry.PYPI, help="a simple index")
    parser.add_argument("--data", type=Path, default=DATA, help=argparse.SUPPRESS)
    options = parser.parse_args()
    data = json.loads(options.data.read_text(encoding="utf-8"))
    count = 0
    try:
        for release in data["releases"]:
            is_torch = "torch" in release
            found = (differences if is_torch else wheels_differ)(release, options.index)
            title = " ".join(logic.release_name(release).split("-", 1))
            for key, (ours, theirs) in found.items():
                print(f"{title}: {key}: data {ours}, registry {theirs}")
            count += len(found)
            apply(release, found)
        new = proposals([r for r in data["releases"] if "torch" in r], options.index)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for row in new:
        print(f"torch {row['torch']}: a new release; proposed as a row, to be made supported")
    data["releases"] += new
    print(f"{len(data['releases'])} releases, {count} differences, {len(new)} new")
    print(f"not checked: {OFFLINE_FACTS}")
    if not options.check and (count or new):
        options.data.write_text(compact_json.dumps(data) + "\n", encoding="utf-8")
    if not options.check and options.data == DATA:
        subprocess.run([sys.executable, ROOT / "tools" / "menu.py"], check=True)
    return 1 if options.check and (count or new) else 0


if __name__ == "__main__":
    sys.exit(main())
