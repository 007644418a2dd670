"""An upgrade that is in the tree and not committed yet: what is left to mend, and the way back.

Its state is one file in the repository's `.git`, written before anything changes and removed
last, so that a kill at any moment leaves a tree that `make upgrade-abort` restores.
"""

import hashlib
import json
import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import repository
from failure import SetupError
from locked import ROOT
from template import LINK

BEGUN, MERGED, DONE = "begun", "merged", "done"
REJECTED = ".rej"
MARKER = re.compile(rb"^(<{7}|>{7}) ", re.MULTILINE)
LIFELINE = re.compile(r"Makefile|[^/]+\.mk|environment/[^/]+\.py")
"""What `make upgrade-abort` itself needs: no conflict marker may stand in it."""
UNDERWAY = (
    *("MERGE_HEAD", "REBASE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD"),
    *("rebase-merge", "rebase-apply"),
)


@dataclass
class Merge:
    """What has to be known to continue, or to go back."""

    head: str
    """The commit before the upgrade; its tree is what an abort restores."""
    version: str
    files: list[str]
    """Every path of the template in either version."""
    unedited: list[str]
    """Those that were as the old version made them, or not there: they become the new one's."""
    locked_for: str
    """Digest of what the lock in the tree was made of; empty where there is none to make again."""
    rejected_before: list[str]
    """Files `*.rej` that were there: not of this upgrade."""
    unmerged: dict[str, str]
    """Digests of the files that git could not merge, as it left them."""
    lock_patterns: list[str] = field(default_factory=list)
    """Where locks are, in either version: `pyproject.toml` itself may have a conflict. Empty where
    the upgrade was begun by 0.2.0."""
    made: list[str] = field(default_factory=list)
    """Locks that `make lock` made, where there were none."""
    before_lock: list[str] | None = None
    """The locks that are there, while `make lock` runs."""
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
        if merge and merge.state == DONE and not or_refuse:
            ways = "commit it, or make upgrade-abort"
            raise SetupError(f"the upgrade to {merge.version} is not committed yet: {ways}")
        return merge

    @classmethod
    def begin(cls, old: Path, new: Path, version: str) -> Self:
        """Note the state of a clean tree before anything of it changes."""
        files = sorted((names(old) | names(new)) - {LINK.name})
        unedited = [name for name in files if _same(ROOT / name, old / name)]
        locks = {name for name in names(new) if name in set(_locks(new))}
        taken = bool(locks) and locks <= set(unedited)
        locked_for = inputs(new) if taken else inputs(ROOT) if _locks(ROOT) else ""
        rejected = [name for name in files if os.path.lexists(ROOT / f"{name}{REJECTED}")]
        head = git("rev-parse", "HEAD")
        patterns = sorted({*_patterns(ROOT), *_patterns(new)})
        merge = cls(head, version, files, unedited, locked_for, rejected, {}, patterns)
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
            here, before, after = ROOT / name, old / name, new / name
            if after.is_file():
                if not before.is_file() and os.path.lexists(here):
                    continue  # the merge made it, maybe of a file that was renamed and edited
                here.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(after, here)
                if not before.is_file() or before.stat().st_mode != after.stat().st_mode:
                    shutil.copymode(after, here)
            elif here.is_file():
                here.unlink()
                _drop_empty(here.parent)
        for name in self.files:
            path = ROOT / name
            if LIFELINE.fullmatch(name) and _markers(name):
                # The way back must work: the conflict goes beside the file.
                (ROOT / f"{name}{REJECTED}").write_bytes(path.read_bytes())
                git("restore", "--source=HEAD", "--staged", "--worktree", "--", name)
        for name in _unmerged():
            self.unmerged[name] = _digest(ROOT / name)
        self._write(MERGED)

    def notes(self, old: Path, new: Path) -> Iterator[str]:
        """What is not wrong and should be known."""
        for name in sorted(names(old) - names(new) - set(self.unedited)):
            if (ROOT / name).is_file():
                yield f"note: {name} is no longer the template's; yours is kept"
        for name in sorted(names(new)):
            if (ROOT / name).is_symlink() and not _same(old / name, new / name):
                yield f"note: {name} is a link, so what the template changed in it is not there"

    def problems(self) -> Iterator[str]:
        """What a person has to decide: conflicts, and changes that found no place."""
        changed = (git("diff", "--name-only", "--relative", "-z", "HEAD") or "").split("\0")
        for name in sorted({*changed, *self.files} - {""}):
            if _markers(name):
                yield f"{name} has a conflict: both you and the template changed the same lines"
        for name in _unmerged():
            if not _markers(name) and self.unmerged.get(name) == _digest(ROOT / name):
                yield f"{name} could not be merged and is as it was; mend it and git add it"
        for name in self._rejected():
            yield f"{name}{REJECTED} has what found no place in {name}; delete it when done"

    def _rejected(self) -> list[str]:
        left = [name for name in self.files if os.path.lexists(ROOT / f"{name}{REJECTED}")]
        return sorted(set(left) - set(self.rejected_before))

    def stage_all(self) -> None:
        """Take files without markers for resolved, and the template's new ones for the project's.

        What the user made since, and what git ignores, is none of it.
        """
        git("add", "--update", "--", ".")
        ours = {*self.files, *self._locks(), LINK.name}
        git("add", "--force", "--", *sorted(name for name in ours if (ROOT / name).is_file()))

    @property
    def needs_lock(self) -> bool:
        """Whether the dependencies are no longer what the lock in the tree was made of."""
        return bool(self.locked_for) and inputs(ROOT) != self.locked_for

    @contextmanager
    def locking(self) -> Iterator[None]:
        """While `make lock` runs: what it makes, whole or not, is the upgrade's."""
        self.before_lock = self._locks()
        self._write()
        yield
        self._note_made()
        self._write()

    def locked(self) -> None:
        """The lock in the tree is of this tree."""
        self.locked_for = inputs(ROOT)
        self._write()

    def _note_made(self) -> None:
        if self.before_lock is not None:
            self.made = sorted({*self.made, *({*self._locks()} - {*self.before_lock})})
            self.before_lock = None

    def _locks(self) -> list[str]:
        return _found(ROOT, self.lock_patterns or self._patterns_of_both())

    def _patterns_of_both(self) -> list[str]:
        patterns = set(_read_patterns(git("show", "HEAD:./pyproject.toml")))
        with suppress(SetupError):
            patterns |= set(_patterns(ROOT))
        return sorted(patterns)

    def done(self) -> None:
        """Nothing is left to mend; it can be taken back until it is committed."""
        self.stage_all()  # the lock may be new
        self._write(DONE)

    def abort(self) -> int:
        """Restore the tree and say so."""
        self.restore()
        print("the tree is as it was before the upgrade; make setup for its environment")
        return 0

    def restore(self) -> None:
        """The tree as it was: tracked files from git, what the upgrade added taken away.

        Files that somebody made since are left, and so is everything that git ignores.
        """
        lock = ROOT / git("rev-parse", "--git-path", "index.lock")
        if lock.exists():
            what = "another git is at work, or was killed: if none is, delete it"
            raise SetupError(f"{lock} is there: {what} and run make upgrade-abort")
        staged = git(
            "diff", "--cached", "--diff-filter=A", "--name-only", "--relative", "-z", "HEAD"
        )
        self._note_made()
        ours = {*self.files, *self._locks(), LINK.name}
        if others := sorted(set((staged or "").split("\0")) - ours - {""}):
            git("reset", "--quiet", "HEAD", "--", *others)  # they stay on disk
        git("restore", f"--source={self.head}", "--staged", "--worktree", "--", ".")
        rejected = {f"{name}{REJECTED}" for name in self._rejected()}
        # Of these none was here when it began, unless git had it.
        for name in sorted(({*self.files, *self.made} - tracked()) | rejected):
            if os.path.lexists(ROOT / name):
                (ROOT / name).unlink()
                _drop_empty((ROOT / name).parent)
        self.path().unlink()

    @staticmethod
    def path() -> Path:
        """Where the state is kept."""
        return ROOT / git("rev-parse", "--git-path", "repro-upgrade.json")

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
    # File names are bytes.
    done = repository.git(ROOT, *arguments, input=stdin, errors="surrogateescape")
    if done.returncode == 0:
        return done.stdout.rstrip("\n")
    if not check:
        return None
    reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    raise SetupError(f"git {arguments[0]}: {reason.removeprefix('fatal: ')}", code=1)


def is_clean() -> bool:
    """Whether the repository has neither changes nor files that git does not know."""
    return not git("status", "--porcelain", "--untracked-files=all")


def tracked() -> set[str]:
    """The files that git knows here."""
    return set(git("ls-files", "-z").split("\0")) - {""}


def refuse_unready(old: Path, new: Path) -> None:
    """Raise a `SetupError` for whatever could not be taken back."""
    for name in UNDERWAY:
        if (ROOT / git("rev-parse", "--git-path", name)).exists():
            raise SetupError(f"git is in the middle of something ({name}); finish that first")
    known = tracked()
    if not {"pyproject.toml", LINK.name} <= known:
        raise SetupError(f"git does not have pyproject.toml and {LINK.name}: commit the project")
    if not (new / "environment" / "merge.py").is_file():
        raise SetupError("that version of the template has no make upgrade: go back with git")
    flags = {line[2:]: line[0] for line in git("ls-files", "-v", "-z").split("\0") if line}
    for name in sorted(names(old) | names(new)):
        path = ROOT / name
        if path.is_dir() or (os.path.lexists(path) and name not in known and name != LINK.name):
            raise SetupError(
                f"{name} is in the way, and git does not have it: commit it or move it"
            )
        if flags.get(name, "H") != "H":
            raise SetupError(f"git is told to overlook {name} (git update-index); undo that first")


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
    return _found(folder, _patterns(settings or folder))


def _patterns(folder: Path) -> list[str]:
    return _read_patterns((folder / "pyproject.toml").read_text(encoding="utf-8"))


def _read_patterns(text: str) -> list[str]:
    try:
        return tomllib.loads(text)["tool"]["repro"]["locks"]
    except (tomllib.TOMLDecodeError, KeyError):
        raise SetupError("pyproject.toml has no [tool.repro] locks; restore it") from None


def _found(folder: Path, patterns: list[str]) -> list[str]:
    return [p.relative_to(folder).as_posix() for each in patterns for p in folder.glob(each)]


def _same(a: Path, b: Path) -> bool:
    """Whether the project's file is the template's; what a link leads to is somebody's own."""
    inside = [path for path in (a, *a.parents) if path.is_relative_to(ROOT) and path != ROOT]
    if any(path.is_symlink() for path in inside):
        return False
    if not (a.is_file() and b.is_file()):
        return not a.exists() and not b.exists()
    return a.read_bytes() == b.read_bytes()


def _unmerged() -> list[str]:
    listed = (git("ls-files", "--unmerged", "-z") or "").split("\0")
    return sorted({line.partition("\t")[2] for line in listed if line})


def _markers(name: str) -> bool:
    """Whether a file has more conflict markers than it had: a text may be about them."""
    path = ROOT / name
    if not path.is_file() or not MARKER.search(content := path.read_bytes()):
        return False
    before = (git("show", f"HEAD:./{name}", check=False) or "").encode(errors="surrogateescape")
    return len(MARKER.findall(content)) > len(MARKER.findall(before))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _drop_empty(folder: Path) -> None:
    while folder != ROOT and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
