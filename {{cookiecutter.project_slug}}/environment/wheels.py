"""What a wheel's file name says (PEP 427 and 425): its package, and where it runs."""

from locked import normal, project


def fits(file: str, platform: str) -> bool:
    """Whether a wheel is for this project's Python on `platform`; the minimum version of the C
    library, which is also part of the tags, is left to the manager."""
    *_, pythons, abis, systems = file.removesuffix(".whl").split("-")
    python = project()["project"]["requires-python"].removeprefix("==").removesuffix(".*")
    minor = int(python.split(".")[1])
    compiled = any(_runs(tag, abi, minor) for tag in pythons.split(".") for abi in abis.split("."))
    return compiled and any(_is_of(system, platform) for system in systems.split("."))


def _runs(tag: str, abi: str, minor: int) -> bool:
    kind, version = tag[:2], tag[2:]
    if kind not in ("py", "cp") or not version.startswith("3"):
        return False
    if kind == "cp" and abi != "abi3":
        return version == f"3{minor}" and abi in (f"cp3{minor}", "none")
    return abi in ("none", "abi3") and int(version[1:] or 0) <= minor


def _is_of(system: str, platform: str) -> bool:
    if system == "any":
        return True
    if platform == "macos-arm64":
        return system.startswith("macosx_") and system.endswith(("_arm64", "_universal2"))
    machine = platform.removeprefix("linux-")
    return system.startswith(("manylinux", "linux_")) and system.endswith(f"_{machine}")


def is_of(file: str, name: str, version: str) -> bool:
    """Whether a wheel's file name matches this package and version."""
    of, its, *_ = file.split("-")
    return normal(of) == name and its.replace("_", "+") == version.replace("_", "+")
