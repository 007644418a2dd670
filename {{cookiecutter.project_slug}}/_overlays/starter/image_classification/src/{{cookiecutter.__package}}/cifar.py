"""CIFAR-10 from its authors' archive: downloaded once, checked by sha256 at every load.

Krizhevsky, "Learning multiple layers of features from tiny images", 2009. This reads the binary
version, which needs no pickle.
"""

import hashlib
import http.client
import os
import tarfile
import urllib.request
from pathlib import Path

import numpy as np

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
ARCHIVE = "cifar-10-binary.tar.gz"
_RECORD = 1 + 3 * 32 * 32  # a label, then red, green and blue planes, row by row

Arrays = tuple[np.ndarray, np.ndarray]


def load_cifar10(data_dir: Path) -> tuple[Arrays, Arrays]:
    """50,000 training and 10,000 test samples: images uint8 [N, 3, 32, 32], labels int64 [N].

    Raises:
        ValueError: there is neither a network nor an archive, or the archive's sha256 is wrong.
    """
    archive = data_dir / ARCHIVE
    if not archive.exists():
        _download(archive)
    _check(archive)
    with tarfile.open(archive) as tar:
        folder = "cifar-10-batches-bin"
        train = [_parse(_member(tar, f"{folder}/data_batch_{n}.bin")) for n in range(1, 6)]
        test = _parse(_member(tar, f"{folder}/test_batch.bin"))
    images, labels = zip(*train, strict=True)
    return (np.concatenate(images), np.concatenate(labels)), test


def _download(archive: Path) -> None:
    url = os.environ.get("CIFAR10_URL") or URL
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_suffix(".partial")
    try:
        with urllib.request.urlopen(url, timeout=60) as response, partial.open("wb") as file:
            while block := response.read(1 << 20):
                file.write(block)
    except (OSError, ValueError, http.client.HTTPException) as error:
        partial.unlink(missing_ok=True)
        raise ValueError(
            f"cannot download CIFAR-10 from {url} ({error}); with no network, copy {ARCHIVE} "
            f"to {archive.parent} by hand, or name a mirror in CIFAR10_URL"
        ) from None
    _check(partial)
    partial.replace(archive)


def _check(path: Path) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise ValueError(
            f"{path} has sha256 {found}, expected {SHA256}; delete the file and run again"
        )


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None, name
    return file.read()


def _parse(content: bytes) -> Arrays:
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)
