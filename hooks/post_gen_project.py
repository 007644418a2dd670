"""Put the files selected by the answers in place, and print the next commands.

`template_guard.py` runs this within cookiecutter's process; where it cannot, cookiecutter renders
this file and runs it.
"""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

FILE = 0o644


def take_modes(project: Path, names: list[str], *, kept: bool) -> None:
    """Give the project's files and folders default modes rather than those of the template.

    A template may be read-only, as in a package store, or belong to another user. Files that
    existed before and are `kept` stay as they are, except that they become writable.
    """
    umask = os.umask(0o077)
    os.umask(umask)
    folders: set[str] = set()
    for name in names:
        while (name := name.rpartition("/")[0]) not in folders:  # `Path.parents` takes far longer
            folders.add(name)
    for path in map(project.joinpath, [*names, *folders]):
        if path.is_dir() and not kept:
            path.chmod(0o777 & ~umask)
        elif path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o200 if kept else FILE)


def apply_overlays(project: Path, answers: dict) -> dict[str, str]:
    """Move `_overlays/<option>/<answer>/` onto the project.

    Derived answers come last: a framework may have its own files of a starter. A file that rendered
    to nothing does not belong to these answers, so it is left out; and so is one that already
    exists, if cookiecutter was told to skip those. Returns the sha256 of what was skipped, by path.
    """
    skipped = {}
    overlays = project / "_overlays"
    for option in sorted(overlays.iterdir(), key=lambda path: (path.name[0] == "_", path.name)):
        chosen = option / str(answers[option.name])
        for source in sorted(path for path in chosen.rglob("*") if path.is_file()):
            name = source.relative_to(chosen)
            content, target = source.read_bytes(), project / name
            if content.strip() and answers.get("_skip_if_file_exists") and target.exists():
                skipped[name.as_posix()] = hashlib.sha256(content).hexdigest()
            elif content.strip():
                target.parent.mkdir(parents=True, exist_ok=True)
                source.replace(target)  # atomic, whenever this is interrupted
    return skipped


def drop_overlays(project: Path) -> None:
    """Remove `_overlays/`, last of all: while it is there, the project is not whole."""
    overlays = project / "_overlays"
    try:
        shutil.rmtree(overlays)
    except PermissionError:  # copied from a read-only template
        for folder in [path for path in overlays.rglob("*") if path.is_dir()]:
            folder.chmod(0o700)
        shutil.rmtree(overlays)


def write_sums(project: Path, skipped: dict[str, str]) -> None:
    """List the template's own files with their sha256, so that edits are noticed.

    `skipped` has the digests of those that were there: they may be older, edited, or cut off.
    """
    folders = [*project.glob("src/*/repro"), project / "environment"]
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    lines = []
    for path in files:
        if "__pycache__" not in path.parts:
            name = path.relative_to(project).as_posix()
            digest = skipped.get(name) or hashlib.sha256(path.read_bytes()).hexdigest()
            lines.append(f"{digest}  {name}\n")
    (project / "repro.sum").write_text("".join(lines), encoding="utf-8", newline="\n")


def arrange(project: Path, answers: dict, names: list[str], steps: list[str]) -> None:
    """Make a project of the files that cookiecutter wrote, `names`, and print the next `steps`."""
    take_modes(project, names, kept=bool(answers.get("_skip_if_file_exists")))
    skipped = answers.get("_skipped_sums", {}) | apply_overlays(project, answers)
    write_sums(project, skipped)
    drop_overlays(project)
    print("\nNext:", *steps, sep="\n  ")


def main() -> None:
    """Arrange the new project in the working directory."""
    answers = json.loads(r"""{{ cookiecutter | tojson }}""")
    names = json.loads(r"""{{ template_files(cookiecutter) | tojson }}""")
    steps = json.loads(r"""{{ next_steps(cookiecutter) | tojson }}""")
    arrange(Path.cwd(), answers, names, steps)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        sys.exit(f"error: {error.strerror}: {error.filename}")
