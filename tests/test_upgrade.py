"""Upgrades: from every release to now, by every way, with every edit kept."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import releases
from conftest import CHOICES, HOSTILE, REAL_STACK, ROOT, make
from releases import (
    ANSWERS,
    LOCKS,
    NEXT,
    NOW,
    RELEASED,
    commit,
    create,
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

import template_logic as logic
from tools import demo

pytestmark = pytest.mark.upgrades
MANAGERS = CHOICES["dependency_manager"]
WITH_UPGRADE = [tag for tag in RELEASED if tag != "v0.1.0"]
"""0.1.0 has no such verb, only `cruft update`."""


def rows(tags):
    """Every manager for this version; of the last release pip and uv, of older ones pip.

    The others are among the slow tests: with each release, they would be five more for projects of
    which there are fewer.
    """
    usual = {(RELEASED[-1], "uv"), *((tag, "pip") for tag in tags)}
    return [
        pytest.param(
            tag, name, marks=[] if tag == NOW or (tag, name) in usual else pytest.mark.slow
        )
        for tag in tags
        for name in MANAGERS
    ]


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
    # Enter, for a question that cookiecutter's own file of an older version does not answer.
    done = subprocess.run(command, input="\n", capture_output=True, text=True, env=os.environ)
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
        # A list of files names their folder once.
        assert not gone or all(Path(each).name in note for each in gone), (name, gone)


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
    # An overlay's file lies in a project where one of the project itself does.
    inside = re.compile(r"^\{\{cookiecutter\.project_slug\}\}/(_overlays/[^/]+/[^/]+/)?")
    old, new = ({inside.sub("", name) for name in names} for names in listed)
    files = old - new
    return files | {name for name in questions[0] - questions[1] if not name.startswith("_")}


@pytest.mark.parametrize(("tag", "manager"), rows(RELEASED))
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


@pytest.mark.parametrize(("tag", "manager"), rows([*RELEASED, NOW]))
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


@pytest.mark.parametrize(("tag", "manager"), rows(WITH_UPGRADE))
def test_make_upgrade_makes_of_every_release_what_is_fresh(born, fresh, tag, manager):
    """By the release's own verb."""
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


def test_an_upgrade_that_a_hook_starts_leaves_the_hooks_repository_alone(born, fresh, tmp_path):
    """Its variables name another repository, index and work tree: the project's own are changed."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "kept.txt").write_text("kept\n")
    git(other, "init", "--quiet")
    commit(other)
    hook = {"GIT_DIR": str(other / ".git"), "GIT_WORK_TREE": str(other), "GIT_PREFIX": "sub/"}
    hook["GIT_INDEX_FILE"] = str(other / ".git" / "index")
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    project = born(NOW)
    checked = upgrade(project, verb="upgrade-check", env=hook)
    assert f"template {NEXT[1:]} is there" in checked.stdout, checked.stderr
    succeeds(upgrade(project, env=hook))
    assert tree(project) == tree(fresh(NEXT, **ANSWERS))
    succeeds(upgrade(project, verb="upgrade-abort", env=hook))
    assert tree(project) == tree(fresh(NOW, **ANSWERS))
    assert {path: path.read_bytes() for path in other.rglob("*") if path.is_file()} == before


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


@pytest.mark.parametrize(("tag", "manager"), rows([*WITH_UPGRADE, NOW]))
def test_edits_are_kept(born, fresh, tag, manager):
    """By `make upgrade`: all edits are there, and all that the template changed."""
    after = NEXT if tag == NOW else NOW
    project = born(tag, dependency_manager=manager)
    kept = make_edits(project, manager)
    merges(upgrade(project, f"TO={after}"))
    holds_edits(project, kept)
    answers = {**ANSWERS, "dependency_manager": manager}
    holds_the_rest(project, fresh(tag, **answers), fresh(after, **answers))


@pytest.mark.parametrize(("tag", "manager"), rows(RELEASED))
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


def test_the_code_of_an_upgrade_is_the_new_versions(born, other_template):
    """What the new version mended is mended for the upgrade to it; a named one brings its own."""
    code = other_template / "upgrade" / "command.py"
    sentence = r"look at git diff HEAD and commit it"
    edit(code, sentence, "mended in 99.1.0")
    releases.release(other_template, "v99.1.0", "Mended.")
    edit(code, "mended in 99.1.0", "mended in 99.2.0")
    releases.release(other_template, "v99.2.0", "Mended again.")
    said = succeeds(upgrade(linked(born(NOW, name="named"), other_template), "TO=v99.1.0"))
    assert "upgraded to template 99.1.0: mended in 99.1.0" in said
    said = succeeds(upgrade(linked(born(NOW), other_template)))
    assert "upgraded to template 99.2.0: mended in 99.2.0" in said


def test_an_edit_before_the_first_commit_is_kept(fresh, cruft_environment, tmp_path):
    """There the repository has never seen the template's own file, which a merge starts from."""
    project = shutil.copytree(fresh(NOW, **ANSWERS), tmp_path / "probe")
    releases.lend(cruft_environment, project)
    edit(project / "src/probe/model.py", r"\Z", '\n\nMINE = "model"\n')
    edit(project / "README.md", r"^## What is whose$", "## What is whose, by us")
    commit(project)
    done = upgrade(project)
    assert 'MINE = "model"' in (project / "src/probe/model.py").read_text()
    assert '"""New models' in (project / "src/probe/model.py").read_text()
    assert ["README.md has a conflict" in line for line in errors(done)] == [True]


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


def test_a_retired_stack_is_still_upgraded(born, other_template):
    """New projects cannot choose it; projects that have it are still upgraded."""
    path = other_template / "data" / "stacks.json"
    data = json.loads(path.read_text())
    row = next(r for r in data["releases"] if r["torch"] == logic.stack(REAL_STACK)["torch"])
    row["status"] = "retired"
    path.write_text(json.dumps(data))
    releases.release(other_template, "v99.1.0", "A stack is retired.")
    project = linked(born(NOW), other_template)
    succeeds(upgrade(project))
    assert json.loads((project / ".template.json").read_text())["template"]["version"] == "99.1.0"


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


def test_a_mode_of_the_users_own_is_kept(born):
    """The content comes from the new version; the mode stays the user's."""
    project = born(NOW)
    (project / "src/probe/model.py").chmod(0o755)
    commit(project, "ours")
    succeeds(upgrade(project))
    assert (project / "src/probe/model.py").stat().st_mode & 0o111
    assert '"""New models' in (project / "src/probe/model.py").read_text()


def test_a_dollar_sign_in_an_answer_is_one(born):
    """make would take it for a variable of its own."""
    project = born(NOW)
    words = "costs $5 and $(HOME) `id` #1 'x'"
    succeeds(upgrade(project, f"DESCRIPTION={words}"))
    answers = json.loads((project / ".template.json").read_text())["cookiecutter"]
    assert answers["description"] == words


@pytest.mark.parametrize("number", [6, pytest.param(10, marks=pytest.mark.slow)])
def test_many_projects_in_one_go(template, born, number):
    """One script, a branch each; a conflict in one of them stops none of the others."""
    projects = [born(NOW, name=f"team-{n}") for n in range(number)]
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


# With its lock made again, pip's project of the last release takes six minutes.
WHOLE = [pytest.param(("pip", RELEASED[-1]), marks=pytest.mark.slow), ("uv", NOW)]


@pytest.fixture(scope="session", params=WHOLE, ids=" ".join)
def team(request, template, cruft_environment, tmp_path_factory):
    """A project with a lock and a dependency of its own, a run in it, and edits; its version."""
    folder = tmp_path_factory.mktemp("team")
    manager, tag = request.param
    project = create(template, tag, folder, **ANSWERS, dependency_manager=manager)
    releases.lend(cruft_environment, project)
    commit(project)
    torch = logic.stack(REAL_STACK)["torch"]
    with demo.local_torch(project, torch, locks=True):  # a mirror: for git, an edit like any other
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
    some = {"PYTEST_ADDOPTS": "-k config"}  # it is what is fresh, whose tests are all run elsewhere
    said = succeeds(upgrade(project, check="CHECK=yes", env=some))
    assert re.search("uv lock|uv pip compile", said)
    assert " passed" in said
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
