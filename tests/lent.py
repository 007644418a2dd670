"""An environment that is installed once, for every pip project with the same lock.

Installing takes more than a minute of CPU time; only the tests of installation do it, and the first
of the others. A project that is lent an environment still runs its own `make setup`, which finds
nothing to do.
"""

import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import ROOT, make

STORE = ROOT / "build" / "environments"
_ASKED = """
import json, sys
sys.path.insert(0, "environment")
import setup
place = setup._places("cpu")[0]
print(json.dumps([str(place), setup._digest("cpu"), setup._source_path()]))
"""


def set_up(project: Path) -> None:
    """Run `make setup` in a pip project, reusing what an earlier project installed."""
    lock = (project / "requirements" / "cpu.txt").read_text(encoding="utf-8")
    pins = "".join(line for line in lock.splitlines(True) if not line.lstrip().startswith("#"))
    stored = STORE / hashlib.sha256(f"{pins}{sys.version}".encode()).hexdigest()[:16]
    STORE.mkdir(parents=True, exist_ok=True)
    with stored.with_suffix(".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if stored.exists():
            _lend(stored, project)
            assert "pip install" not in make(project, "setup")
            return
        make(project, "setup")
        partial = stored.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        linked_copy((project / ".envs" / "cpu").resolve(), partial)
        partial.rename(stored)


def linked_copy(source: Path, target: Path) -> None:
    """A copy by hard links, which takes no space, if both are on the same disk."""
    if subprocess.run(["cp", "-al", source, target], stderr=subprocess.DEVNULL).returncode:
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["cp", "-a", source, target], check=True)


def _lend(stored: Path, project: Path) -> None:
    """What names the place of an environment is written again, each in a file of its own."""
    asked = subprocess.check_output([sys.executable, "-c", _ASKED], cwd=project, text=True)
    place, digest, source_path = json.loads(asked)
    place = Path(place)
    place.parent.mkdir(exist_ok=True)
    shutil.rmtree(place, ignore_errors=True)
    linked_copy(stored, place)
    (path_file,) = place.glob("lib/python3*/site-packages/this_project.pth")
    _write(path_file, source_path.encode())
    _write(place / ".complete", digest.encode())
    first_line = f"#!{place}/bin/python\n".encode()
    for script in (place / "bin").iterdir():
        if not script.is_symlink() and (content := script.read_bytes()).startswith(b"#!"):
            _write(script, re.sub(rb"\A#!.*/\.envs/.*\n", lambda _: first_line, content))


def _write(path: Path, content: bytes) -> None:
    mode = path.stat().st_mode
    path.unlink()
    path.write_bytes(content)
    path.chmod(mode)
