"""Upgrades: from every release to now, by every way, with every edit kept or named."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import releases
from conftest import CHOICES, HOSTILE, REAL_STACK, ROOT, make
from releases import (
    ANSWERS,
    NEXT,
    NOW,
    commit,
    conflicting,
    create,
    edit,
    errors,
    git,
    released,
    succeeds,
    tree,
    upgrade,
)

import template_logic as logic
from tools import demo

pytestmark = pytest.mark.upgrades
MANAGERS = CHOICES["dependency_manager"]
RELEASED = released()
LOCKS = re.compile(r"requirements/.*\.txt|uv\.lock|poetry\.lock")


@pytest.fixture(scope="session")
def at(template, tmp_path_factory):
    """A folder with the template of a version, for cookiecutter: it takes a folder as it is."""

    def of(tag):
        folder = tmp_path_factory.getbasetemp() / f"template-{tag}"
        if not folder.exists():
            git(template, "clone", "--quiet", "--branch", tag, str(template), str(folder))
        return folder

    return of


def cookiecutter(template, output, *options):
    """cookiecutter's command line."""
    command = [sys.executable, "-P", "-m", "cookiecutter", str(template), *options]
    command += ["--output-dir", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_release_has_its_section_and_says_what_to_do_by_hand(template):
    """Newest first; a version that dropped or renamed a file or a question has a migration note."""
    assert RELEASED, "no commit is a release: the history is missing"
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = {s.split()[0]: s for s in re.split(r"(?m)^## ", text)[1:]}
    assert [f"v{v}" for v in sections if f"v{v}" in RELEASED] == RELEASED[::-1]
    version = json.loads((ROOT / "data" / "template.json").read_text())["version"]
    assert next(iter(sections)) == version.removesuffix(".dev0")
    for before, after in zip(RELEASED, [*RELEASED[1:], NOW], strict=False):
        name = after[1:] if after != NOW else version.removesuffix(".dev0")
        gone = lost(template, before, after)
        section = sections[name]
        note = section.partition("### By hand")[2]
        assert not gone or all(each in note for each in gone), (name, gone)


def lost(template, before, after):
    """Files and questions that the newer of two versions no longer has."""
    listed = [
        set(
            git(
                template, "ls-tree", "-r", "--name-only", tag, "{{cookiecutter.project_slug}}"
            ).split("\n")
        )
        for tag in (before, after)
    ]
    questions = [
        set(json.loads(git(template, "show", f"{tag}:cookiecutter.json")))
        for tag in (before, after)
    ]
    files = {name.removeprefix("{{cookiecutter.project_slug}}/") for name in listed[0] - listed[1]}
    return files | {name for name in questions[0] - questions[1] if not name.startswith("_")}


@pytest.mark.parametrize("manager", MANAGERS)
@pytest.mark.parametrize("tag", RELEASED)
def test_cruft_makes_of_every_release_what_is_fresh(template, born, fresh, tag, manager):
    """`cruft update` alone, as an old project has no other verb; locks are the project's own."""
    project = born(tag, dependency_manager=manager)
    command = [*releases.CRUFT, "update", "--skip-apply-ask", "--checkout", NOW]
    succeeds(subprocess.run(command, cwd=project, capture_output=True, text=True))
    wanted = tree(fresh(NOW, **ANSWERS, dependency_manager=manager))
    found = tree(project)
    assert {k: v for k, v in found.items() if not LOCKS.fullmatch(k)} == {
        k: v for k, v in wanted.items() if not LOCKS.fullmatch(k)
    }
    assert json.loads((project / ".cruft.json").read_text())["commit"] == git(
        template, "rev-parse", NOW
    )


@pytest.mark.parametrize("manager", MANAGERS)
@pytest.mark.parametrize("tag", [*RELEASED, NOW])
def test_a_replay_makes_of_every_release_what_is_fresh(at, born, fresh, tag, manager, tmp_path):
    """By the project's own `.template.json`, or for projects without one by cookiecutter's file."""
    answers = born(tag, dependency_manager=manager) / ".template.json"
    if not answers.exists():
        given = [f"{k}={v}" for k, v in {**ANSWERS, "dependency_manager": manager}.items()]
        cookiecutter(at(tag), tmp_path / "then", "--no-input", *given)
        answers = Path(os.environ["HOME"], "replay", f"template-{tag}.json")
    after = NEXT if tag == NOW else NOW
    cookiecutter(at(after), tmp_path / "out", "--replay-file", str(answers))
    wanted = tree(fresh(after, **ANSWERS, dependency_manager=manager))
    assert tree(tmp_path / "out" / "probe") == wanted


@pytest.mark.parametrize("manager", MANAGERS)
@pytest.mark.parametrize("tag", [tag for tag in RELEASED if tag != "v0.1.0"])
def test_make_upgrade_makes_of_every_release_what_is_fresh(born, fresh, tag, manager):
    """By the release's own verb; 0.1.0 has only `cruft update`."""
    project = born(tag, dependency_manager=manager)
    succeeds(upgrade(project, f"TO={NOW}"))
    assert tree(project) == tree(fresh(NOW, **ANSWERS, dependency_manager=manager))


@pytest.mark.parametrize("manager", MANAGERS)
def test_make_upgrade_makes_what_is_fresh(born, fresh, manager):
    """Renamed, removed, added and changed files, rendered by functions that the old one lacks."""
    project = born(NOW, dependency_manager=manager)
    said = succeeds(upgrade(project))
    assert f"template {NOW[1:]} -> {NEXT[1:]}" in said
    assert "Everything that can change did." in said
    assert "Everything as it is now." not in said  # that section is older than the project
    assert tree(project) == tree(fresh(NEXT, **ANSWERS, dependency_manager=manager))
    assert (project / "docs" / "new.md").read_text() == "# New\n"
    assert not (project / ".editorconfig").exists()


def make_edits(project, manager):
    """What users do to a project; returns what must still be there after an upgrade."""
    package = project / "src" / "probe"
    edit(package / "model.py", r"\Z", '\n\nMINE = "model"\n')
    edit(project / "docs" / "reproducibility.md", r"\Z", "\nOurs.\n")
    (project / "configs" / "mine.yaml").write_text("seed: 7\n")
    edit(project / "README.md", r"^## Setup$", "Our team's own words.\n\n## Setup")
    edit(project / "pyproject.toml", r"(?<=^dependencies = \[\n)", '    "einops==0.8.1",\n')
    git(project, "mv", "notebooks/explore_run.ipynb", "notebooks/ours.ipynb")
    edit(project / "Makefile", r"\Z", "\nours: ## our own verb\n\techo ours\n")
    git(project, "rm", "--quiet", "docs/environments.md")
    lock = next(iter(sorted(p for p in tree(project) if LOCKS.fullmatch(p))), None)
    if lock:
        edit(project / lock, r"\Z", "# locked by us\n")
    commit(project, "ours")
    kept = {
        "src/probe/model.py": 'MINE = "model"',
        "configs/mine.yaml": "seed: 7",
        "README.md": "Our team's own words.",
        "pyproject.toml": "einops==0.8.1",
        "notebooks/ours.ipynb": "Look at runs",
        "Makefile": "ours: ## our own verb",
    }
    return kept | ({lock: "# locked by us"} if lock else {})


def holds_edits(project, kept):
    for name, text in kept.items():
        content = (project / name).read_text(encoding="utf-8")
        assert text in content, name
        assert "<<<<<<<" not in content
    for name in ("notebooks/explore_run.ipynb", "docs/environments.md"):
        assert not (project / name).exists()
    assert not list(project.rglob("*.rej"))


def holds_the_rest(project, old, new):
    """Whatever was not edited is as the new version makes it."""
    ours, before, after = tree(project), tree(old), tree(new)
    touched = {"src/probe/model.py", "README.md", "pyproject.toml", "Makefile"}
    touched |= {"notebooks/explore_run.ipynb", "docs/environments.md", "docs/reproducibility.md"}
    for name in (before.keys() | after.keys()) - touched:
        if not LOCKS.fullmatch(name):
            assert ours.get(name) == after.get(name), name
    for name in ("Makefile", "src/probe/model.py", "README.md"):
        own = [
            line for line in before[name][1].splitlines() if line not in after[name][1].splitlines()
        ]
        assert not set(own) & set(ours[name][1].splitlines()), name


@pytest.mark.parametrize("manager", MANAGERS)
@pytest.mark.parametrize(
    ("tag", "after"), [*((t, NOW) for t in RELEASED if t != "v0.1.0"), (NOW, NEXT)]
)
def test_edits_are_kept(born, fresh, tag, after, manager):
    """By `make upgrade`: all edits are there, and all that the template changed."""
    project = born(tag, dependency_manager=manager)
    kept = make_edits(project, manager)
    succeeds(upgrade(project, f"TO={after}"))
    holds_edits(project, kept)
    answers = {**ANSWERS, "dependency_manager": manager}
    holds_the_rest(project, fresh(tag, **answers), fresh(after, **answers))


@pytest.mark.parametrize("tag", [tag for tag in RELEASED if tag != "v0.1.0"])
def test_an_upgrade_from_a_release_can_be_taken_back(born, tag):
    """It was begun by the old version's commands, and is taken back by the new one's."""
    project = born(tag)
    make_edits(project, "pip")
    before = tree(project, without=())
    succeeds(upgrade(project, f"TO={NOW}"))
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


@pytest.mark.parametrize("tag", RELEASED)
@pytest.mark.parametrize("manager", MANAGERS)
def test_cruft_alone_keeps_edits_too(born, fresh, tag, manager):
    """From every release to now."""
    project = born(tag, dependency_manager=manager)
    kept = make_edits(project, manager)
    command = [*releases.CRUFT, "update", "--skip-apply-ask", "--checkout", NOW]
    succeeds(subprocess.run(command, cwd=project, capture_output=True, text=True))
    holds_edits(project, kept)
    answers = {**ANSWERS, "dependency_manager": manager}
    holds_the_rest(project, fresh(tag, **answers), fresh(NOW, **answers))


@pytest.mark.parametrize("manager", MANAGERS)
def test_a_replay_on_a_branch_keeps_edits(at, born, fresh, manager):
    """The commands of `docs/upgrading.md`: the template's state on a branch, then a merge."""
    project = born(NOW, dependency_manager=manager)
    (project / ".cruft.json").unlink()
    git(project, "commit", "--all", "--amend", "--quiet", "--message", "as from cookiecutter")
    kept = make_edits(project, manager)
    text = (project / "docs" / "upgrading.md").read_text()
    (script,) = [
        block for block in re.findall(r"```bash\n(.*?)```", text, re.S) if "--replay" in block
    ]
    assert "gh:org/repro-ml-template" in script
    (project / ".git" / "info" / "exclude").write_text("/secret\n")
    (project / "secret").write_text("ours")
    script = script.replace("gh:org/repro-ml-template", str(at(NEXT)))
    script = script.replace("cookiecutter ", f"{sys.executable} -P -m cookiecutter ")
    done = subprocess.run(["bash", "-e"], cwd=project, input=script, capture_output=True, text=True)
    succeeds(done)
    assert (project / "secret").read_text() == "ours"
    (project / "secret").unlink()
    kept["notebooks/ours.ipynb"] = "Newly loads"  # a merge follows renames
    holds_edits(project, kept)
    answers = {**ANSWERS, "dependency_manager": manager}
    holds_the_rest(project, fresh(NOW, **answers), fresh(NEXT, **answers))


def test_an_edit_before_the_first_commit_is_kept(fresh, cruft_environment, tmp_path):
    """There the repository has never seen the template's own file, which a merge starts from."""
    project = shutil.copytree(fresh(NOW, **ANSWERS), tmp_path / "probe")
    (project / ".envs").mkdir()
    (project / ".envs" / "tool-upgrade").symlink_to(cruft_environment)
    edit(project / "src/probe/model.py", r"\Z", '\n\nMINE = "model"\n')
    edit(project / "README.md", r"^## What is where$", "## What is where, by us")
    commit(project)
    done = upgrade(project)
    assert 'MINE = "model"' in (project / "src/probe/model.py").read_text()
    assert '"""Newer: ' in (project / "src/probe/model.py").read_text()
    assert ["README.md has a conflict" in line for line in errors(done)] == [True]


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


@pytest.fixture
def pins_moved(other_template):
    """A version of the template that moves one pin."""
    edit(other_template / "data" / "packages.json", r'"tqdm": "[^"]+"', '"tqdm": "4.70.0"')
    releases.release(other_template, "v99.1.0", "An older tqdm.")
    return other_template


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
    """And puts the project back."""
    project = own_pin(born(NOW, name="team-1"), pins_moved)
    before = tree(project, without=())
    command = [sys.executable, str(ROOT / "tools" / "upgrade_projects.py"), "--no-check"]
    command += ["--python", sys.executable, str(project)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(r"^team-1 +pyproject.toml has a conflict", done.stdout, re.MULTILINE)
    assert tree(project, without=()) == before
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


def test_a_conflict_that_was_mended_goes_on(born, fresh):
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
    assert any("src/probe/model.py" in line for line in lines)
    assert any("docs/new.md" in line for line in lines), lines
    succeeds(upgrade(project, verb="upgrade-abort"))
    assert tree(project, without=()) == before


@pytest.mark.parametrize("manager", MANAGERS[1:])
def test_another_manager_is_an_upgrade(born, fresh, manager):
    """From pip to each other one, and no file of pip is left."""
    project = born(NOW)
    done = upgrade(project, f"DEPENDENCY_MANAGER={manager}")
    assert f"dependency_manager: {manager}" in done.stdout
    if logic.manager(manager)["shipped_locks"]:
        succeeds(done)
    else:
        # The project had a lock, so it has to have one; here is no tool that could make it.
        assert "not found: install it" in errors(done)[0]
        assert "make lock fails after the upgrade" in errors(done)[1]
    assert tree(project) == tree(fresh(NEXT, **ANSWERS, dependency_manager=manager))


def test_another_stack_and_hostile_words_without_a_new_version(born, fresh):
    """Answers can change while the version stays."""
    answers = {"stack": "torch-2.14.1-cpu", "description": HOSTILE["description"].replace("$", "S")}
    project = born(NOW)
    given = [f"{name.upper()}={value}" for name, value in answers.items() if "\n" not in value]
    succeeds(upgrade(project, f"TO={NOW}", *given, env={"DESCRIPTION": "not this"}))
    wanted = {**ANSWERS, "stack": answers["stack"]}
    assert tree(project) == tree(fresh(NOW, **wanted))


def test_an_answer_that_is_not_on_the_menu_is_refused(born):
    """Before anything changes, with what there is."""
    project = born(NOW)
    (line,) = errors(upgrade(project, "STACK=torch-1.0-cu80"))
    assert "has no stack 'torch-1.0-cu80'; choose another" in line
    (line,) = errors(upgrade(project, "PROJECT_SLUG=other"))
    assert "project_slug names folders" in line
    (line,) = errors(upgrade(project, "STACK=torch-2.7.1-cpu", "PYTHON_VERSION=3.14"))
    assert "has no wheels for Python 3.14" in line
    assert git(project, "status", "--porcelain") == ""


@pytest.fixture
def other_template(template, tmp_path):
    """A copy of the template's repository that a test may add a version to."""
    return shutil.copytree(template, tmp_path / "other")


def linked(project, template):
    """Point a project to another repository of the template."""
    path = project / ".cruft.json"
    path.write_text(re.sub(r'"template": "[^"]*"', f'"template": "{template}"', path.read_text()))
    commit(project, "other template")
    return project


def test_a_mirror_without_tags_has_the_releases(born, template, tmp_path):
    """The commit of a release says so: checked, linked and upgraded by its version all the same."""
    mirror = tmp_path / "mirror"
    git(template, "clone", "--quiet", "--no-tags", str(template), str(mirror))
    newest = RELEASED[-1]
    git(mirror, "reset", "--quiet", "--hard", git(template, "rev-parse", newest))
    project = linked(born(RELEASED[0]), mirror)
    for name in ("upgrade.py", "template.py", "merge.py"):  # of a version that has the verb
        source = ROOT / "{{cookiecutter.project_slug}}" / "environment" / name
        shutil.copy(source, project / "environment" / name)
    command = [sys.executable, "environment/upgrade.py", "--check"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert f"template {newest[1:]} is there" in done.stdout, done.stderr
    project = linked(born(newest, name="newer"), mirror)
    (project / ".cruft.json").unlink()
    commit(project, "not linked")
    succeeds(upgrade(project, f"TEMPLATE={template}", verb="link"))
    git(mirror, "reset", "--quiet", "--hard", git(template, "rev-parse", NEXT))
    git(mirror, "commit", "--quiet", "--allow-empty", "--message", "Release 99.0.0")
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


def test_a_retired_stack_is_still_upgraded(born, other_template):
    """A new project is refused it; one that has it goes on."""
    path = other_template / "data" / "stacks.json"
    data = json.loads(path.read_text())
    row = next(r for r in data["releases"] if r["torch"] == logic.stack(REAL_STACK)["torch"])
    row["status"] = "retired"
    path.write_text(json.dumps(data))
    releases.release(other_template, "v99.1.0", "A stack is retired.")
    project = linked(born(NOW), other_template)
    succeeds(upgrade(project))
    assert json.loads((project / ".template.json").read_text())["template"]["version"] == "99.1.0"


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


@pytest.mark.parametrize("moment", [0.3, 1.0, 1.7, 2.4, "state", "merged"])
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT", "SIGTERM"])
def test_an_upgrade_that_is_stopped_can_be_taken_back(born, name, moment):
    """At any moment: the tree is as it was, or `make upgrade-abort` makes it so."""
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
        os.killpg(running.pid, getattr(signal, name))
    _, told = running.communicate(timeout=60)
    assert "Traceback" not in told
    if name != "SIGKILL" and not state.exists():
        assert tree(project, without=()) == before
    if state.exists():
        again = upgrade(project)
        assert any("cut short" in line or "conflict" in line for line in errors(again))
        succeeds(upgrade(project, verb="upgrade-abort"))
    assert tree(project, without=()) == before
    assert git(project, "status", "--porcelain") == ""


def test_ten_projects_in_one_go(template, born, tmp_path):
    """One script, a branch each; a conflict in one of them stops none of the others."""
    projects = [born(NOW, name=f"team-{n}") for n in range(10)]
    edit(projects[3] / "src/probe/model.py", r'\A"""The', '"""Our')
    commit(projects[3], "ours")
    (projects[5] / "unsaved.txt").write_text("work in progress")
    command = [sys.executable, str(ROOT / "tools" / "upgrade_projects.py"), "--no-check"]
    done = subprocess.run(
        [*command, "--python", sys.executable, *map(str, projects)], capture_output=True, text=True
    )
    assert done.returncode == 1, done.stdout + done.stderr
    told = dict(re.findall(r"^(team-\d) +(\S.*)$", done.stdout, re.MULTILINE))
    for number, project in enumerate(projects):
        branch = git(project, "branch", "--show-current")
        if number in (3, 5):
            assert branch == "main"
            assert ("conflict" if number == 3 else "changes") in told[project.name]
        else:
            assert branch == f"upgrade-{NEXT[1:]}"
            assert told[project.name] == f"upgraded to {NEXT[1:]} on {branch}"
            assert git(project, "log", "-1", "--format=%s") == f"Upgrade to template {NEXT[1:]}"
            assert (project / "docs" / "images.md").is_file()
        assert git(project, "status", "--porcelain") == ("?? unsaved.txt" if number == 5 else "")
    assert (projects[5] / "unsaved.txt").read_text() == "work in progress"


@pytest.fixture(scope="session", params=[("pip", RELEASED[-1]), ("uv", NOW)], ids=" ".join)
def team(request, template, cruft_environment, tmp_path_factory):
    """A project with a lock and a dependency of its own, a run in it, and edits; its version."""
    folder = tmp_path_factory.mktemp("team")
    manager, tag = request.param
    project = create(template, tag, folder, **ANSWERS, dependency_manager=manager)
    (project / ".envs").mkdir()
    (project / ".envs" / "tool-upgrade").symlink_to(cruft_environment)
    commit(project)
    torch = logic.stack(REAL_STACK)["torch"]
    with demo.local_torch(project, torch, locks=True):  # a mirror, to git an edit like any other
        kept = make_edits(project, manager)
        make(project, "lock", "setup")
        kept = {name: text for name, text in kept.items() if not LOCKS.fullmatch(name)}
        commit(project, "locked")
        make(project, "train", "CONFIG=configs/smoke.yaml")
        yield project, kept, tag[1:]


def test_a_newer_pin_is_locked_installed_and_checked(team, pins_moved):
    """All of `make upgrade`: the merge, `make lock`, `make setup`, the project's own tests.

    Afterwards `compare` names the upgrade as what came between two runs.
    """
    project, kept, version = team
    linked(project, pins_moved)
    said = succeeds(upgrade(project, check="CHECK=yes"))
    assert re.search("uv lock|uv pip compile", said)
    assert "passed" in said
    holds_edits(project, kept)
    locks = [path.read_text() for path in project.glob("uv.lock")]
    locks += [path.read_text() for path in project.glob("requirements/cpu.txt")]
    (lock,) = locks
    assert re.search(r'tqdm(==|"\nversion = ")4\.70\.0', lock)
    assert "einops" in lock
    commit(project, "upgraded")
    make(project, "train", "CONFIG=configs/smoke.yaml")
    runs = sorted((project / "outputs").iterdir(), key=lambda path: path.stat().st_mtime)
    command = [project / ".venv/bin/python", "-m", "probe", "compare", runs[0], runs[-1]]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr  # the same bits
    told = f"code: the project was upgraded between them: template {version}, then 99.1.0"
    assert told in done.stdout
    assert "packages.tqdm was '4.70.1', is '4.70.0'" in done.stdout


def test_an_edit_moves_with_a_file_that_the_template_renames(born):
    """git carries it over; the pristine new file must not take its place."""
    project = born(NOW)
    edit(project / "docs/containers.md", r"\Z", "\nOur own words.\n")
    commit(project, "ours")
    succeeds(upgrade(project))
    text = (project / "docs/images.md").read_text()
    assert "Our own words." in text
    assert "<!-- renamed -->" in text


def test_an_edited_file_that_the_template_drops_is_kept_and_named(born):
    """No conflict, and no surprise."""
    project = born(NOW)
    edit(project / ".editorconfig", r"\Z", "# ours\n")
    commit(project, "ours")
    said = succeeds(upgrade(project))
    assert "note: .editorconfig is no longer the template's; yours is kept" in said
    assert "# ours" in (project / ".editorconfig").read_text()


def test_what_git_does_not_have_survives_an_abort(born, other_template):
    """Ignored runs, although the new version ignores less, and files made while mending."""
    ignored = other_template / "{{cookiecutter.project_slug}}/.gitignore"
    edit(ignored, r"^/outputs/$", "/results/")
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


@pytest.mark.parametrize("name", ["README.md", "docs"])
def test_links_to_what_is_elsewhere_are_not_written_through(born, tmp_path, name):
    """Neither by the upgrade nor by its abort; and what is missing is told."""
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


def test_a_mode_of_the_users_own_is_kept(born):
    """The content is the new version's, the bit is not its business."""
    project = born(NOW)
    (project / "src/probe/model.py").chmod(0o755)
    commit(project, "ours")
    succeeds(upgrade(project))
    assert (project / "src/probe/model.py").stat().st_mode & 0o111
    assert '"""Newer: ' in (project / "src/probe/model.py").read_text()


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


def test_a_dollar_sign_in_an_answer_is_one(born):
    """make would take it for a variable of its own."""
    project = born(NOW)
    words = "costs $5 and $(HOME) `id` #1 'x'"
    succeeds(upgrade(project, f"DESCRIPTION={words}"))
    answers = json.loads((project / ".template.json").read_text())["cookiecutter"]
    assert answers["description"] == words


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
