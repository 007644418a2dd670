"""Runs of the smoke configuration in processes of their own, the way a user starts them."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from launcher import PACKAGE, ROOT, Launcher

__all__ = ["PACKAGE", "ROOT"]

SMOKE = ROOT / "configs" / "smoke.yaml"
PLAIN = {"PYTHONHASHSEED": "1"}
OTHER = {
    "PYTHONHASHSEED": "2",
    "MALLOC_PERTURB_": "165",  # fresh memory is filled with bytes that are no zeros
    "TZ": "Pacific/Chatham",
    "LC_ALL": "C",
}


@cache
def launcher(other: bool = False) -> Launcher:
    """One of two interpreters: another hash seed, address layout, memory content, time zone."""
    return Launcher(OTHER if other else PLAIN)


@pytest.fixture(scope="session", autouse=True)
def _launchers() -> Iterator[None]:
    yield
    if launcher.cache_info().currsize:
        launcher(other=False).close()
        launcher(other=True).close()


def run(
    *arguments: object, env: Mapping[str, str] | None = None, other: bool = False, **disturb: Any
) -> subprocess.CompletedProcess[str]:
    """Run the package's command line to its end and capture what it prints."""
    return launcher(other).run(*arguments, environ=env, **disturb)


def train(run_dir: Path, *arguments: object, **how: Any) -> Path:
    """Train the smoke configuration into `run_dir`; fail the test if that fails."""
    done = run("train", "--config", SMOKE, "--run-dir", run_dir, *arguments, **how)
    assert done.returncode == 0, done.stderr
    return run_dir


def edit_manifest(run_dir: Path, **changes: Any) -> None:
    """Change facts of a recorded run: `edit_manifest(run, code={"commit": "…"}, seed=3)`."""
    path = run_dir / "manifest.json"
    manifest = json.loads(path.read_text())
    for key, change in changes.items():
        whole = isinstance(change, dict) and key in manifest
        manifest[key] = {**manifest[key], **change} if whole else change
    path.write_text(json.dumps(manifest))


@pytest.fixture(scope="session")
def pool() -> Iterator[ThreadPoolExecutor]:
    """Runs use one thread each, so two at a time fit on the smallest machine."""
    executor = ThreadPoolExecutor(max_workers=2)
    yield executor
    executor.shutdown(cancel_futures=True)  # after a failure under -x nobody waits for the rest


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run of the smoke configuration, shared by the tests that only read it."""
    return train(tmp_path_factory.mktemp("runs") / "smoke")
