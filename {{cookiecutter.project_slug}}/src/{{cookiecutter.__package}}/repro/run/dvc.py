"""Data under DVC: what its files in git pin, and what the workspace holds.

A file `<data>.dvc` pins the MD5 of a file, or of the sorted list of the files in a folder
(https://dvc.org/doc/user-guide/project-structure/dvc-files). DVC itself is not needed to read it.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..git import git
from .manifest import is_under_git

_IGNORED = {".git", ".dvc", ".hg", ".dvcignore"}


def describe_dvc(root: Path) -> dict[str, dict[str, str | None]]:
    """For each file or folder under DVC, by its path below `root`: `pinned`, the MD5 in its `.dvc`
    file, and `workspace`, the MD5 of what is there, or None if nothing is.

    The data is read from start to end, about two seconds a gigabyte.

    Raises:
        ValueError: a `.dvc` file is damaged, or pins no MD5.
    """
    facts = {}
    for file in dvc_files(root):
        for name, pinned in _outputs(file):
            path = file.parent / name
            found = _md5_of(path, folder=pinned.endswith(".dir"))
            key = Path(os.path.relpath(path, root)).as_posix()
            facts[key] = {"pinned": pinned, "workspace": found}
    return facts


def changed_data(facts: Mapping[str, Mapping[str, str | None]]) -> list[str]:
    """The paths whose data is here and differs from what its `.dvc` file pins."""
    return [path for path, fact in facts.items() if fact["workspace"] not in (None, fact["pinned"])]


def dvc_files(root: Path) -> list[Path]:
    """Every `.dvc` file of the project, sorted; outside git, hidden folders are left out."""
    if is_under_git(root, or_named=True):
        options = ("-z", "--cached", "--others", "--exclude-per-directory=.gitignore")
        names = git(root, "ls-files", *options, "--", "*.dvc")
        found = {root / os.fsdecode(name) for name in names.split(b"\0") if name}
    else:
        found = set(_below(root))
    return sorted(path for path in found if path.is_file() and path.name != ".dvc")


def _below(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(folder, name) for name in files if name.endswith(".dvc"))


def _outputs(file: Path) -> Iterator[tuple[str, str]]:
    """Path and pinned MD5 of each output that a `.dvc` file lists."""
    try:
        content: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        outputs = [
            (str(each["path"]), each.get("md5"), each.get("hash")) for each in content["outs"]
        ]
        base = file.parent / str(content.get("wdir", "."))
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise ValueError(
            f"{file} is not a file of DVC ({reason}); dvc add writes it again"
        ) from None
    for path, md5, algorithm in outputs:
        if not isinstance(md5, str) or algorithm != "md5":
            raise ValueError(
                f"{file} pins no MD5 of {path} that can be checked (DVC 2, or a versioned bucket); "
                "dvc add of DVC 3 writes one"
            )
        yield os.path.relpath(base / path, file.parent), md5


def _md5_of(path: Path, *, folder: bool) -> str | None:
    if not path.exists():
        return None
    if not path.is_dir():
        return _md5(path)
    if not folder:
        return "a folder"
    found = (Path(at, name) for at, names in _walk(path) for name in names)
    listed = [
        {"md5": _md5(file), "relpath": file.relative_to(path).as_posix()}
        for file in found
        if file.name not in _IGNORED
    ]
    # The order and the format in which DVC writes the list, since its digest depends on them.
    listed.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(listed).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _walk(path: Path) -> Iterator[tuple[str, list[str]]]:
    for at, folders, names in os.walk(path, followlinks=True):
        folders[:] = [name for name in folders if name not in _IGNORED]
        yield at, names


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest()
