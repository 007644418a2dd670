"""Put the files selected by the answers in place, and print the next commands."""

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
    for name in names:
        path = project / name
        for folder in reversed(path.relative_to(project).parents):
            if (project / folder).is_dir() and not kept:
                (project / folder).chmod(0o777 & ~umask)
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o200 if kept else FILE)


def apply_overlays(project: Path, answers: dict) -> None:
    """Move `_overlays/<option>/<answer>/` onto the project, then drop `_overlays/`.

    Derived answers come last: a framework may have its own files of a starter. A file that rendered
    to nothing does not belong to these answers, so it is left out; and so is one that already
    exists, if cookiecutter was told to skip those.
    """
    overlays = project / "_overlays"
    for option in sorted(overlays.iterdir(), key=lambda path: (path.name[0] == "_", path.name)):
        chosen = option / str(answers[option.name])
        for source in sorted(path for path in chosen.rglob("*") if path.is_file()):
            target = project / source.relative_to(chosen)
            kept = answers.get("_skip_if_file_exists") and target.exists()
            if source.read_bytes().strip() and not kept:
                target.parent.mkdir(parents=True, exist_ok=True)
                source.replace(target)  # atomic, whenever this is interrupted
    for folder in [path for path in overlays.rglob("*") if path.is_dir()]:
        folder.chmod(0o700)  # copied from a read-only template, perhaps
    shutil.rmtree(overlays)


def write_sums(project: Path, copied: dict[str, str]) -> None:
    """List the template's own files with their sha256, so that edits are noticed.

    `copied` has the digests of those that are copied: what is there may be older, or cut off.
    """
    folders = [*project.glob("src/*/repro"), project / "environment"]
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    lines = []
    for path in files:
        if "__pycache__" not in path.parts:
            name = path.relative_to(project).as_posix()
            digest = copied.get(name) or hashlib.sha256(path.read_bytes()).hexdigest()
            lines.append(f"{digest}  {name}\n")
    (project / "repro.sum").write_text("".join(lines), encoding="utf-8", newline="\n")


def main() -> None:
    """Arrange the new project in the working directory."""
    answers = json.loads(r"""{{ cookiecutter | tojson }}""")
    names = json.loads(r"""{{ template_files(cookiecutter) | tojson }}""")
    take_modes(Path.cwd(), names, kept=bool(answers.get("_skip_if_file_exists")))
    apply_overlays(Path.cwd(), answers)
    write_sums(Path.cwd(), json.loads(r"""{{ copied_sums(cookiecutter) | tojson }}"""))
    steps = json.loads(r"""{{ next_steps(cookiecutter) | tojson }}""")
    print("\nNext:", *steps, sep="\n  ")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        sys.exit(f"error: {error.strerror}: {error.filename}")
