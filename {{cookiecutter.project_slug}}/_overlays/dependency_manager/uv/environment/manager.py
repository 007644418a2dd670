"""How uv creates an environment: one sync; from mirrors or a folder, files with hashes."""

import sys
from collections.abc import Callable
from pathlib import Path

from sources import Sources, write_requirements

BRINGS_PYTHON = False
NEEDS = ("uv", "0.11", "https://docs.astral.sh/uv/getting-started/installation/")
"""The command, its minimum version, and where to get it."""


def prefix(environment: str) -> None:
    """The folder that the manager insists on: none, any will do."""


def install(prefix: Path, environment: str, sources: Sources, run: Callable[..., None]) -> None:
    """Create the environment in `prefix`."""
    if sources.are_public:
        sync = ["uv", "sync", "--locked", "--extra", environment, "--no-install-project"]
        variables = {"UV_PROJECT_ENVIRONMENT": str(prefix)}
        run([*sync, "--no-build", "--python", sys.executable], variables)
        return
    # uv's lock contains the address of each file, so a mirror cannot replace it there.
    run(["uv", "venv", "--python", sys.executable, prefix])
    pip = ["uv", "pip", "install", "--python", prefix / "bin" / "python", "--no-config"]
    pip += ["--require-hashes", "--no-deps", "--only-binary=:all:"]
    for index, file in write_requirements(environment, prefix):
        run([*pip, *sources.pip_options(index), "--requirements", file])
