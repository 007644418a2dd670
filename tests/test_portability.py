"""What breaks on Windows and macOS and can be seen without them: names, paths, modes, line ends."""

import re
import subprocess
import sys

import pytest
from conftest import CHOICES, ROOT
from releases import git, tree

import template_logic as logic

LONGEST = "a" * logic.SLUG_LENGTH
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]')


def unfit(name: str) -> list[str]:
    """What is wrong with a path, for one of the systems."""
    found = []
    for part in name.split("/"):
        if RESERVED.fullmatch(part) or FORBIDDEN.search(part) or part.endswith((" ", ".")):
            found.append(f"{part!r} is no name on Windows")
        if not part.isascii():
            found.append(f"{part!r} has another form on macOS")
    return found


def problems(names: list[str], room: int) -> list[str]:
    """What is wrong with a tree's paths; `room` is what a folder's own path may take."""
    found = [f"{name}: {each}" for name in names for each in unfit(name)]
    found += [f"{name} is long" for name in names if len(name) > 259 - room]
    alike = {}
    for name in names:
        alike.setdefault(name.casefold(), []).append(name)
    return found + [f"{same} are one on some systems" for same in alike.values() if len(same) > 1]


@pytest.mark.parametrize("manager", CHOICES["dependency_manager"])
def test_a_project_can_be_checked_out_anywhere(bake, manager):
    """Also with the longest slug, 100 characters down: names, lengths, links, modes, line ends."""
    project = bake(dependency_manager=manager, project_slug=LONGEST)
    files = [path for path in project.rglob("*") if not path.is_dir()]
    names = [path.relative_to(project).as_posix() for path in files]
    assert problems(names, room=100 + len(LONGEST)) == []
    assert [path for path in project.rglob("*") if path.is_symlink()] == []
    assert {path.stat().st_mode & 0o777 for path in files} <= {0o644, 0o664, 0o600}
    assert [path for path in files if b"\r" in path.read_bytes()] == []
    assert "* text=auto eol=lf" in (project / ".gitattributes").read_text()


def test_git_keeps_the_line_ends_of_a_project_on_windows(bake, tmp_path):
    """With git's settings there, a clone has the same bytes."""
    project = bake(project_slug="probe")
    git(project, "init", "--quiet")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "first")
    windows = ["-c", "core.autocrlf=true", "-c", "core.eol=crlf"]
    clone = tmp_path / "clone"
    subprocess.run(["git", *windows, "clone", "--quiet", str(project), str(clone)], check=True)
    assert tree(clone, without=()) == tree(project, without=())


def test_the_template_can_be_checked_out_anywhere():
    """Its own names too; the folder named by a tag is fine on all of them."""
    names = git(ROOT, "ls-files").splitlines()
    assert problems(names, room=60) == []
    modes = {line.split()[0] for line in git(ROOT, "ls-files", "--stage").splitlines()}
    assert modes <= {"100644", "100755"}


def test_a_template_checked_out_on_windows_makes_the_same_project(bake, tmp_path):
    """git must not turn its line ends into others, which every file would take over."""
    windows = ["-c", "core.autocrlf=true", "-c", "core.eol=crlf"]
    clone = tmp_path / "clone"
    subprocess.run(["git", *windows, "clone", "--quiet", str(ROOT), str(clone)], check=True)
    names = git(clone, "ls-files").splitlines()
    assert [name for name in names if b"\r\n" in (clone / name).read_bytes()] == []
    command = [sys.executable, "-P", "-m", "cookiecutter", str(clone), "--no-input"]
    command += ["--output-dir", str(tmp_path / "out"), "project_slug=probe"]
    subprocess.run(command, check=True, capture_output=True)
    made = tree(tmp_path / "out" / "probe")
    assert [name for name, (_, content) in made.items() if b"\r" in content] == []


@pytest.mark.parametrize("slug", ["con", "nul", "com1", "lpt9", "aux", "prn"])
def test_a_folder_that_windows_cannot_have_is_refused(cookies, slug):
    """Whoever makes the project; a colleague may clone it there."""
    result = cookies.bake(extra_context={"project_slug": slug})
    assert result.exit_code != 0
    assert "reserved file name on Windows" in str(result.exception)
