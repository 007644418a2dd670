"""Stand-ins for what the tests cannot download: a base image, uv's image, and an index.

Debian replaces the CUDA and Ubuntu images, uv's wheel replaces its image, this machine's Python
replaces the build that uv downloads. The Dockerfile is built unchanged.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import template_logic as logic
from tools import demo, engine, pytorch_index

BASE, UV = "repro-template/base:test", "repro-template/uv:test"
OVERRIDE = """\
services:
  trainer: { build: { network: host } }
  mlflow: { build: { network: host } }
  jupyter: { build: { network: host } }
"""
"""`compose.override.yaml` for an engine whose builds can only use the host's network."""

LIBRARIES = ("libssl3", "libffi8", "libsqlite3-0", "libbz2-1.0", "liblzma5", "libreadline8")
"""Packages required by a Python that was built on Debian."""


@contextmanager
def ready(folder: Path, stack: str) -> Iterator[dict[str, str]]:
    """Variables under which `make docker` and `make up` find an engine, images and indexes.

    If the engine is our own, everything built is removed at the end.
    """
    torch = logic.stack(stack)["torch"]
    wheel = pytorch_index.find_wheel(torch)
    with engine.running(folder) as environ, pytorch_index.serve(wheel, torch) as index:
        make_base(folder, BASE, environ)
        make_uv(folder, uv_program(folder), UV, environ)
        # The tests' own tools come last on the path, after the engine's.
        path = os.pathsep.join([environ["PATH"], str(Path(sys.executable).parent)])
        names = ("DOCKER_HOST", "DOCKER_CONFIG")
        yield {
            **demo.environment(),
            **{name: environ[name] for name in names if name in environ},
            **{"PATH": path, "BASE_IMAGE_CPU": BASE, "BASE_IMAGE_CUDA": BASE, "UV_IMAGE": UV},
            "PYTHON_VERSION": platform.python_version(),
            # The public index is replaced only if its wheel is available here.
            **({"PYTORCH_INDEX_CPU": index} if wheel else {}),
        }
    shutil.rmtree(folder / "data", ignore_errors=True)


def uv_program(folder: Path) -> Path:
    """uv, in the version of the template's image."""
    version = re.search(r"/uv:([\d.]+)@", logic.image("uv"))[1]
    target = folder / f"uv-{version}"
    if not target.exists():
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command = [*download, "--dest", folder / "wheels", f"uv=={version}"]
        subprocess.run(command, check=True)
        (wheel,) = (folder / "wheels").glob(f"uv-{version}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (n for n in archive.namelist() if n.endswith("scripts/uv"))
            target.write_bytes(archive.read(name))
        target.chmod(0o755)
    return target


def make_base(folder: Path, name: str, environ: dict[str, str]) -> None:
    """Build a stand-in for the distribution's image, which is not available here: minimal Debian.

    It trusts the same certificates as this machine, and its uv takes this machine's Python from a
    file in the image instead of downloading a build.
    """
    archive = folder / "base.tar"
    if not archive.exists():
        if not shutil.which("debootstrap"):
            engine.install("debootstrap")
        root = folder / "base"
        shutil.rmtree(root, ignore_errors=True)
        include = f"--include={','.join(LIBRARIES)}"
        engine.run(
            ["debootstrap", "--variant=minbase", include, "bookworm", str(root), engine.MIRROR]
        )
        authorities = root / "etc/host-ca/ca.pem"
        authorities.parent.mkdir()
        shutil.copyfile("/etc/ssl/certs/ca-certificates.crt", authorities)
        _add_python(root)
        engine.run(["tar", "-C", str(root), "-cf", f"{archive}.partial", "."])
        Path(f"{archive}.partial").rename(archive)
        shutil.rmtree(root)
    changes = "ENV SSL_CERT_FILE=/etc/host-ca/ca.pem UV_PYTHON_DOWNLOADS_JSON_URL=/srv/python.json"
    engine.run(["docker", "import", "--change", changes, str(archive), name], environ=environ)


def _add_python(root: Path) -> None:
    """This interpreter as an archive that uv installs, and the list that leads uv to it."""
    home = Path(sys.base_prefix)
    if home == Path("/usr"):
        raise engine.EngineError(
            "the tests need a Python in a folder of its own, not the distribution's"
        )
    library = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = f"{library}/site-packages/"
    left_out = (f"{library}/test", f"{library}/config-")

    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        path = member.name.removeprefix("python/")
        # Only pip is included, as in the build that uv downloads; the Dockerfile removes it.
        foreign = path.startswith(packages) and not path.startswith(f"{packages}pip")
        return None if foreign or path.startswith(left_out) or "__pycache__" in path else member

    archive = root / "srv/python.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for part in ("bin", "lib", "include"):
            tar.add(home / part, arcname=f"python/{part}", filter=kept)
    major, minor, patch = sys.version_info[:3]
    facts = {
        **{"name": "cpython", "major": major, "minor": minor, "patch": patch, "prerelease": ""},
        **{"arch": {"family": platform.machine(), "variant": None}, "os": "linux", "libc": "gnu"},
        **{"url": "file:///srv/python.tar.gz", "variant": None, "build": "1"},
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
    }
    key = f"cpython-{platform.python_version()}-linux-{platform.machine()}-gnu"
    (root / "srv/python.json").write_text(json.dumps({key: facts}))
    # A shared libpython is looked up where it was built, which is not where uv installs it.
    for shared in (home / "lib").glob("libpython*.so*"):
        shutil.copy2(shared, root / "usr/local/lib", follow_symlinks=False)
    engine.run(["ldconfig", "-r", str(root)])


def make_uv(folder: Path, uv: Path, name: str, environ: dict[str, str]) -> None:
    """Build a stand-in for uv's image, with the program from its wheel."""
    archive = folder / "uv.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(uv, arcname="uv")
    engine.run(["docker", "import", str(archive), name], environ=environ)
