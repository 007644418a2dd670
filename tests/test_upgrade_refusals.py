"""What an upgrade cannot start from is one line; links to the template, and its releases."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import releases
from conftest import CHOICES, REAL_STACK, ROOT
from releases import (
    NEXT,
    NOW,
    commit,
    edit,
    errors,
    git,
    linked,
    succeeds,
    upgrade,
)

pytestmark = pytest.mark.upgrades
MANAGERS = CHOICES["dependency_manager"]


def test_an_answer_that_is_not_on_the_menu_is_refused(born):
    """Before anything changes, with what there is."""
    project = born(NOW)
    (line,) = errors(upgrade(project, "STACK=torch-1.0-cu80"))
    assert "has no stack 'torch-1.0-cu80'; choose another" in line
    (line,) = errors(upgrade(project, "PROJECT_SLUG=other"))
    assert "project_slug names folders" in line
    (line,) = errors(upgrade(project, "STACK=torch-2.7.1-cpu", "PYTHON_VERSION=3.14"))
    assert "has no wheels for Python 3.14" in line
    (line,) = errors(upgrade(project, "STACK=tensorflow-2.21.0-cpu"))
    assert "this project is written for torch, and tensorflow-2.21.0-cpu is another" in line
    assert git(project, "status", "--porcelain") == ""


def test_a_mirror_without_tags_has_the_releases(born, template, tmp_path):
    """The commit of a release says so: checked, linked and upgraded by its version all the same."""
    mirror = tmp_path / "mirror"
    git(template, "clone", "--quiet", "--no-tags", str(template), str(mirror))
    for tag in (NOW, NEXT):
        git(mirror, "reset", "--quiet", "--hard", git(template, "rev-parse", tag))
        git(mirror, "commit", "--quiet", "--allow-empty", "--message", f"Release {tag[1:]}")
        git(mirror, "branch", "--quiet", f"of-{tag}")
    project = linked(born(NOW), mirror)
    done = upgrade(project, verb="upgrade-check")
    assert f"template {NEXT[1:]} is there" in done.stdout, done.stderr
    project = born(NOW, name="newer")
    (project / ".cruft.json").unlink()
    commit(project, "not linked")
    assert f"at {NOW[1:]}: " in succeeds(upgrade(project, f"TEMPLATE={mirror}", verb="link"))
    project = linked(born(NOW, name="newest"), mirror)
    succeeds(upgrade(project))
    assert json.loads((project / ".cruft.json").read_text())["commit"] == git(
        mirror, "rev-parse", "HEAD"
    )


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("2.1.1", "error: this is cookiecutter 2.1.1; the template needs 2.2"),
        ("1.7.3", "No module named 'needs_cookiecutter_2_2'"),
    ],
)
def test_a_cookiecutter_that_is_too_old_is_refused_in_one_line(tmp_path, version, told):
    """Really installed; its last line says it, and nothing is made."""
    python = tmp_path / "old" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "old"], check=True)
    install = [python, "-m", "pip", "install", "--quiet", f"cookiecutter=={version}"]
    subprocess.run([*install, "setuptools<81"], check=True, capture_output=True)
    (tmp_path / "out").mkdir()
    command = [python, "-P", "-m", "cookiecutter", str(ROOT), "--no-input"]
    command += ["--output-dir", str(tmp_path / "out"), "project_slug=probe"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert told in f"{done.stdout}{done.stderr}".strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_choice_that_is_gone_is_named(born, other_template):
    """Against the project's rules, but a fork may: one line, nothing changed."""
    path = other_template / "cookiecutter.json"
    data = json.loads(path.read_text())
    data["stack"].remove(REAL_STACK)
    path.write_text(json.dumps(data))
    releases.release(other_template, "v99.1.0", "A stack is gone.")
    project = linked(born(NOW), other_template)
    (line,) = errors(upgrade(project))
    assert f"template 99.1.0 has no stack '{REAL_STACK}'; choose another" in line
    assert git(project, "status", "--porcelain") == ""


def test_a_template_that_fails_leaves_the_tree(born, other_template):
    """Whatever a broken version does: one line, the tree as it was."""
    edit(other_template / "template_logic.py", r"def novelty\(\):", "def novelty(missing):")
    releases.release(other_template, "v99.1.0", "Broken.")
    project = linked(born(NOW), other_template)
    assert len(errors(upgrade(project))) == 1
    assert git(project, "status", "--porcelain") == ""


def test_what_is_not_ready_is_refused(born, tmp_path):
    """A tree with changes, no link, a damaged link, no template, no repository: a line each."""
    project = born(NOW)
    (project / "new.txt").write_text("x")
    assert errors(upgrade(project)) == ["error: the tree has changes; commit or stash them first"]
    (project / "new.txt").unlink()
    link = (project / ".cruft.json").read_text()
    for content, complaint in (
        ("{", ".cruft.json is not JSON"),
        ("[]", ".cruft.json is damaged"),
        (link.replace('"commit": "', '"commit": "0000'), "the template has no 0000"),
        (
            re.sub(r'"template": "[^"]*"', f'"template": "{tmp_path}/none"', link),
            "cannot be cloned",
        ),
        (None, "this project is not linked to its template: make link TEMPLATE=…"),
    ):
        (project / ".cruft.json").unlink(missing_ok=True)
        if content is not None:
            (project / ".cruft.json").write_text(content)
        commit(project, "link")
        (line,) = errors(upgrade(project))
        assert complaint in line
        (line,) = errors(upgrade(project, verb="upgrade-check"))
        assert complaint in line
    shutil.rmtree(project / ".git")
    assert "is not in git" in errors(upgrade(project))[0]


def test_upgrade_check_is_for_ci(born):
    """Zero when up to date, not zero when an update is there; nothing is written."""
    project = born(NOW)
    done = upgrade(project, verb="upgrade-check")
    assert done.returncode != 0
    assert (
        done.stdout == f"template {NEXT[1:]} is there, this project is of {NOW[1:]}: make upgrade\n"
    )
    done = subprocess.run([sys.executable, "environment/upgrade.py", "--check"], cwd=project)
    assert done.returncode == 1
    assert "up to date" in succeeds(upgrade(project, f"TO={NOW}", verb="upgrade-check"))
    assert git(project, "status", "--porcelain") == ""


def test_a_project_made_without_cruft_is_linked_by_one_command(template, fresh, born, tmp_path):
    """By the version in `.template.json`; then it upgrades like any other."""
    project = born(NOW)
    (project / ".cruft.json").unlink()
    edit(project / "README.md", r"^## Setup$", "Ours.\n\n## Setup")
    commit(project, "as from cookiecutter")
    (line,) = errors(upgrade(project, verb="link"))
    assert line == "error: name the template: make link TEMPLATE=https://…"
    (line,) = errors(upgrade(project, f"TEMPLATE={template}", f"TO={NEXT}", verb="link"))
    assert f"of {NOW[1:]}, {NEXT}" in line
    said = succeeds(upgrade(project, f"TEMPLATE={template}", verb="link"))
    assert re.search(r"(\d+) of (\d+) files are as it made them", said)
    assert "is linked already" in errors(upgrade(project, f"TEMPLATE={template}", verb="link"))[0]
    commit(project, "linked")
    succeeds(upgrade(project))
    assert "Ours." in (project / "README.md").read_text()
    assert (project / "docs" / "images.md").is_file()


@pytest.mark.parametrize("kind", ["ignored", "unlisted", "folder"])
def test_what_is_in_the_way_is_refused(born, kind):
    """A file at a path that the new version brings, which git could not give back."""
    project = born(NOW)
    path = project / "docs" / "new.md"
    if kind == "folder":
        path.mkdir()
        (path / "x").write_text("ours")
        commit(project, "ours")
    else:
        path.write_text("ours")
        if kind == "ignored":
            (project / ".git/info/exclude").write_text("/docs/new.md\n")
        else:
            git(project, "config", "status.showUntrackedFiles", "no")
    (line,) = errors(upgrade(project))
    assert "docs/new.md is in the way" in line or "the tree has changes" in line
    assert (path / "x" if kind == "folder" else path).read_text() == "ours"


def test_more_that_could_not_be_taken_back_is_refused(born, tmp_path):
    """A merge under way, files that git overlooks, a version without the verb, a foreign tree."""
    project = born(NOW)
    head = git(project, "rev-parse", "HEAD")
    (project / ".git" / "MERGE_HEAD").write_text(head)
    assert "in the middle of something (MERGE_HEAD)" in errors(upgrade(project))[0]
    (project / ".git" / "MERGE_HEAD").unlink()
    git(project, "update-index", "--skip-worktree", "train.py")
    assert "git is told to overlook train.py" in errors(upgrade(project))[0]
    git(project, "update-index", "--no-skip-worktree", "train.py")
    assert "has no make upgrade" in errors(upgrade(project, "TO=v0.1.0"))[0]
    outer = tmp_path / "outer"
    shutil.copytree(project, outer / "probe", symlinks=True)
    shutil.rmtree(outer / "probe" / ".git")
    (outer / ".gitignore").write_text("probe/\n")
    commit(outer, "outer")
    assert "commit the project" in errors(upgrade(outer / "probe"))[0]
