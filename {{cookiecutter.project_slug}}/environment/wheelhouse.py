"""Collect the files that the lock names, for machines without a network.

python environment/wheelhouse.py cpu|cuda DIR                              (`make wheelhouse`)

For this machine's platform and Python. Each file must match the lock's sha256 when downloaded,
and again when `make setup WHEELHOUSE=DIR` installs it.
"""

import argparse
import hashlib
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from failure import SetupError, one_line, run_quietly, without_secrets
from locked import Package, here, settings
from lockfile import PYTHON_ONLY, read_lock
from sources import Sources, write_requirements


def main() -> int:
    """Collect and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("environment", choices=list(settings()["environments"]))
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    packages = read_lock(options.environment, here())
    collect = _by_pip if PYTHON_ONLY else _by_address
    collect(options.environment, options.folder.resolve(), packages)
    size = sum(path.stat().st_size for path in options.folder.rglob("*") if path.is_file())
    print(f"{len(packages)} packages, {size / 1e6:.0f} MB; on the other machine:")
    print(f"make setup ACCELERATOR={options.environment} WHEELHOUSE={options.folder}")
    return 0


def _by_pip(environment: str, folder: Path, packages: list[Package]) -> None:
    # Only pip can choose among a package's wheels for this platform.
    with tempfile.TemporaryDirectory() as scratch:
        run_quietly([sys.executable, "-m", "venv", f"{scratch}/venv"])
        pip = [f"{scratch}/venv/bin/python", "-m", "pip", "download", "--no-deps"]
        pip += ["--disable-pip-version-check", "--require-hashes", "--only-binary=:all:"]
        sources = Sources.from_environment()
        for index, file in write_requirements(environment, Path(scratch)):
            print(f"pip download from {without_secrets(index)}", flush=True)
            command = [*pip, *sources.pip_options(index), "--dest", folder, "--requirement", file]
            run_quietly(command)


def _by_address(environment: str, folder: Path, packages: list[Package]) -> None:
    channel = Sources.from_environment().conda_channel
    for artefact in (artefact for package in packages for artefact in package.artefacts):
        subdir = artefact.url.rsplit("/", 2)[1]
        target = folder / subdir / artefact.file
        if target.is_file() and _sha256(target) == artefact.sha256:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.partial")
        address = f"{channel}/{subdir}/{artefact.file}" if channel else artefact.url
        try:
            with urllib.request.urlopen(address) as response, partial.open("wb") as file:
                while block := response.read(1 << 20):
                    file.write(block)
        except (urllib.error.URLError, OSError) as error:
            raise SetupError(f"{address} cannot be had: {error}", code=1) from None
        if _sha256(partial) != artefact.sha256:
            partial.unlink()
            raise SetupError(f"{address} is not the file that the lock names (sha256)", code=1)
        partial.replace(target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(one_line(main))
