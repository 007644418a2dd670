"""Checks before starting containers, and one-line explanations of the engine's errors."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from failure import SetupError, explain
from locked import ROOT

COMPOSE = (2, 20)
"""The oldest version that starts a service without its optional dependency being requested."""
INSTALL = "https://docs.docker.com/engine/install/"
REASONS = (
    (
        r"could not select device driver|unknown or invalid runtime name: nvidia",
        "the engine cannot hand on a GPU: install the NVIDIA Container Toolkit and restart the "
        "engine, or take ACCELERATOR=cpu",
    ),
    (
        r"nvidia-container-cli|libnvidia-ml|unsatisfied condition: cuda",
        "the NVIDIA driver is missing or too old for this image: see the README's requirements, "
        "or take ACCELERATOR=cpu",
    ),
    (
        r"port is already allocated|address already in use",
        "a port is in use; set another MLFLOW_PORT or JUPYTER_PORT in .env",
    ),
    (
        r"(?i)no space left on device",
        "the disk is full; docker system prune frees what old builds left",
    ),
    (
        r"buildx component is missing|requires BuildKit|unknown flag: --target",
        f"docker has no buildx plugin: install docker-buildx-plugin ({INSTALL})",
    ),
    (
        r"failed to do request|failed to resolve source metadata|pull access denied",
        "an image cannot be had from its registry; BASE_IMAGE_CPU, BASE_IMAGE_CUDA and UV_IMAGE "
        "name others",
    ),
)
"""Patterns of engine errors, and their explanations."""


def check_engine(environ: Mapping[str, str]) -> None:
    """Raise a `SetupError` unless a container engine answers."""
    if not shutil.which("docker", path=environ.get("PATH")):
        raise SetupError(f"docker not found: install Docker Engine ({INSTALL})")
    done = subprocess.run(["docker", "info"], env=environ, capture_output=True, text=True)
    if done.returncode == 0:
        return
    if "permission denied" in done.stderr:
        raise SetupError("you may not use the container engine: add yourself to the group docker")
    raise SetupError("no container engine answers; start it: sudo systemctl start docker")


def check_compose(environ: Mapping[str, str]) -> None:
    """Raise a `SetupError` unless there is a recent enough compose plugin."""
    command = ["docker", "compose", "version", "--short"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    found = re.search(r"(\d+)\.(\d+)", done.stdout)
    if done.returncode or not found:
        raise SetupError(f"docker has no compose plugin: install docker-compose-plugin ({INSTALL})")
    if tuple(map(int, found.groups())) < COMPOSE:
        oldest = ".".join(map(str, COMPOSE))
        raise SetupError(f"docker compose is {found[0]}; this project needs {oldest} or newer")


def check_folder(folder: Path, user: int, group: int) -> None:
    """Create a folder that containers write to; the engine would create it as root.

    Raises:
        SetupError: it cannot be created, or the user in the container cannot write to it.
    """
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True)
            if os.getuid() == 0:
                os.chown(folder, user, group)
    except OSError as error:
        raise SetupError(f"{folder} cannot be made: {error.strerror}") from None
    facts = folder.stat()
    shift = 6 if facts.st_uid == user else 3 if facts.st_gid == group else 0
    if user and facts.st_mode >> shift & 0o3 != 0o3:  # permission to write and to enter
        raise SetupError(
            f"{folder} is not writable by user {user}, who trains in the container: "
            f"sudo chown -R {user}:{group} {shlex.quote(str(folder))}"
        )


def why(said: str, compose: list[str], environ: Mapping[str, str]) -> str:
    """Explain the engine's output in one line; for a stopped service, use the service's own log."""
    stopped = re.search(r"container \S*?-([a-z]+)-\d+ (?:exited|is unhealthy)", said)
    if stopped:
        command = [*compose, "logs", "--no-log-prefix", "--tail", "20", stopped[1]]
        done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
        return f"{stopped[1]} did not start: {explain(done.stdout)}"
    for pattern, reason in REASONS:
        if re.search(pattern, said):
            return reason
    # BuildKit prefixes each line with step and time, and appends lines of its own.
    lines = [re.sub(r"^#\d+ +[\d.]+ ", "", line) for line in said.splitlines()]
    return explain("\n".join(x for x in lines if not re.match(r"(#\d+ )?ERROR: |-+$|>>> ", x)))
