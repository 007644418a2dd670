"""Projects of the managers beside pip really install, and locks come out as they are shipped."""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from conftest import REAL_CUDA_STACK, REAL_STACK, commit, make

import template_logic as logic
from tools import demo, pytorch_index, registry

pytestmark = pytest.mark.real
TORCH = logic.stack(REAL_STACK)["torch"]
SLOW = pytest.mark.slow


# Their locks name what pip's names, so that all of `make check` is proved there; in theirs it is
# tried by `make test-slow`.
@pytest.mark.parametrize("checks", [["lint", "doctor"], pytest.param(["check"], marks=SLOW)])
@pytest.mark.parametrize("manager", ["uv", "poetry"])
def test_another_manager_installs_its_shipped_lock_trains_and_verifies(baked_real, manager, checks):
    """A CUDA project in its CPU environment, from a mirror of the PyTorch index: the lock holds,
    a short run verifies, its own checks find nothing."""
    answers = {"project_slug": f"real-{manager}-{checks[0]}", "stack": REAL_CUDA_STACK}
    project = baked_real(dependency_manager=manager, **answers).path
    commit(project)
    with demo.local_torch(project, TORCH, locks=False):
        make(project, "setup")
    assert "cpu linux-x86_64     holds" in make(project, "lock-check")
    output = make(project, "train", "verify", *checks, "CONFIG=configs/smoke.yaml")
    assert "IDENTICAL" in output.splitlines()
    assert "items, 0 fail" in output
    # Ruff says that "all checks passed" too; pytest counts.
    assert (re.search(r"\d+ passed", output) is not None) == ("check" in checks)


@pytest.mark.parametrize("manager", ["pip", "uv"])
def test_a_manager_locks_again(baked_real, manager):
    """`make lock` gives what `make locks` of the template ships, but for the index's address."""
    project = baked_real(dependency_manager=manager, project_slug=f"relocked-{manager}").path
    shipped = {path: path.read_text() for path in locks(project)}
    with demo.local_torch(project, TORCH, locks=True):
        make(project, "lock")
        check = [sys.executable, project / "environment" / "check.py"]
        done = subprocess.run(check, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert {path: versions(path.read_text()) for path in locks(project)} == {
        path: versions(text) for path, text in shipped.items()
    }


@contextmanager
def a_day_later(packages: set[str]) -> Iterator[str]:
    """PyPI with one more release of each of `packages`, uploaded after every cut-off."""

    def answer(path: str) -> tuple[bytes, str] | None:
        name = path.strip("/").rsplit("/", 1)[-1]
        accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
        request = urllib.request.Request(f"{registry.PYPI}/{name}/", headers=accept)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                page = json.load(response)
        except urllib.error.HTTPError:
            return None
        if name in packages:
            newer = f"{name.replace('-', '_')}-999.0-py3-none-any.whl"
            files = {"url": f"{registry.PYPI}/{newer}", "hashes": {"sha256": "0" * 64}}
            page["files"].append(
                {**files, "filename": newer, "upload-time": "2030-01-01T00:00:00Z"}
            )
        return json.dumps(page).encode(), accept["Accept"]

    with pytorch_index.loopback(answer) as address:
        yield f"{address}/simple"


def test_a_lock_does_not_depend_on_the_day(baked_real, monkeypatch):
    """What is released after the cut-off changes no byte; without the cut-off it would."""
    project = baked_real(dependency_manager="uv", project_slug="another-day").path
    texts = []
    with demo.local_torch(project, TORCH, locks=True):
        for packages in (set(), {"certifi", "filelock", "click"}):
            with a_day_later(packages) as index:
                monkeypatch.setenv("UV_DEFAULT_INDEX", index)
                (project / "uv.lock").unlink()
                make(project, "lock")
                texts.append((project / "uv.lock").read_text().replace(index, registry.PYPI))
        assert texts[0] == texts[1]
        path = project / "pyproject.toml"
        text = path.read_text()
        path.write_text(text.replace('exclude-newer = "2026-', 'exclude-newer = "2036-'))
        assert path.read_text() != text
        with a_day_later({"certifi", "filelock", "click"}) as index:
            monkeypatch.setenv("UV_DEFAULT_INDEX", index)
            (project / "uv.lock").unlink()
            with pytest.raises(AssertionError, match=r"certifi|filelock|click"):
                make(project, "lock")


def locks(project):
    """The lock files of the environments."""
    found = [*project.glob("requirements/*cpu.txt"), *project.glob("uv.lock")]
    assert found
    return sorted(found)


def versions(text: str) -> dict[str, str]:
    """Name and version of each package in a lock of pip or uv."""
    in_toml = re.findall(r'^name = "(.+)"\nversion = "(.+)"$', text, re.MULTILINE)
    return dict(in_toml or re.findall(r"^([a-z0-9._-]+)==([^ ;]+)", text, re.MULTILINE))
