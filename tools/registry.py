"""What a package index says about its files: names, digests, dates, metadata; never the files.

The simple API as JSON (PEP 691); the metadata beside each wheel (PEP 658), or where an index has
none, the part of the wheel that holds it, by range requests.
"""

import io
import json
import re
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from functools import cache

PYPI = "https://pypi.org/simple"


@dataclass(frozen=True)
class File:
    """One file of a release as the index lists it."""

    name: str
    url: str
    sha256: str
    uploaded: str
    """ISO 8601, or empty if the index does not say."""
    yanked: bool

    @property
    def version(self) -> str:
        """The version in the name of a wheel."""
        return self.name.split("-")[1]

    @property
    def python(self) -> str:
        """The CPython that a wheel is for, such as 3.12; nothing for any or a free-threaded one."""
        match = re.search(r"-cp3(\d+)-(?:cp3\1|abi3|none)-", self.name)
        return f"3.{match[1]}" if match else ""


@cache
def wheels(project: str, index: str = PYPI) -> tuple[File, ...]:
    """Every wheel of a project, in the order of the index.

    Raises:
        OSError: the index cannot be reached, or does not know the project.
    """
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    request = urllib.request.Request(f"{index}/{project}/", headers=accept)
    with urllib.request.urlopen(request, timeout=60) as response:
        listed = json.load(response)["files"]
    return tuple(
        File(
            name=file["filename"],
            url=file["url"],
            sha256=file["hashes"].get("sha256", ""),
            uploaded=file.get("upload-time", ""),
            yanked=bool(file.get("yanked")),
        )
        for file in listed
        if file["filename"].endswith(".whl")
    )


@cache
def metadata_text(file: File) -> str:
    """The METADATA of a wheel, from the file next to it or by a small read from inside it."""
    try:
        with urllib.request.urlopen(f"{file.url}.metadata", timeout=60) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
    with zipfile.ZipFile(_Remote(file.url)) as archive:
        name = next(n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
        return archive.read(name).decode()


class _Remote(io.RawIOBase):
    """A remote file, read on demand; the server must support range requests."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._at = 0
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=60) as response:
            self._size = int(response.headers["Content-Length"])

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._at + size, self._size)
        if end <= self._at:
            return b""
        headers = {"Range": f"bytes={self._at}-{end - 1}"}
        request = urllib.request.Request(self._url, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            if response.status != 206:
                raise OSError(f"{self._url}: the server knows no ranges")
            content = response.read()
        self._at = end
        return content


def metadata(file: File) -> Message:
    """The METADATA of a wheel, parsed."""
    return Parser().parsestr(metadata_text(file))


def release(project: str, version: str, index: str = PYPI) -> list[File]:
    """The wheels of one release, yanked ones left out."""
    return [f for f in wheels(project, index) if f.version == version and not f.yanked]
