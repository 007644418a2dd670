"""Create the shipped locks of uv and poetry: bake a project, lock it, keep the lock.

The stand-in index lists the same files as PyTorch's own, so the addresses in the lock are real.
"""

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, redirect_stdout
from pathlib import Path

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import template_logic as logic  # noqa: E402  (the template's root is not a package)
from tools import pytorch_index  # noqa: E402

LOCKS = ROOT / "data" / "locks"
_ONE_BAKE = threading.Lock()
# Pretends to be another Python: a resolver only asks for its version.
SHIM = """#!/bin/sh
"{python}" "$@" | sed -e 's/{full}/{wanted}.0/g' -e 's/"{minor}"/"{wanted}"/g' \\
    -e 's/"minor": {own}/"minor": {other}/'
"""


def lockable() -> list[tuple[str, str]]:
    """Every stack and Python whose lock can be computed: hashes of all index wheels are known."""
    found = []
    for name, (release, variant) in logic.stack_names().items():
        known = release.get("index_wheels", {}).get("cpu", {}).get("linux_x86_64", {})
        if logic.framework_of(release) != "torch":
            found += [(name, python) for python in release["python"]]
        elif variant in ("cpu", release["pypi_default"]):
            found += [(name, python) for python in release["python"] if python in known]
    return found


def lock(manager: str, stack: str, python: str) -> str:
    """The lock of a project with these answers, as written by its manager."""
    release, _ = logic.stack_names()[stack]
    if logic.framework_of(release) != "torch":
        return _lock_from_pypi(manager, stack, python)
    torch = release["torch"]
    facts = release["index_wheels"]["cpu"]
    official = logic.stack(stack)["accelerators"]["cpu"]["index"]
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack_of_indexes:
        project = bake(scratch, dependency_manager=manager, stack=stack, python_version=python)
        original = (project / "pyproject.toml").read_text()
        index = stack_of_indexes.enter_context(pytorch_index.replace_index(project, None, torch))
        if manager == "uv":
            text = _uv_lock(project, python, Path(scratch))
        else:
            simple = stack_of_indexes.enter_context(pytorch_index.serve_pypi(logic.cutoff()))
            text = _poetry_lock(project, original, python, simple)
    text = text.replace(f'url = "{index}/torch-', f'url = "{facts["files"]}/torch-')
    text = text.replace(index, official)
    assert "127.0.0.1" not in text, text[text.index("127.0.0.1") - 200 :][:400]
    return text


def _lock_from_pypi(manager: str, stack: str, python: str) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        project = bake(scratch, dependency_manager=manager, stack=stack, python_version=python)
        if manager == "uv":
            return _uv_lock(project, python, Path(scratch))
        original = (project / "pyproject.toml").read_text()
        with pytorch_index.serve_pypi(logic.cutoff()) as simple:
            return _poetry_lock(project, original, python, simple)


def bake(folder: str, **answers: str) -> Path:
    """Bake a project in `folder`, under the name used in shipped locks."""
    given = {"project_slug": logic.LOCKED_NAME, **answers}
    with _ONE_BAKE, redirect_stdout(io.StringIO()):  # it changes the working directory
        project = cookiecutter(
            str(ROOT), no_input=True, output_dir=folder, extra_context=given, default_config=True
        )
    return Path(project)


def clean_environment() -> dict[str, str]:
    """Variables that keep the settings of whoever runs this out of a lock."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("UV_", "PIP_", "POETRY_"))}
    # From 2.12 on, PyTorch's macOS wheels require macOS 14; uv's own target is older.
    return environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}


def _uv_lock(project: Path, python: str, scratch: Path) -> str:
    interpreter = scratch / f"python{python}"
    own = sys.version_info
    interpreter.write_text(
        SHIM.format(
            python=sys.executable,
            full=f"{own[0]}\\.{own[1]}\\.{own[2]}",
            minor=f"{own[0]}\\.{own[1]}",
            own=own[1],
            wanted=python,
            other=python.split(".")[1],
        )
    )
    interpreter.chmod(0o755)
    uv = Path(sys.executable).with_name("uv")
    # Its interpreter cache would remember the answers of the shim.
    command = [uv, "lock", "--quiet", "--no-python-downloads", "--python", interpreter]
    _run([*command, "--cache-dir", LOCKS.parents[1] / "build" / "uv-cache" / python], project)
    return (project / "uv.lock").read_text(encoding="utf-8")


def _poetry_lock(project: Path, original: str, python: str, simple: str) -> str:
    path = project / "pyproject.toml"
    text = path.read_text().replace('source = "PyPI"', 'source = "pypi-dated"')
    path.write_text(text.replace('name = "PyPI"', f'name = "pypi-dated"\nurl = "{simple}/"'))
    (project / "original.toml").write_text(original)
    script = Path(__file__).with_name("poetry_lock.py")
    _run([sys.executable, script, project, python], project)
    text = (project / "poetry.lock").read_text(encoding="utf-8")
    block = f'\n[package.source]\ntype = "legacy"\nurl = "{simple}"\nreference = "pypi-dated"\n'
    assert block in text
    return text.replace(block, "")


def _run(command: list[object], project: Path) -> None:
    done = subprocess.run(
        list(map(str, command)),
        cwd=project,
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"error: {' '.join(map(str, command))}: {done.stderr.strip()[-2000:]}")


def write_all(manager: str) -> None:
    """Lock every stack and Python that can be locked, replacing all existing locks.

    Most packages are in many locks: each is stored once, in `packages/`, and locks refer to it.
    """
    jobs = lockable()
    with ThreadPoolExecutor(max_workers=2) as pool:
        texts = list(pool.map(lambda job: _told(manager, *job), jobs))
    folder = LOCKS / manager
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "packages").mkdir(parents=True)
    for (stack, python), text in zip(jobs, texts, strict=True):
        path = folder / stack / python / f"{manager}.lock"
        path.parent.mkdir(parents=True)
        path.write_text(_shared(text, folder / "packages"), encoding="utf-8")
        answers = {"dependency_manager": manager, "stack": stack, "python_version": python}
        answers["project_slug"] = logic.LOCKED_NAME
        assert logic.lock(answers, path.name) == text.rstrip("\n"), (stack, python)


def _told(manager: str, stack: str, python: str) -> str:
    print(f"{manager} {stack} Python {python}", flush=True)
    return lock(manager, stack, python)


def _shared(text: str, packages: Path) -> str:
    """`text` with a reference for each package; new packages are added to `packages`."""
    head, *blocks = text.split(logic.PACKAGE)
    lines = []
    for block in blocks:
        # What follows the last package, in poetry's lock, stays where it is.
        body, cut, rest = block.partition("\n\n[extras]\n")
        body = body.rstrip("\n")
        name, version = re.findall(r'^(?:name|version) = "(.+?)"$', body, re.MULTILINE)[:2]
        digest = hashlib.sha256(body.encode()).hexdigest()[:12]
        file = packages / f"{name}-{version}-{digest}.toml"
        file.write_text(f"{body}\n", encoding="utf-8")
        lines.append(f"@{file.name}{cut}{rest}" if cut else f"@{file.name}\n\n")
    return f"{head}{''.join(lines)}".rstrip("\n") + "\n"
