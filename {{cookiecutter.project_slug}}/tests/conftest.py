"""Runs of the smoke configuration in fresh processes, the way a user starts them."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "{{ cookiecutter.__package }}"
SMOKE = ROOT / "configs" / "smoke.yaml"


def command(*arguments: object) -> list[str]:
    """The command line of the package, for a fresh process."""
    return [sys.executable, "-m", PACKAGE, *map(str, arguments)]


def run(
    *arguments: object, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the package's command line to its end and capture what it prints."""
    # Empty, not unset: .env would fill it in, and tests report to no server.
    environ = {**os.environ, "MLFLOW_TRACKING_URI": ""}
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env={**environ, **(env or {})},
        capture_output=True,
        text=True,
    )


def train(run_dir: Path, *arguments: object, env: Mapping[str, str] | None = None) -> Path:
    """Train the smoke configuration into `run_dir`; fail the test if that fails."""
    done = run("train", "--config", SMOKE, "--run-dir", run_dir, *arguments, env=env)
    assert done.returncode == 0, done.stderr
    return run_dir


@pytest.fixture(scope="session")
def pool() -> Iterator[ThreadPoolExecutor]:
    """Runs use one thread each, so two at a time fit on the smallest machine."""
    with ThreadPoolExecutor(max_workers=2) as executor:
        yield executor


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run of the smoke configuration, shared by the tests that only read it."""
    return train(tmp_path_factory.mktemp("runs") / "smoke")
