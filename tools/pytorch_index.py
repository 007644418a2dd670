"""A stand-in for the PyTorch wheel index, on loopback: a real wheel under its real name and hash.

The other platforms' wheels are listed with the hashes that `data/stacks.json` has for them and the
metadata of the real one, so that a resolver can lock for all platforms; only the real wheel can
be downloaded.
"""

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import template_logic as logic

PLATFORM_TAGS = {"linux_x86_64": "manylinux_2_28_x86_64", "linux_aarch64": "manylinux_2_28_aarch64"}


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
def serve(wheel: Path, torch: str) -> Iterator[str]:
    """Serve the index while the block runs; the value is its address."""
    files = _listing(wheel, torch)
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = archive.read(name)
    core = hashlib.sha256(metadata).hexdigest()
    links = "\n".join(
        f'<a href="/files/{file.replace("+", "%2B")}#sha256={digest}" '
        f'data-dist-info-metadata="sha256={core}">{file}</a>'
        for file, digest in files.items()
    )
    page = f"<!DOCTYPE html><html><body>{links}</body></html>".encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.rstrip("/").endswith("/torch"):
                self._answer(page, "text/html")
            elif self.path.endswith(".whl.metadata"):
                self._answer(metadata, "text/plain")
            elif self.path.endswith(wheel.name.replace("+", "%2B")):
                self._answer(wheel.read_bytes(), "application/zip")
            else:
                self.send_error(404)

        def _answer(self, content: bytes, kind: str) -> None:
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
        yield f"http://127.0.0.1:{server.server_port}/whl/cpu"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def replace_index(project: Path, wheel: Path, torch: str) -> Iterator[None]:
    """Let `project` resolve and install from the stand-in, as from a mirror of the index."""
    official = json.loads((logic.ROOT / "data" / "stacks.json").read_text())["accelerators"]["cpu"]
    with serve(wheel, torch) as address:
        for name in ("pyproject.toml", "environment.mk"):
            path = project / name
            path.write_text(path.read_text().replace(official["index"], address))
        yield


def _listing(wheel: Path, torch: str) -> dict[str, str]:
    matrix = json.loads((logic.ROOT / "data" / "stacks.json").read_text())
    release = next(r for r in matrix["releases"] if r["torch"] == torch)
    files = {}
    for platform, tag in PLATFORM_TAGS.items():
        for python, digest in release["index_wheels"]["cpu"][platform].items():
            cpython = f"cp{python.replace('.', '')}"
            files[f"torch-{torch}+cpu-{cpython}-{cpython}-{tag}.whl"] = digest
    assert re.fullmatch("[0-9a-f]{64}", files[wheel.name]), wheel.name
    return files
