"""Stand-ins for package indexes, on loopback: the PyTorch wheel index, and PyPI up to a date.

The PyTorch index lists wheels under their real names and hashes, from `data/stacks.json`, so that
a resolver can lock for all platforms. Their metadata is the real wheel's where one lies here, else
that of PyPI's build without what only CUDA needs; only a wheel that lies here can be downloaded.
"""

import base64
import hashlib
import html
import http.server
import os
import re
import subprocess
import sys
import threading
import urllib.error
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import template_logic as logic
from tools import registry

PLATFORM_TAGS = {"linux_x86_64": "manylinux_2_28_x86_64", "linux_aarch64": "manylinux_2_28_aarch64"}
ONLY_CUDA = re.compile(r"(nvidia-|cuda-|triton)")

Answer = Callable[[str], tuple[bytes, str] | None]
"""Content and type for the path of a request, or nothing if there is none."""


def find_wheel(torch: str) -> Path | None:
    """The CPU wheel of `torch` for this Python in a folder that pip is configured with."""
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    configured = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.find-links"],
        capture_output=True,
        text=True,
    ).stdout
    folders = f"{configured} {os.environ.get('PIP_FIND_LINKS', '')}".split()
    for folder in folders:
        for wheel in Path(folder).glob(f"torch-{torch}+cpu-{python}-{python}-*x86_64.whl"):
            return wheel
    return None


@contextmanager
def serve(wheel: Path | None, torch: str) -> Iterator[str]:
    """Serve the PyTorch index of CPU builds while the block runs; yield its address."""
    metadata = _own_metadata(wheel) if wheel else derived_metadata(torch)
    core = hashlib.sha256(metadata).hexdigest()
    links = "\n".join(
        f'<a href="/whl/cpu/{file.replace("+", "%2B")}#sha256={digest}" '
        f'data-dist-info-metadata="sha256={core}" data-core-metadata="sha256={core}">{file}</a>'
        for file, digest in listing(torch).items()
    )
    page = f"<!DOCTYPE html><html><body>{links}</body></html>".encode()

    def answer(path: str) -> tuple[bytes, str] | None:
        if path.rstrip("/").endswith("/torch"):
            return page, "text/html"
        if path.endswith(".whl.metadata"):
            return metadata, "text/plain"
        if wheel and path.endswith(wheel.name.replace("+", "%2B")):
            return wheel.read_bytes(), "application/zip"
        return None

    with loopback(answer) as address:
        yield f"{address}/whl/cpu"


@contextmanager
def serve_pypi(cutoff: str, index: str = registry.PYPI, *, login: str = "") -> Iterator[str]:
    """Serve `index` as it was at `cutoff`, for resolvers without such an option; with `login`
    (`name:password`), it requires a password."""

    def answer(path: str) -> tuple[bytes, str] | None:
        try:
            files = registry.wheels(path.strip("/").rsplit("/", 1)[-1], index)
        except urllib.error.HTTPError:
            return None
        links = "\n".join(
            f'<a href="{html.escape(file.url)}#sha256={file.sha256}">{file.name}</a>'
            for file in files
            if file.uploaded <= cutoff and not file.yanked
        )
        return f"<!DOCTYPE html><html><body>{links}</body></html>".encode(), "text/html"

    with loopback(answer, login) as address:
        yield f"{address}/simple"


@contextmanager
def loopback(answer: Answer, login: str = "") -> Iterator[str]:
    """Run a server on loopback while the block runs; yield its address."""
    wanted = f"Basic {base64.b64encode(login.encode()).decode()}" if login else None

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if wanted and self.headers["Authorization"] != wanted:
                self.send_error(401)
                return
            found = answer(self.path)
            if found is None:
                self.send_error(404)
                return
            content, kind = found
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def replace_index(project: Path, wheel: Path | None, torch: str) -> Iterator[str]:
    """Make `project` resolve and install from the stand-in, as from a mirror of the index."""
    official = logic.stack(f"torch-{torch}-cpu")["accelerators"]["cpu"]["index"]
    with serve(wheel, torch) as address:
        for name in ("pyproject.toml", "environment.mk"):
            path = project / name
            path.write_text(path.read_text().replace(official, address))
        yield address


def listing(torch: str) -> dict[str, str]:
    """The sha256 of each CPU wheel of a release that `data/stacks.json` knows, by its name."""
    release, _ = logic.stack_names()[f"torch-{torch}-cpu"]
    files = {}
    for platform, tag in PLATFORM_TAGS.items():
        for python, digest in release["index_wheels"]["cpu"][platform].items():
            cpython = f"cp{python.replace('.', '')}"
            files[f"torch-{torch}+cpu-{cpython}-{cpython}-{tag}.whl"] = digest
    return files


def derived_metadata(torch: str) -> bytes:
    """The METADATA of a CPU build, derived from PyPI's by removing the CUDA dependencies."""
    wheels = registry.release("torch", torch)
    linux = next(f for f in wheels if "manylinux" in f.name and "x86_64" in f.name and f.python)
    lines = registry.metadata_text(linux).splitlines()
    kept = [
        line.replace(f"Version: {torch}", f"Version: {torch}+cpu")
        for line in lines
        if not ONLY_CUDA.match(line.removeprefix("Requires-Dist: "))
    ]
    return ("\n".join(kept) + "\n").encode()


def _own_metadata(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return archive.read(name)
