"""Upgrades across the wall: what a user wrote among the machinery's old files comes over.

In 0.3.0 the machinery moved to `repro/`. Old imports work for one more release, with a warning.
"""

import shutil
import subprocess
import sys

import pytest
import releases
from releases import NOW, RELEASED, commit, edit, errors, succeeds, tree, upgrade

from tools import demo

pytestmark = pytest.mark.upgrades

MINE = '''"""A module of the team's own, on what used to stand beside it."""

from .environment import resolve_text
from .order import BatchSampler
from .seeding import derive

__all__ = ["BatchSampler", "derive", "resolve_text"]
'''
WRITTEN = {
    "the loop": "loss_of_ours = loss * 2.0",
    "the model": 'MINE = "model"',
    "the machinery": 'MINE = "machinery"',
    "a module": "A module of the team's own",
    "a test": "def test_of_our_own",
}


def write(project):
    """What a team does in its first weeks: the loop, the model, a file of ours, two of theirs."""
    package = project / "src" / "probe"
    edit(package / "train.py", r"^( +)loss\.backward\(\)", r"\1loss_of_ours = loss * 2.0\n\g<0>")
    edit(package / "model.py", r"\Z", '\n\nMINE = "model"\n')
    edit(package / "record.py", r"\Z", '\n\nMINE = "machinery"\n')
    (package / "mine.py").write_text(MINE)
    (project / "tests" / "test_mine.py").write_text(
        "import pytest\n\nfrom probe.seeding import derive\n\n\n"
        "def test_of_our_own():\n    assert derive(0, 'x') == pytest.approx(derive(0, 'x'))\n"
    )
    commit(project, "ours")


def holds(project):
    """Nothing that was written is lost: each is in some file, once."""
    texts = [content.decode(errors="replace") for _, content in tree(project).values()]
    for what, text in WRITTEN.items():
        assert sum(text in each for each in texts) == 1, what


def imports(project, python):
    """The warnings and errors of a module that imports by the old names."""
    code = "import probe.mine as m; assert m.derive(0, 'x') != m.derive(0, 'y')"
    command = [python, "-W", "default", "-c", code]
    environ = {**demo.environment(), "PYTHONPATH": str(project / "src")}
    return subprocess.run(command, env=environ, capture_output=True, text=True)


@pytest.mark.parametrize("tag", RELEASED)
def test_nothing_that_a_team_wrote_is_lost(born, pip_project, tag):
    """The loop is named as a conflict; the rest comes over, and old imports say where they lead."""
    project = born(tag)
    write(project)
    if tag == "v0.1.0":  # it has no such verb
        command = [*releases.CRUFT, "update", "--skip-apply-ask", "--checkout", NOW]
        succeeds(subprocess.run(command, cwd=project, capture_output=True, text=True))
        left = project / "src/probe/train.py.rej"
        assert left.exists() or "<<<<<<<" in (project / "src/probe/train.py").read_text()
    else:
        lines = errors(upgrade(project, f"TO={NOW}"))
        assert any("src/probe/train.py" in line for line in lines), lines
    holds(project)
    ruff = [sys.executable, "-m", "ruff", "check", "src/probe/mine.py", "tests/test_mine.py"]
    styled = subprocess.run(ruff, cwd=project, capture_output=True, text=True)
    assert styled.returncode == 0, styled.stdout
    said = imports(project, pip_project / ".venv" / "bin" / "python")
    assert said.returncode == 0, said.stderr
    assert "write: from probe.repro.random.streams import derive" in said.stderr
    assert "write: from probe.repro.random.sampler import BatchSampler" in said.stderr
    assert "write: from probe.repro.env import resolve_text" in said.stderr


@pytest.mark.parametrize("tag", [tag for tag in RELEASED if tag != "v0.1.0"])
def test_the_new_loop_is_taken_and_the_upgrade_goes_on(born, fresh, tag):
    """As in `docs/from-0.2.md`: take the new `train.py`, redo the edit by hand, continue."""
    project = born(tag)
    write(project)
    before = tree(project, without=())
    assert errors(upgrade(project, f"TO={NOW}"))
    new = fresh(NOW, **releases.ANSWERS)
    shutil.copy(new / "src/probe/train.py", project / "src/probe/train.py")
    for path in project.glob("src/probe/*.rej"):
        path.unlink()
    succeeds(upgrade(project))
    assert (project / "src/probe/record.py").read_text().endswith('MINE = "machinery"\n')
    succeeds(upgrade(project, verb="upgrade-abort"))
    assert tree(project, without=()) == before
