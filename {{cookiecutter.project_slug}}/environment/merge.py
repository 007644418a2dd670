"""An upgrade that is in the tree and not committed yet: what is left to mend, and the way back.

Its state is one file in the repository's `.git`, written before anything changes and removed
last, so that a kill at any moment leaves a tree that `make upgrade-abort` restores.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from failure import SetupError
from locked import ROOT
from template import LINK

BEGUN, MERGED, DONE = "begun", "merged", "done"
LEFTOVERS = (".rej", ".orig")
MARKER = re.compile(rb"^(<{7}|>{7}) ", re.MULTILINE)


@dataclass
class Merge:
    """What has to be known to go on, or to go back."""

    head: str
    """The commit before the upgrade; its tree is what an abort restores."""
    version: str
    files: list[str]
    """Every path of the template in either version."""
    unedited: list[str]
    """Those that were as the old version made them, or not there: they become the new one's."""
    locked_for: str
    """Digest of what the lock in the tree was made of; empty where there is none to make anew."""
    state: str = BEGUN

    @classmethod
    def pending(cls, *, or_refuse: bool = False) -> Self | None:
        """The upgrade that waits in this tree, if there is one.

        Raises:
            SetupError: it was cut short (unless it is asked for to take it back), or
                `or_refuse` and there is none.
        """
        path = cls.path()
        try:
            merge = cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            merge = None
        except (ValueError, TypeError) as error:
            raise SetupError(f"{path} is damaged: {error}; git status shows what changed") from None
        if merge and (
            merge.head != git("rev-parse", "HEAD") or (merge.state == DONE and is_clean())
        ):
            path.unlink()  # committed, or taken back by hand
            merge = None
        if or_refuse and merge is None:
            raise SetupError("there is no upgrade to take back: it is committed, or never was one")
        if merge and merge.state == BEGUN and not or_refuse:
            raise SetupError("an upgrade was cut short here: make upgrade-abort restores the tree")
        return merge if merge is None or or_refuse or merge.state != DONE else _refuse_second(merge)

    @classmethod
    def begin(cls, old: Path, new: Path, version: str) -> Self:
        """Note the state of a clean tree before anything of it changes."""
        files = sorted((names(old) | names(new)) - {LINK.name})
        unedited = [name for name in files if _same(ROOT / name, old / name)]
        locks = {name for name in names(new) if name in set(_locks(new))}
        taken = bool(locks) and locks <= set(unedited)
        locked_for = inputs(new) if taken else inputs(ROOT) if _locks(ROOT) else ""
        merge = cls(git("rev-parse", "HEAD"), version, files, unedited, locked_for)
        merge._write()
        # What a three-way merge starts from may not be in this repository: a project that was
        # edited before its first commit lacks the template's own files.
        paths = "".join(f"{old / name}\n" for name in sorted(names(old)))
        git("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=paths)
        return merge

    def settle(self, old: Path, new: Path) -> None:
        """After the merge: what was not edited is the new version's, and no old lock is left."""
        stale = set(_locks(ROOT, old)) - set(_locks(ROOT, new))
        for name in sorted({*self.unedited, *stale}):
            if (new / name).is_file():
                (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(new / name, ROOT / name)
            elif (ROOT / name).is_file():
                (ROOT / name).unlink()
                _drop_empty((ROOT / name).parent)
        self._write(MERGED)

    def problems(self) -> Iterator[str]:
        """What a person has to decide: conflicts, and changes that found no place."""
        changed = set((git("diff", "--name-only", "-z", "HEAD") or "").split("\0"))
        for name in sorted({*changed, *_untracked(), *self._unmerged()} - {""}):
            path = ROOT / name
            if path.is_file() and MARKER.search(path.read_bytes()):
                yield f"{name} has a conflict: both you and the template changed the same lines"
        for name in self.files:
            for end in LEFTOVERS:
                if (ROOT / f"{name}{end}").exists():
                    yield f"{name}{end} has what found no place in {name}; delete it when done"

    def stage_all(self) -> None:
        """Take files without markers for resolved, and new ones for the project's."""
        git("add", "--all", ".")

    @property
    def needs_lock(self) -> bool:
        """Whether the dependencies are no longer what the lock in the tree was made of."""
        return bool(self.locked_for) and inputs(ROOT) != self.locked_for

    def locked(self) -> None:
        """The lock in the tree is of this tree."""
        self.locked_for = inputs(ROOT)
        self._write()

    def done(self) -> None:
        """Nothing is left to mend; it can be taken back until it is committed."""
        self.stage_all()  # the lock may be new
        self._write(DONE)

    def abort(self) -> int:
        """Restore the tree and say so."""
        self.restore()
        print("the tree is as it was before the upgrade")
        return 0

    def restore(self) -> None:
        """The tree as it was: tracked files from git, what the upgrade added taken away.

        Files that somebody made since are left, and so is everything that git ignores.
        """
        lock = ROOT / git("rev-parse", "--git-path", "index.lock")
        if lock.exists():
            what = "another git is at work, or was killed: if none is, delete it"
            raise SetupError(f"{lock} is there: {what} and run make upgrade-abort")
        git("reset", "--hard", "--quiet", self.head)
        added = {*self.files, *(f"{name}{end}" for name in self.files for end in LEFTOVERS)}
        for name in sorted(set(_untracked()) & added):
            (ROOT / name).unlink(missing_ok=True)
            _drop_empty((ROOT / name).parent)
        self.path().unlink()

    @staticmethod
    def path() -> Path:
        """Where the state is kept."""
        return ROOT / git("rev-parse", "--git-path", "repro-upgrade.json")

    def _unmerged(self) -> list[str]:
        listed = (git("ls-files", "--unmerged", "-z") or "").split("\0")
        return sorted({line.partition("\t")[2] for line in listed if line})

    def _write(self, state: str = "") -> None:
        self.state = state or self.state
        partial = self.path().with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(asdict(self), file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path())


def git(*arguments: str, stdin: str = "", check: bool = True) -> str | None:
    """The output of git in this project; a `SetupError` if it fails, or None without `check`."""
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, input=stdin, capture_output=True, text=True
    )
    if done.returncode == 0:
        return done.stdout.rstrip("\n")
    if not check:
        return None
    reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    raise SetupError(f"git {arguments[0]}: {reason.removeprefix('fatal: ')}", code=1)


def is_clean() -> bool:
    """Whether the repository has neither changes nor files that git does not know."""
    return not git("status", "--porcelain")


def inputs(folder: Path) -> str:
    """Digest of what a lock is made of."""
    text = (folder / "pyproject.toml").read_text(encoding="utf-8")
    try:
        file = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SetupError(f"pyproject.toml is not TOML: {error}") from None
    project, tool = file.get("project", {}), file.get("tool", {})
    named = [project.get(key) for key in ("requires-python", "dependencies")]
    named += [project.get("optional-dependencies"), file.get("dependency-groups")]
    named += [tool.get("uv"), tool.get("poetry"), tool.get("repro", {}).get("environments")]
    total = hashlib.sha256(json.dumps(named, sort_keys=True).encode())
    for pattern in ("environment.*.yml", "virtual-packages.*.yml", "pixi.toml"):
        for path in sorted(folder.glob(pattern)):
            total.update(path.read_bytes())
    return total.hexdigest()


def names(folder: Path) -> set[str]:
    """The paths of a rendered project's files."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def _locks(folder: Path, settings: Path | None = None) -> list[str]:
    """The lock files in a folder, by the patterns of its own or another's `pyproject.toml`."""
    text = ((settings or folder) / "pyproject.toml").read_text(encoding="utf-8")
    try:
        patterns = tomllib.loads(text)["tool"]["repro"]["locks"]
    except (tomllib.TOMLDecodeError, KeyError):
        raise SetupError("pyproject.toml has no [tool.repro] locks; restore it") from None
    return [p.relative_to(folder).as_posix() for each in patterns for p in folder.glob(each)]


def _same(a: Path, b: Path) -> bool:
    if not (a.is_file() and b.is_file()):
        return not a.exists() and not b.exists()
    return a.read_bytes() == b.read_bytes()


def _untracked() -> list[str]:
    listed = git("ls-files", "--others", "--exclude-standard", "-z") or ""
    return [name for name in listed.split("\0") if name]


def _drop_empty(folder: Path) -> None:
    while folder != ROOT and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _refuse_second(merge: Merge) -> None:
    raise SetupError(
        f"the upgrade to {merge.version} is not committed yet: commit it, or make upgrade-abort"
    )
