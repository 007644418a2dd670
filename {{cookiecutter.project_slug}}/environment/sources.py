"""Where packages come from: the public indexes, mirrors of them, or a folder.

PACKAGE_INDEX, PYTORCH_INDEX_CPU and PYTORCH_INDEX_CUDA name mirrors (each a simple index),
CONDA_CHANNEL a mirror of conda-forge. Wherever a file comes from, it must match the lock's sha256.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from failure import SetupError
from locked import PYPI, Package, here, requirements
from lockfile import read_lock


@dataclass(frozen=True)
class Sources:
    """Mirrors, by what they mirror, or a folder of files that replaces them all."""

    package_index: str = ""
    pytorch_index: str = ""
    conda_channel: str = ""
    wheelhouse: Path | None = None

    @classmethod
    def from_environment(cls, wheelhouse: Path | None = None) -> Self:
        """Read the environment variables; ACCELERATOR selects the PyTorch index."""
        accelerator = os.environ.get("ACCELERATOR", "cpu").upper()
        if wheelhouse is not None and not wheelhouse.is_dir():
            raise SetupError(f"WHEELHOUSE={wheelhouse} is no folder; make wheelhouse fills one")
        return cls(
            os.environ.get("PACKAGE_INDEX", ""),
            os.environ.get(f"PYTORCH_INDEX_{accelerator}", ""),
            os.environ.get("CONDA_CHANNEL", ""),
            wheelhouse.resolve() if wheelhouse else None,
        )

    @property
    def are_public(self) -> bool:
        """Whether the manager may download from the addresses in the lock."""
        return self == Sources()

    def pip_options(self, index: str) -> list[str]:
        """Options for pip and `uv pip` to install what the lock takes from `index`."""
        if self.wheelhouse:
            return ["--no-index", "--find-links", str(self.wheelhouse)]
        if index == PYPI:
            return ["--index-url", self.package_index] if self.package_index else []
        return ["--index-url", self.pytorch_index or index]


def pip_install(python: Path) -> list[str | Path]:
    """The pip command that installs files with hashes."""
    command = [python, "-m", "pip", "install", "--disable-pip-version-check"]
    return [*command, "--require-hashes", "--no-deps", "--only-binary=:all:"]


def write_requirements(environment: str, folder: Path) -> list[tuple[str, Path]]:
    """Write the lock of `environment` for this platform as hashed requirements, one per index."""
    by_index: dict[str, list[Package]] = {}
    for package in read_lock(environment, here()):
        by_index.setdefault(package.index, []).append(package)
    written = []
    for number, (index, packages) in enumerate(sorted(by_index.items())):
        path = folder / f"locked-{environment}-{number}.txt"
        path.write_text(requirements(packages), encoding="utf-8")
        written.append((index, path))
    return written
