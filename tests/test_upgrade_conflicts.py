"""What an upgrade cannot decide is named, and all of it can be taken back, at any moment."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
import releases
from conftest import CHOICES, ROOT
from releases import (
    ANSWERS,
    NEXT,
    NOW,
    RELEASED,
    commit,
    conflicting,
    edit,
    errors,
    git,
    linked,
    make_edits,
    merges,
    succeeds,
    tree,
    upgrade,
)

from tools import demo

pytestmark = pytest.mark.upgrades
MANAGERS = CHOICES["dependency_manager"]


def test_a_conflict_is_named_and_can_be_taken_back(born):
    """Exit code not zero, the file by its name; abort restores the tree to the byte."""
    project = conflicting(born)
    before = tree(project, without=())
    assert [line.partition(" has")[0] for line in errors(upgrade(project))] == [
        "error: src/probe/model.py"
    ]
    again = upgrade(project)
    assert "src/probe/model.py has a conflict" in errors(again)[0]
    (project / "made-since.txt").write_text("by the user")
    succeeds(upgrade(project, verb="upgrade-abort"))
    assert (project / "made-since.txt").read_text() == "by the user"
    (project / "made-since.txt").unlink()
    assert tree(project, without=()) == before
    assert git(project, "status", "--porcelain") == ""
    assert "there is no upgrade to take back" in errors(upgrade(project, verb="upgrade-abort"))[0]


@pytest.mark.parametrize("verb", ["upgrade", "upgrade-abort"])
def test_what_has_begun_needs_no_network(born, other_template, verb):
    """The template is out of reach by then: the upgrade is finished, or taken back."""
    project = linked(conflicting(born), other_template)
    before = tree(project, without=())
    errors(upgrade(project))
    other_template.rename(other_template.with_name("gone"))
    assert "cannot be cloned" in errors(upgrade(project, verb="upgrade-check"))[0]
    if verb == "upgrade":
        path = project / "src/probe/model.py"
        path.write_text(re.sub(r"(?m)^(<{7}|={7}|>{7}).*\n", "", path.read_text()))
        assert "upgraded to template" in succeeds(upgrade(project))
        assert "is not committed yet" in errors(upgrade(project))[0]
    succeeds(upgrade(project, verb="upgrade-abort"))
    assert tree(project, without=()) == before
    assert not list((project / ".git").glob("repro-upgrade*"))


def own_pin(project, template):
    """A project of which somebody moved the same pin."""
    edit(project / "pyproject.toml", r"tqdm==[\d.]+", "tqdm==4.69.0")
    return linked(project, template)


def test_a_conflict_in_the_dependencies_can_be_taken_back(born, pins_moved):
    """The one file that says where the locks are has markers in it then."""
    project = own_pin(born(NOW), pins_moved)
    before = tree(project, without=())
    (line,) = errors(upgrade(project))
    assert line.startswith("error: pyproject.toml has a conflict")
    succeeds(upgrade(project, verb="upgrade-abort"))
    assert tree(project, without=()) == before
    assert git(project, "status", "--porcelain") == ""


def test_the_loop_tells_a_conflict_in_the_dependencies(born, pins_moved):
    """And restores the project."""
    project = own_pin(born(NOW, name="team-1"), pins_moved)
    before = tree(project, without=())
    command = [sys.executable, str(ROOT / "tools" / "upgrade_projects.py"), "--no-check"]
    command += ["--python", sys.executable, str(project)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(r"^team-1 +pyproject.toml has a conflict", done.stdout, re.MULTILINE)
    assert tree(project, without=()) == before
    assert git(project, "status", "--porcelain") == ""


def test_the_loop_leaves_waiting_upgrades_alone(born, tmp_path):
    """Somebody's half-mended upgrade, a taken branch, a missing folder, a hook that refuses."""
    waiting, taken, hooked = (born(NOW, name=f"team-{name}") for name in ("waits", "taken", "hook"))
    succeeds(upgrade(waiting))
    edit(waiting / "README.md", r"\Z", "Reviewed.\n")
    git(taken, "branch", f"upgrade-{NEXT[1:]}")
    hook = hooked / ".git/hooks/pre-commit"
    hook.write_text("#!/bin/sh\necho no >&2\nexit 1\n")
    hook.chmod(0o755)
    command = [sys.executable, str(ROOT / "tools/upgrade_projects.py"), "--no-check"]
    projects = [waiting, taken, hooked, tmp_path / "nowhere"]
    done = subprocess.run(
        [*command, "--python", sys.executable, *map(str, projects)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(re.findall(r"^(?:team-|nowhere)\S* +\S", done.stdout, re.M)) == 4
    assert "Reviewed." in (waiting / "README.md").read_text()
    for project in (taken, hooked):
        assert git(project, "branch", "--show-current") == "main"
        assert git(project, "status", "--porcelain") == ""


PIXI = """\
#!/bin/sh
case "$1" in
    --version) echo pixi 9.9.9 ;;
    lock) echo made > pixi.lock ;;
    *) exit 1 ;;
esac
"""


def stub_of_pixi(folder):
    """A `pixi` that locks and installs nothing, on the path; no channel is at hand."""
    stub = folder / "bin" / "pixi"
    stub.parent.mkdir()
    stub.write_text(PIXI)
    stub.chmod(0o755)
    return {"PATH": f"{stub.parent}:{demo.environment()['PATH']}"}


def test_a_setup_that_fails_after_the_lock_was_made_is_said_and_taken_back(born, tmp_path):
    """With the lock, which git does not know yet; what somebody made meanwhile stays."""
    project = born(NOW)
    before = tree(project, without=())
    path = stub_of_pixi(tmp_path)
    done = upgrade(project, "DEPENDENCY_MANAGER=pixi", check="CHECK=yes", env=path)
    assert "make setup fails after the upgrade; mend that" in errors(done)[-1]
    assert (project / "pixi.lock").read_text() == "made\n"
    (project / "requirements").mkdir(exist_ok=True)
    (project / "requirements" / "mine.txt").write_text("mine")
    succeeds(upgrade(project, verb="upgrade-abort"))
    assert (project / "requirements" / "mine.txt").read_text() == "mine"
    (project / "requirements" / "mine.txt").unlink()
    assert tree(project, without=()) == before
    assert git(project, "status", "--porcelain") == ""


@pytest.mark.parametrize("tag", [tag for tag in RELEASED if tag != "v0.1.0"])
def test_an_upgrade_from_a_release_can_be_taken_back(born, tag):
    """It was begun by the old version's commands, and is taken back by the new one's."""
    project = born(tag)
    make_edits(project, "pip")
    before = tree(project, without=())
    merges(upgrade(project, f"TO={NOW}"))
    assert tree(project, without=()) != before
    succeeds(upgrade(project, verb="upgrade-abort"))
    assert tree(project, without=()) == before
    assert git(project, "status", "--porcelain") == ""


@pytest.mark.parametrize("tag", [tag for tag in RELEASED if tag != "v0.1.0"])
def test_an_upgrade_that_a_release_began_is_finished_by_the_new_version(born, tmp_path, tag):
    """With another manager on the way and a conflict: the lock that it makes is the upgrade's."""
    project = born(tag)
    edit(project / "README.md", r"\A# .*", "# Ours")
    edit(project / ".gitattributes", r"\A", "# ours\n")
    commit(project, "ours")
    before = tree(project, without=())
    given = [f"TO={NOW}", "DEPENDENCY_MANAGER=pixi", "PROJECT_NAME=Theirs"]
    assert "README.md has a conflict" in errors(upgrade(project, *given))[0]
    path = project / "README.md"
    path.write_text(
        re.sub(r"<{7}.*?\n(.*?)={7}.*?>{7}[^\n]*\n", r"\1", path.read_text(), flags=re.S)
    )
    path = stub_of_pixi(tmp_path)
    succeeds(upgrade(project, env=path))
    assert git(project, "ls-files", "pixi.lock") == "pixi.lock"
    succeeds(upgrade(project, verb="upgrade-abort"))
    assert tree(project, without=()) == before
    assert git(project, "status", "--porcelain") == ""


def test_a_conflict_that_was_mended_continues(born, fresh):
    """`make upgrade` again takes the files without markers for resolved, and finishes."""
    project = conflicting(born)
    errors(upgrade(project))
    path = project / "src/probe/model.py"
    mended = re.sub(
        r"<<<<<<<.*?\n(.*?)\n=======.*?>>>>>>>[^\n]*\n", r"\1\n", path.read_text(), flags=re.S
    )
    path.write_text(mended)
    assert "upgraded to template" in succeeds(upgrade(project))
    assert git(project, "diff", "--name-only", "--diff-filter=U") == ""
    assert '"""Our' in path.read_text()
    wanted = {**tree(fresh(NEXT, **ANSWERS)), "src/probe/model.py": None, "outputs/kept": None}
    assert {**tree(project), "src/probe/model.py": None, "outputs/kept": None} == wanted
    # Not a second time on top of it; after the commit there is nothing to do.
    assert "is not committed yet" in errors(upgrade(project))[0]
    commit(project, "upgraded")
    assert "up to date" in succeeds(upgrade(project))


def test_what_finds_no_place_is_named(born):
    """cruft's second strategy leaves `.rej` files and reports success."""
    project = born(NOW)
    # A file of the new version's name is here already, and with other content.
    (project / "docs" / "new.md").write_text("ours\n")
    edit(project / "src/probe/model.py", r'\A"""The', '"""Our')
    commit(project, "ours")
    before = tree(project, without=())
    lines = errors(upgrade(project))
    assert any("src/probe/model.py has a conflict" in line for line in lines), lines
    assert '"""Our' in (project / "src/probe/model.py").read_text()
    assert any("docs/new.md" in line for line in lines), lines
    succeeds(upgrade(project, verb="upgrade-abort"))
    assert tree(project, without=()) == before


def begun(project, *, at):
    """An upgrade that was sent a signal when its output or its state came to a point."""
    command = ["make", "upgrade", f"PYTHON={sys.executable}", "CHECK=no"]
    running = subprocess.Popen(
        command,
        cwd=project,
        env=demo.environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not at() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    return running


def conflicted(path):
    """Whether a file has a conflict by now; git takes it away for a moment to write it."""
    try:
        return "<<<<<<<" in path.read_text()
    except FileNotFoundError:
        return False


def program(running):
    """The process of the upgrade itself, whose children are cruft and git."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "pgid,pid,args"], capture_output=True, text=True
    ).stdout
    rows = (line.split(maxsplit=2) for line in listed.splitlines()[1:])
    named = [
        int(pid) for group, pid, said in rows if int(group) == running.pid and "--scratch" in said
    ]
    return named[0]


MOMENTS = [0.3, 1.0, 1.7, 2.4, "state", "merged"]
STOPPED = [(name, moment, False) for name in ("SIGKILL", "SIGINT", "SIGTERM") for moment in MOMENTS]
STOPPED += [(name, moment, True) for name in ("SIGINT", "SIGTERM") for moment in MOMENTS[-2:]]


@pytest.mark.parametrize(("name", "moment", "alone"), STOPPED)
def test_an_upgrade_that_is_stopped_can_be_taken_back(born, name, moment, alone):
    """At any moment: the tree is as it was, or `make upgrade-abort` makes it so.

    The signal comes to everything, as from a terminal, or to the upgrade alone, as from `kill`.
    """
    project = conflicting(born)
    before = tree(project, without=())
    state = project / ".git" / "repro-upgrade.json"
    start = time.monotonic()
    reached = {
        "state": state.exists,
        "merged": lambda: conflicted(project / "src/probe/model.py"),
    }
    elapsed = lambda: time.monotonic() - start > moment  # noqa: E731
    running = begun(project, at=reached.get(moment, elapsed))
    assert moment not in reached or running.poll() is None, "it was done before the moment came"
    with suppress(ProcessLookupError):
        if alone:
            os.kill(program(running), getattr(signal, name))
        else:
            os.killpg(running.pid, getattr(signal, name))
    _, told = running.communicate(timeout=60)
    assert "Traceback" not in told
    if name != "SIGKILL" and not state.exists():
        assert tree(project, without=()) == before
    if state.exists():
        again = upgrade(project)
        assert any("cut short" in line or "conflict" in line for line in errors(again))
        lock = project / ".git" / "index.lock"
        if name == "SIGKILL" and lock.exists():  # git was killed while it held it
            (line,) = errors(upgrade(project, verb="upgrade-abort"))
            assert f"{lock} is there" in line
            lock.unlink()
        succeeds(upgrade(project, verb="upgrade-abort"))
    assert tree(project, without=()) == before
    assert git(project, "status", "--porcelain") == ""


def test_what_git_does_not_have_survives_an_abort(born, other_template):
    """Ignored runs, although the new version ignores less, and files made while mending."""
    ignored = other_template / "{{cookiecutter.project_slug}}/.gitignore"
    edit(ignored, r"^/outputs$", "/results")
    releases.release(other_template, "v99.1.0", "Ignores less.")
    project = linked(conflicting(born), other_template)
    (project / "outputs" / "run").write_text("precious")
    errors(upgrade(project))
    path = project / "src/probe/model.py"
    path.write_text(
        re.sub(r"<<<<<<<.*?\n(.*?)=======.*?>>>>>>>[^\n]*\n", r"\1", path.read_text(), flags=re.S)
    )
    (project / "src/probe/mine.py").write_text("made = 1\n")
    (project / "staged.txt").write_text("staged")
    git(project, "add", "staged.txt")
    succeeds(upgrade(project))
    assert "outputs/run" not in git(project, "ls-files")
    succeeds(upgrade(project, verb="upgrade-abort"))
    assert (project / "outputs/run").read_text() == "precious"
    assert (project / "src/probe/mine.py").read_text() == "made = 1\n"
    assert (project / "staged.txt").read_text() == "staged"
    assert git(project, "status", "--porcelain", "--untracked-files=no") == ""


@pytest.mark.parametrize("name", ["README.md", "docs"])
def test_links_to_what_is_elsewhere_are_not_written_through(born, tmp_path, name):
    """Neither by the upgrade nor by its abort; and what is missing is reported."""
    project = born(NOW)
    shared = tmp_path / "shared"
    shared.mkdir()
    shutil.move(project / name, shared / name)
    (project / name).symlink_to(shared / name)
    commit(project, "shared")
    before = tree(shared)
    done = upgrade(project)
    told = f"{done.stdout}\n{done.stderr}".splitlines()
    assert any(line.startswith(("error: ", "note: ")) and name in line for line in told)
    assert tree(shared) == before
    upgrade(project, verb="upgrade-abort")
    assert tree(shared) == before
    assert git(project, "status", "--porcelain") == ""


def test_a_conflict_that_git_does_not_mark_is_named(born):
    """As with `*.ipynb -merge`: the template's change is in no file."""
    project = born(NOW)
    (project / ".git/info/attributes").write_text("*.ipynb -merge\n")
    edit(project / "notebooks/explore_run.ipynb", "Loads the", "Ourly loads the")
    commit(project, "ours")
    for _ in range(2):
        (line,) = errors(upgrade(project))
        assert "notebooks/explore_run.ipynb could not be merged" in line
    git(project, "add", "notebooks/explore_run.ipynb")
    succeeds(upgrade(project))


def test_a_conflict_in_the_makefile_leaves_the_ways_out(born):
    """With markers in it, no verb would work."""
    project = born(NOW)
    edit(project / "Makefile", r"\A.*", "# OUR verbs")
    commit(project, "ours")
    before = tree(project, without=())
    (line,) = errors(upgrade(project))
    assert "Makefile.rej has what found no place in Makefile" in line
    assert "<<<<<<<" in (project / "Makefile.rej").read_text()
    succeeds(upgrade(project, verb="upgrade-abort"))
    assert tree(project, without=()) == before


def test_a_text_about_conflicts_is_none(born):
    """Markers that were there before do not count."""
    project = born(NOW)
    edit(project / "README.md", r"\Z", "\n```\n<<<<<<< ours\n>>>>>>> theirs\n```\n")
    (project / "notes.md").write_text("<<<<<<< ours\n")
    commit(project, "ours")
    succeeds(upgrade(project))


def test_a_project_inside_a_bigger_repository(born, tmp_path):
    """Conflicts are seen there, and an abort touches nothing beside it."""
    project = conflicting(born)
    outer = tmp_path / "outer"
    shutil.copytree(project, outer / "probe", symlinks=True)
    shutil.rmtree(outer / "probe" / ".git")
    (outer / "other.txt").write_text("one\n")
    commit(outer, "outer")
    inner = outer / "probe"
    before = tree(inner)
    assert "src/probe/model.py has a conflict" in errors(upgrade(inner))[0]
    git(outer, "add", "--all")
    assert "src/probe/model.py has a conflict" in errors(upgrade(inner))[0]
    (outer / "other.txt").write_text("one\ntwo\n")
    succeeds(upgrade(inner, verb="upgrade-abort"))
    assert tree(inner) == before
    assert (outer / "other.txt").read_text() == "one\ntwo\n"
