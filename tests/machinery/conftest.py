"""Runs of the smoke configuration in processes of their own, the way a user starts them.

These tests are of the machinery in `repro/`; they run inside a generated project called `real`, by
its interpreter (`tests/test_machinery.py`).
"""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from real.config import Config
from real.repro.env import wanted_environment
from real.repro.shell import is_foreign
from real.repro.testing.launcher import PACKAGE, ROOT, Launcher
from real.repro.testing.proof import ELSEWHERE, PLAIN
from real.repro.testing.surroundings import VARIED

__all__ = ["PACKAGE", "ROOT"]

# The calling shell must not affect the tests. A git hook names its repository, which must not be
# mistaken for those of the tests.
for name in [n for n in os.environ if n.startswith("GIT_") or is_foreign(n)]:
    del os.environ[name]
SMOKE = ROOT / "configs" / "smoke.yaml"


@cache
def launcher(other: bool = False) -> Launcher:
    """One of two interpreters: another hash seed, address layout, memory content, time zone."""
    environ = ELSEWHERE if other else PLAIN
    # With this source, whatever the interpreter would import.
    given = {**os.environ, **environ, "PYTHONPATH": str(ROOT / "src")}
    return Launcher(environ, wanted_environment(Config.load(SMOKE), given))


@pytest.fixture(scope="session", autouse=True)
def _launchers() -> Iterator[None]:
    yield
    if launcher.cache_info().currsize:
        launcher(other=False).close()
        launcher(other=True).close()


def run(
    *arguments: object, env: Mapping[str, str] | None = None, other: bool = False, **disturb: Any
) -> subprocess.CompletedProcess[str]:
    """Run the package's command line to its end and capture what it prints.

    A disturbance that did not happen fails the test, whatever the result of the run.
    """
    done = launcher(other).run(*arguments, environ=env, **disturb)
    wanted = [*(VARIED if "vary" in disturb else ()), *(["SIGKILL"] if "kill" in disturb else ())]
    wanted += [disturb["send"].split()[0]] if "send" in disturb else []
    missing = [mark for mark in wanted if not done.marks.get(mark)]
    assert not missing, f"{', '.join(missing)} did not happen: {done.stderr}"
    return done


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


def commit(folder: Path) -> None:
    """Make `folder` a repository with all of it in one commit, whatever git is set to here."""
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t"]
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True, env=environ)


@pytest.fixture(scope="session")
def pool() -> Iterator[ThreadPoolExecutor]:
    """Runs use one thread each, so two at a time fit on the smallest machine."""
    executor = ThreadPoolExecutor(max_workers=2)
    yield executor
    executor.shutdown(cancel_futures=True)  # after a failure with -x, do not wait for the rest


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run of the smoke configuration, shared by the tests that only read it."""
    return train(tmp_path_factory.mktemp("runs") / "smoke")
