"""Answers that cannot become a project: one line each, nothing written, nothing touched."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import template_logic as logic


def generate(folder: Path, *options: str, **answers: str) -> subprocess.CompletedProcess[str]:
    """Run cookiecutter's command line in a folder of its own."""
    command = [sys.executable, "-m", "cookiecutter", str(ROOT), "--no-input", *options]
    command += ["--output-dir", str(folder), *(f"{k}={v}" for k, v in answers.items())]
    folder.mkdir(exist_ok=True)
    return subprocess.run(command, capture_output=True, text=True, env=os.environ)


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    lines = f"{done.stdout}\n{done.stderr}".splitlines()
    return [line for line in lines if line.startswith("error: ")]


@pytest.mark.parametrize(
    ("slug", "reason"),
    [
        ("", "cannot be a package name"),
        ("..", "cannot be a package name"),
        ("../escape", "cannot be a package name"),
        ("a/b", "cannot be a package name"),
        ("Upper", "cannot be a package name"),
        ("9lives", "cannot be a package name"),
        ("ends-", "cannot be a package name"),
        ("x" * 41, "at most 40 characters"),
        ("x" * 65, "at most 40 characters"),
        ("conftest", "is a module of the project itself"),
        ("lockfile", "is a module of the project itself"),
        ("test-data", "is a module of the project itself"),
        ('"; import os; "', "cannot be a package name"),
        ("class", "is a Python keyword"),
        ("true", "is a Python keyword"),
        ("json", "is a module of Python's standard library"),
        ("torch", "is the name of a dependency"),
        ("scikit-learn", "is the name of a dependency"),
        ("sklearn", "is a module that a dependency brings"),
        ("requests", "is the name of a dependency"),
        ("functorch", "is a module that a dependency brings"),
        ("dateutil", "is a module that a dependency brings"),
        ("train", "is a file or folder of the project itself"),
        ("con", "is a reserved file name on Windows"),
    ],
)
def test_a_slug_that_cannot_be_a_package_is_refused(tmp_path, slug, reason):
    """The line names the slug and what is wrong with it."""
    done = generate(tmp_path / "out", project_slug=slug)
    assert done.returncode != 0
    assert len(errors(done)) == 1
    assert reason in errors(done)[0]
    assert slug.split('"')[0] in errors(done)[0]
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_a_python_that_the_stack_lacks_is_refused_with_what_fits(tmp_path):
    """Both answers are named, and the Pythons that the stack has."""
    done = generate(tmp_path / "out", stack="torch-2.7.1-cu118", python_version="3.14")
    assert done.returncode != 0
    assert len(errors(done)) == 1
    for part in ("torch-2.7.1-cu118", "3.14", "3.11, 3.12, 3.13"):
        assert part in errors(done)[0]
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("question", ["stack", "dependency_manager", "python_version", "license"])
def test_an_unknown_choice_is_refused_with_the_choices(tmp_path, question):
    """Cookiecutter itself refuses it, before any hook: the last line names given and allowed."""
    done = generate(tmp_path / "out", **{question: "no-such-thing"})
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert f"no-such-thing provided for choice variable {question}, but the choices are" in last
    assert list((tmp_path / "out").iterdir()) == []


def test_a_bad_slug_is_refused_as_soon_as_it_is_typed(tmp_path):
    """Nobody answers seven questions more and loses them all."""
    command = [sys.executable, "-m", "cookiecutter", str(ROOT), "--output-dir", str(tmp_path)]
    typed = "My project\nclass\n"  # and nothing behind it: another question would find the end
    done = subprocess.run(command, input=typed, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stdout.count("[2/9]") == 1
    assert "[3/9]" not in done.stdout
    assert 'error: project_slug "class" is a Python keyword' in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "stack"),
    [("", "torch-2.14.1-cu130"), ("4", "torch-2.14.1-cpu"), ("5\n1", "torch-2.15.0-cu132")],
)
def test_no_menu_is_longer_than_a_terminal(tmp_path, typed, stack):
    """24 lines: the recommended release first, the others behind one row; Enter is the default."""
    command = [sys.executable, "-m", "cookiecutter", str(ROOT), "--output-dir", str(tmp_path)]
    lines = "\n" * 6 + f"{typed}\n" + "\n" * 2
    environ = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(command, input=lines, capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    saved = json.loads((tmp_path / "reproducible-ml" / ".template.json").read_text())
    assert saved["cookiecutter"]["stack"] == stack
    menus = re.split(r"(?=  \[\d/9\] )|(?<=: )(?=  \[7/9\])", done.stdout.partition("Next:")[0])
    assert max(menu.count("\n") for menu in menus) + 1 <= 24
    assert done.stdout.count("[7/9]") == 1 + typed.startswith("5")


def test_an_answers_file_from_before_a_question_gets_its_default(tmp_path):
    """Projects of 0.2.0 never heard of starters; they are the first one."""
    assert generate(tmp_path / "good", project_slug="good").returncode == 0
    saved = json.loads((tmp_path / "good" / "good" / ".template.json").read_text())
    assert saved["cookiecutter"].pop("starter") == "image_classification"
    replay = tmp_path / "replay.json"
    replay.write_text(json.dumps(saved))
    command = [sys.executable, "-m", "cookiecutter", str(ROOT), "--replay-file", str(replay)]
    done = subprocess.run([*command, "-o", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in (".template.json", "README.md", "src/good/model.py"):
        made, again = (tmp_path / folder / "good" / name for folder in ("good", "out"))
        assert made.read_bytes() == again.read_bytes(), name


def test_a_starter_that_a_stack_lacks_is_refused_in_one_line(monkeypatch):
    """By name, with those that fit."""
    plain = logic._data
    rows = {"a": {"frameworks": ["torch"]}, "b": {"frameworks": ["other"]}}
    monkeypatch.setattr(
        logic, "_data", lambda name: {"starters": rows} if name == "starters" else plain(name)
    )
    answers = {"stack": "torch-2.14.1-cpu", "starter": "b"}
    assert list(logic._starter_problems(answers)) == [
        "starter b is not written for stack torch-2.14.1-cpu; choose one of a"
    ]
    assert list(logic._starter_problems({**answers, "starter": "a"})) == []


def test_a_replayed_refusal_is_refused_too(tmp_path):
    """A replay derives nothing, so the hook refuses before a file is written."""
    replay = tmp_path / "replay.json"
    assert generate(tmp_path / "good", project_slug="good").returncode == 0
    saved = Path(os.environ["HOME"], "replay", f"{ROOT.name}.json").read_text()
    replay.write_text(saved.replace('"good"', '"class"'))
    command = [sys.executable, "-m", "cookiecutter", str(ROOT), "--replay-file", str(replay)]
    command += ["--output-dir", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert len(errors(done)) == 1
    assert not (tmp_path / "out" / "class").exists()


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('"pip"', '"conda2"', "dependency_manager"),
        ('"MIT"', '"GPL"', "license"),
        ('"3.12"', '"3.10"', "python_version"),
        ('"The authors"', '["a", "b"]', "author_name must be text"),
        ('"cuda"', '"cpu"', "__accelerator"),
    ],
)
def test_an_edited_replay_file_is_refused(tmp_path, old, new, named):
    """An answer that no menu offers is refused by name, whatever brought it."""
    assert generate(tmp_path / "good", project_slug="good").returncode == 0
    saved = Path(os.environ["HOME"], "replay", f"{ROOT.name}.json")
    answers = json.loads(saved.read_text())["cookiecutter"]
    assert json.loads(old) in answers.values()
    changed = {k: json.loads(new) if v == json.loads(old) else v for k, v in answers.items()}
    replay = tmp_path / "replay.json"
    replay.write_text(json.dumps({"cookiecutter": changed}))
    command = [sys.executable, "-m", "cookiecutter", str(ROOT), "--replay-file", str(replay)]
    done = subprocess.run([*command, "-o", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode != 0
    assert len(errors(done)) == 1
    assert named in errors(done)[0]
    assert not (tmp_path / "out" / "good").exists()


def test_a_replayed_package_cannot_leave_the_project(tmp_path):
    """Derived answers in a replay file are checked against the others."""
    assert generate(tmp_path / "good", project_slug="good").returncode == 0
    saved = Path(os.environ["HOME"], "replay", f"{ROOT.name}.json")
    answers = json.loads(saved.read_text())["cookiecutter"] | {"__package": "../../../pwn"}
    replay = tmp_path / "replay.json"
    replay.write_text(json.dumps({"cookiecutter": answers}))
    command = [sys.executable, "-m", "cookiecutter", str(ROOT), "--replay-file", str(replay)]
    done = subprocess.run([*command, "-o", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode != 0
    assert "__package" in errors(done)[0]
    assert not list(tmp_path.rglob("pwn"))


def test_all_problems_are_named_at_once(tmp_path):
    """A user mends everything in one go."""
    done = generate(
        tmp_path / "out", project_slug="class", stack="torch-2.7.1-cpu", python_version="3.14"
    )
    assert len(errors(done)) == 2


def test_an_existing_directory_is_untouched_by_a_refusal(tmp_path):
    """Also with --overwrite-if-exists: not a byte, not a file."""
    mine = tmp_path / "out" / "class" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    for options in ([], ["--overwrite-if-exists"]):
        done = generate(tmp_path / "out", *options, project_slug="class")
        assert done.returncode != 0
        assert [path.name for path in mine.parent.iterdir()] == ["mine.txt"]
        assert mine.read_text() == "precious"


def test_overwriting_a_directory_keeps_the_users_files(tmp_path):
    """What the template does not bring stays: empty files and folders of the user's too."""
    mine = tmp_path / "out" / "probe" / "src" / "probe" / "mine.py"
    mine.parent.mkdir(parents=True)
    mine.touch()
    done = generate(tmp_path / "out", "--overwrite-if-exists", project_slug="probe")
    assert done.returncode == 0, done.stderr
    assert mine.exists()
    assert (mine.parent / "train.py").exists()


def test_a_line_break_cannot_forge_a_second_error(tmp_path):
    """Whatever is typed, a problem is one line."""
    done = generate(tmp_path / "out", project_slug="a\nerror: b")
    assert len(errors(done)) == 1
