"""Same answers, same bytes and modes: whatever the folder, locale, time zone, user or Python."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HOSTILE, ROOT

ANSWERS = {"project_slug": "pure", "dependency_manager": "pip", **HOSTILE}


def tree_hash(project: Path) -> str:
    """One digest of every path, executable bit and byte."""
    total = hashlib.sha256()
    for path in sorted(p for p in project.rglob("*") if p.is_file()):
        executable = bool(path.stat().st_mode & 0o100)
        total.update(f"{path.relative_to(project).as_posix()} {executable}\0".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def generate(
    folder: Path, python: str = sys.executable, template: Path = ROOT, cwd: Path = ROOT, **env: str
) -> str:
    """Generate by the command line and hash the tree."""
    command = [python, "-m", "cookiecutter", str(template), "--no-input", "-o", str(folder)]
    command += [f"{name}={value}" for name, value in ANSWERS.items()]
    environ = {**os.environ, **env}
    done = subprocess.run(command, env=environ, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tree_hash(folder / "pure")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("reference"))


def test_the_folder_does_not_matter(reference, tmp_path):
    """Another output folder and another working directory, with a space and an accent."""
    folder = tmp_path / "some where é"
    folder.mkdir()
    assert generate(folder, cwd=folder) == reference


def test_the_place_of_the_template_does_not_matter(reference, tmp_path):
    """A copy of the template elsewhere, without its history or builds."""
    ignore = shutil.ignore_patterns(".git", "build", "__pycache__", ".*_cache")
    copy = shutil.copytree(ROOT, tmp_path / "copy", ignore=ignore)
    assert generate(tmp_path / "out", template=copy) == reference


@pytest.mark.parametrize(("files", "folders"), [(0o444, 0o555), (0o600, 0o700), (0o777, 0o777)])
def test_the_modes_of_the_template_do_not_matter(reference, tmp_path, files, folders):
    """A read-only store, another user's clone: a project's modes are 644 and 755 all the same."""
    ignore = shutil.ignore_patterns(".git", "build", "__pycache__", ".*_cache")
    copy = shutil.copytree(ROOT, tmp_path / "copy", ignore=ignore)
    executable = {p for p in copy.rglob("*") if p.is_file() and p.stat().st_mode & 0o100}
    for path in sorted(copy.rglob("*"), reverse=True):
        mode = folders if path.is_dir() else files | (folders & 0o111 if path in executable else 0)
        path.chmod(mode)
    assert generate(tmp_path / "out", template=copy) == reference
    made = list((tmp_path / "out" / "pure").rglob("*"))
    modes = {(path.is_dir(), path.stat().st_mode & 0o777) for path in made}
    assert modes == {(True, 0o755), (False, 0o644)}


@pytest.mark.parametrize(
    "env",
    [
        {"LC_ALL": "C", "LANG": "C", "TZ": "Pacific/Chatham"},
        {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "PYTHONHASHSEED": "7"},
        {"PYTHONUTF8": "0", "LC_ALL": "C.UTF-8", "USER": "somebody-else", "COLUMNS": "20"},
    ],
    ids=["C", "Turkish", "other user"],
)
def test_the_locale_and_the_user_do_not_matter(reference, tmp_path, env):
    """Locale, time zone, hash seed and user change nothing."""
    assert generate(tmp_path, **env) == reference


def other_pythons() -> list[str]:
    """Other supported interpreters on this machine: on the path, or kept by pyenv."""
    names = [f"python3.{minor}" for minor in range(11, 15) if minor != sys.version_info[1]]
    found = [path for name in names if (path := shutil.which(name))]
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True).stdout.strip()
        found += [str(p) for name in names for p in Path(root).glob(f"versions/*/bin/{name}")]
    probe = "import venv, ensurepip"
    return [
        p for p in found if not subprocess.run([p, "-c", probe], capture_output=True).returncode
    ]


def test_the_python_does_not_matter(reference, tmp_path):
    """Another minor version of Python generates the same bytes."""
    pythons = other_pythons()
    if not pythons:
        pytest.skip("this machine has one Python only")
    subprocess.run([pythons[0], "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "cookiecutter==2.7.1"]
    subprocess.run(install, check=True)
    assert generate(tmp_path / "out", python=python) == reference


def test_generation_needs_no_network_and_no_subprocess(tmp_path):
    """With sockets refused and no program but Python on the path, the project is made."""
    blocker = tmp_path / "site"
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text(
        "import socket\n"
        "def refuse(*args, **kwargs):\n"
        "    raise OSError('no network at generation')\n"
        "socket.socket.connect = refuse\n"
        "socket.getaddrinfo = refuse\n"
    )
    generate(tmp_path, PYTHONPATH=str(blocker), PATH=str(tmp_path))
