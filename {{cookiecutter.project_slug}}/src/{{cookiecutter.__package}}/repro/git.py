"""The state of a checkout in git and on disk, independent of the user's shell and git settings.

Only names and digests come from git, by plumbing commands that no configuration affects; content
is read and hashed here. `git diff` would follow the user's colours, filters and formats.
"""

import hashlib
import io
import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

_SUBMODULE, _LINK, _EXECUTABLE = b"160000", b"120000", b"100755"
_ABSENT = (b"absent", b"")
_EXECUTED = {".py", ".yaml", ".yml", ".toml", ".mk", ".sh"}
"""Files whose bytes on disk are what runs."""


class GitError(ValueError):
    """There is a repository, but git cannot read it; the message is one line."""


@dataclass(frozen=True)
class Checkout:
    """The commit of a work tree, and how the bytes on disk differ from it."""

    commit: str | None
    """None before the first commit."""
    changes: dict[bytes, tuple[bytes, bytes]] = field(default_factory=dict)
    """Kind and content digest of each file that differs, by its path below `root`."""

    @property
    def diff_sha256(self) -> str | None:
        """Digest of all differences; None if there are none."""
        if not self.changes:
            return None
        total = hashlib.sha256()
        for path, (kind, content) in sorted(self.changes.items()):
            total.update(b"\0".join((path, kind, content)) + b"\n")
        return total.hexdigest()

    def names(self) -> list[str]:
        """The paths that differ, sorted."""
        return [os.fsdecode(path) for path in sorted(self.changes)]


def git(root: Path, *arguments: str | Path) -> bytes:
    """The output of git, run in the repository that contains `root`.

    Raises:
        GitError: git refuses, or is not installed.
    """
    # In a git hook, the caller's variables name another repository, index and work tree.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(root), "--no-optional-locks", "--no-replace-objects"]
    command += ["-c", "core.fsmonitor=false"]
    command += ["-c", "core.autocrlf=false", "-c", "core.attributesFile=/dev/null"]
    command += map(str, arguments)
    try:
        done = subprocess.run(
            command, env={**environ, "LC_ALL": "C"}, stdin=subprocess.DEVNULL, capture_output=True
        )
    except OSError:
        raise GitError(
            f"{root} is in a git repository, and git is not installed; install it, or name the "
            "commit in CODE_COMMIT"
        ) from None
    nothing_found = done.returncode == 1 and arguments[0] == "rev-parse"
    if done.returncode and not nothing_found:
        reason = os.fsdecode(done.stderr).strip().splitlines() or ["it said nothing"]
        said = reason[0].removeprefix("fatal: ")
        hint = "; git config --global --add safe.directory names it as yours"
        raise GitError(f"git refuses to read {root}: {said}{hint if 'ownership' in said else ''}")
    return done.stdout


def find_repository(root: Path) -> Path | None:
    """The folder with `.git` that contains `root`, if any, whether or not git can read it."""
    folders = (folder for folder in (root, *root.parents) if os.path.lexists(folder / ".git"))
    return next(folders, None)


def read_checkout(root: Path, *, leave_out: Path | None = None) -> Checkout:
    """Compare the work tree below `root` with its commit, byte for byte.

    Untracked files count unless a `.gitignore` names them or they are below `leave_out`; so do
    submodules and nested repositories. Ignore rules outside the work tree are disregarded.

    Raises:
        GitError: git refuses.
        OSError: a file cannot be read.
    """
    commit = _commit(root)
    committed = dict(_tree(root)) if commit else {}
    others = _names(root, "--cached") - committed.keys()
    others |= _names(root, "--others", "--exclude-per-directory=.gitignore")
    if leave_out is not None:
        others = {name for name in others if not _path(root, name).is_relative_to(leave_out)}
    # On some file systems every file is executable.
    says_executable = not all(map(_is_executable, (_path(root, name) for name in committed)))
    changes = {}
    for name, (mode, digest) in committed.items():
        path = _path(root, name)
        if mode == _SUBMODULE:
            change = _nested(path, digest)
        elif _is_as_committed(root, path, mode, digest, says_executable):
            change = None
        else:
            change = _read(path)
        if change:
            changes[name] = change
    for name in others - committed.keys():
        path = _path(root, name)
        is_repository = path.is_dir() and not path.is_symlink()
        changes[name] = _nested(path) if is_repository else _read(path)
    return Checkout(commit, changes)


def _commit(root: Path) -> str | None:
    return git(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}").decode().strip() or None


def _tree(root: Path) -> Iterator[tuple[bytes, tuple[bytes, bytes]]]:
    for line in git(root, "ls-tree", "-r", "-z", "HEAD").split(b"\0"):
        if line:
            facts, _, name = line.partition(b"\t")
            mode, _, digest = facts.split()
            yield name, (mode, digest)


def _names(root: Path, *options: str) -> set[bytes]:
    listed = git(root, "ls-files", "-z", *options).split(b"\0")
    return {name.rstrip(b"/") for name in listed if name}


def _path(root: Path, name: bytes) -> Path:
    return root / os.fsdecode(name)


def _is_executable(path: Path) -> bool:
    return os.path.lexists(path) and bool(path.lstat().st_mode & stat.S_IXUSR)


def _is_as_committed(
    root: Path, path: Path, mode: bytes, digest: bytes, says_executable: bool
) -> bool:
    if not os.path.lexists(path) or path.is_symlink() != (mode == _LINK):
        return False
    if mode == _LINK:
        return _object_id(io.BytesIO(os.fsencode(path.readlink())), digest) == digest
    if not path.is_file():
        return False
    if says_executable and _is_executable(path) != (mode == _EXECUTABLE):
        return False
    with path.open("rb") as file:
        if _object_id(file, digest) == digest:
            return True
    if path.suffix in _EXECUTED:
        # A filter of the user's own could hide an edit. Line endings change nothing.
        content = path.read_bytes().replace(b"\r\n", b"\n")
        return _object_id(io.BytesIO(content), digest) == digest
    # With Git LFS and `.gitattributes` the stored form differs from the file; only git knows it.
    return git(root, "hash-object", "--", path).strip() == digest


def _object_id(file: BinaryIO, like: bytes) -> bytes:
    """git's object id of a file's content, with the same hash as `like` (SHA-1 or SHA-256)."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    algorithm = "sha1" if len(like) == 40 else "sha256"
    total = hashlib.new(algorithm, b"blob %d\0" % size, usedforsecurity=False)
    return hashlib.file_digest(file, lambda: total).hexdigest().encode()  # in chunks


def _read(path: Path) -> tuple[bytes, bytes]:
    """Kind and content of whatever is at `path`; pipes and devices are never opened."""
    if path.is_symlink():
        return b"link", os.fsencode(path.readlink())
    if not path.exists():
        return _ABSENT
    if not path.is_file():
        return b"folder" if path.is_dir() else b"special", b""
    kind = b"executable" if _is_executable(path) else b"file"
    with path.open("rb") as file:
        return kind, hashlib.file_digest(file, "sha256").hexdigest().encode()


def _nested(path: Path, expected: bytes = b"") -> tuple[bytes, bytes] | None:
    """What differs in a nested repository; None if it is clean and at the expected commit."""
    if not os.path.lexists(path / ".git"):
        return _ABSENT  # a submodule never fetched
    nested = read_checkout(path)
    if nested.commit == expected.decode() and not nested.changes:
        return None
    return b"repository", f"{nested.commit} {nested.diff_sha256}".encode()
