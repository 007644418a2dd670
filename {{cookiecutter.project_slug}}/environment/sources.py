"""Where packages come from: the public indexes, mirrors of them, or a folder.

PACKAGE_INDEX, PYTORCH_INDEX_CPU and PYTORCH_INDEX_CUDA name mirrors (a simple index each),
CONDA_CHANNEL one of conda-forge. Wherever it comes from, each file must have the lock's sha256.
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
    """Mirrors by what they mirror, and a folder of files in place of all of them."""

    package_index: str = ""
    pytorch_index: str = ""
    conda_channel: str = ""
    wheelhouse: Path | None = None

    @classmethod
    def from_environment(cls, wheelhouse: Path | None = None) -> Self:
        """As the variables say; ACCELERATOR chooses among the PyTorch indexes."""
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
        """Whether the manager may go where the lock says."""
        return self == Sources()

    def pip_options(self, index: str) -> list[str]:
        """Options, of pip and of `uv pip`, for what the lock has from `index`."""
        if self.wheelhouse:
            return ["--no-index", "--find-links", str(self.wheelhouse)]
        if index == PYPI:
            return ["--index-url", self.package_index] if self.package_index else []
        return ["--index-url", self.pytorch_index or index]


def pip_install(python: Path) -> list[str | Path]:
    """pip's command for files with hashes."""
    command = [python, "-m", "pip", "install", "--disable-pip-version-check"]
    return [*command, "--require-hashes", "--no-deps", "--only-binary=:all:"]


def write_requirements(environment: str, folder: Path) -> list[tuple[str, Path]]:
    """The lock of `environment` here as requirements files with hashes, one for each index."""
    by_index: dict[str, list[Package]] = {}
    for package in read_lock(environment, here()):
        by_index.setdefault(package.index, []).append(package)
    written = []
    for number, (index, packages) in enumerate(sorted(by_index.items())):
        path = folder / f"locked-{environment}-{number}.txt"
        path.write_text(requirements(packages), encoding="utf-8")
        written.append((index, path))
    return written
