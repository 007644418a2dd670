"""Every answer gives a project that parses, is clean, and has what its answers ask for."""

import ast
import fnmatch
import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml
from conftest import CHOICES, HOSTILE, QUESTIONS, ROOT, THIS_PYTHON
from packaging.markers import Marker

import template_logic as logic

TEXT_FREE = {"project_slug": "probe"}
TENSORFLOW = "tensorflow-2.21.0-cpu"
LONG_SLUG = "a-very-long-project-slug-of-forty-letter"
MANAGERS_STACKS = [
    (manager, stack)
    for manager, stack in itertools.product(CHOICES["dependency_manager"], CHOICES["stack"])
    if manager in logic.stack(stack).get("managers", [manager])
]
ONE_EACH = [(name, answer) for name, answers in CHOICES.items() for answer in answers]
NOT_IN_FILES = {
    "Python is the project's",
    "lock fits the project",
    "installed packages equal the lock",
    "driver is new enough",
}
"""Items of the doctor that ask the machine, or a lock that this project may have to make first."""
ENVIRONMENT_FILES = {
    "pip": ["pyproject.toml"],
    "uv": ["pyproject.toml"],
    "poetry": ["pyproject.toml"],
    "conda": ["environment.cpu.yml", "pyproject.toml"],
    "pixi": ["pixi.toml", "pyproject.toml"],
}


def files(project: Path) -> dict[str, str]:
    """Every file of a project by its path; all of them are text."""
    paths = sorted(path for path in project.rglob("*") if path.is_file())
    return {p.relative_to(project).as_posix(): p.read_text(encoding="utf-8") for p in paths}


@cache  # most files are the same in every project
def parse(name: str, text: str) -> None:
    """Read a file by the grammar that its name promises."""
    if name.endswith(".toml"):
        tomllib.loads(text)
    elif name.endswith((".yaml", ".yml")):
        assert all(yaml.safe_load_all(text))
    elif name.endswith((".json", ".ipynb")):
        json.loads(text)
    elif name.endswith(".py"):
        compile(text, name, "exec")


def debris(name: str, text: str) -> list[str]:
    """What a hand-written file does not have."""
    found = []
    if re.search(r"\{%|%\}|\{\{ ?cookiecutter|\{#", text):
        found.append("template tags")
    if re.search(r"[ \t]+$", text, re.MULTILINE):
        found.append("trailing blanks")
    if not text.endswith("\n") or text.endswith("\n\n") or text.startswith("\n"):
        found.append("a blank first line, or not exactly one newline at the end")
    if re.search(r"\n{4}" if name.endswith(".py") else r"\n{3}", text):
        found.append("runs of blank lines")
    return found


@pytest.mark.parametrize(("manager", "stack"), MANAGERS_STACKS)
def test_every_manager_and_stack_parses_without_debris(bake, manager, stack):
    """All pairs: every file parses, no tag, blank or empty file is left over."""
    project = bake(dependency_manager=manager, stack=stack, **TEXT_FREE)
    content = files(project)
    for name, text in content.items():
        parse(name, text)
        assert debris(name, text) == [], name
    assert "_overlays" not in {path.name for path in project.iterdir()}
    assert set(ENVIRONMENT_FILES[manager]) <= set(content)
    row = logic.stack(stack)
    assert ("compose.gpu.yaml" in content) == (row["variant"] != "cpu")
    assert failing_items(project) == []


@pytest.mark.parametrize(("manager", "first"), [("pip", "make setup"), ("pixi", "make lock setup")])
def test_the_readmes_first_commands_are_those_that_work(bake, manager, first):
    """A project that comes without a lock makes one; `make setup` alone would be refused."""
    readme = (bake(dependency_manager=manager) / "README.md").read_text()
    commands = readme.partition("```bash\n")[2].partition("```")[0].splitlines()
    assert [line.partition("#")[0].strip() for line in commands] == [
        first,
        "make train",
        "make verify",
    ]


@pytest.mark.parametrize("starter", CHOICES["starter"])
def test_no_line_of_a_document_is_wider_than_100_columns(bake, starter):
    """Rows of tables are the exception: Markdown has no way to break them."""
    project = bake(starter=starter)
    documents = [path for root in (project, ROOT) for path in root.glob("*.md")]
    documents += [path for root in (project, ROOT) for path in (root / "docs").glob("*.md")]
    assert len(documents) >= 10
    lines = [line for path in documents for line in path.read_text().splitlines()]
    assert [line for line in lines if len(line) > 100 and not line.startswith("|")] == []


def failing_items(project: Path) -> list[str]:
    """What the project's own doctor finds wrong with its files; not with what is installed here."""
    code = (
        "import pathlib, probe.config as c, probe.repro.doctor.items as d\n"
        f"found = d.examine(pathlib.Path({str(project)!r}), c.Config)\n"
        f"print([f.item for f in found if f.status == d.FAILS and f.item not in {NOT_IN_FILES}])"
    )
    command = [sys.executable, "-c", code]
    environ = {**os.environ, "PYTHONPATH": str(project / "src")}
    done = subprocess.run(command, env=environ, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout)


@pytest.mark.parametrize(("name", "answer"), ONE_EACH)
def test_every_answer_gives_a_project(bake, name, answer):
    """Each answer of each question once, with the defaults of the others."""
    project = bake(**{name: answer})
    text = (project / "pyproject.toml").read_text(encoding="utf-8")
    metadata = tomllib.loads(text)["project"]
    if name == "license":
        spdx = "LicenseRef-Proprietary" if answer == "Proprietary" else answer
        assert metadata["license"] == spdx
        assert "The authors" in (project / "LICENSE").read_text()
    if name == "python_version":
        assert metadata["requires-python"] == f"=={answer}.*"
        assert (project / ".python-version").read_text() == f"{answer}\n"


@pytest.mark.parametrize("stack", CHOICES["stack"])
def test_the_pins_of_a_stack_reach_every_file_that_needs_them(bake, stack):
    """The framework (torch with its local tag and index), NumPy, and the base image by digest."""
    row = logic.stack(stack)
    content = files(bake(stack=stack, dependency_manager="uv", **TEXT_FREE))
    project = tomllib.loads(content["pyproject.toml"])
    assert f"numpy=={row['numpy']}" in project["project"]["dependencies"]
    extras = project["project"]["optional-dependencies"]
    assert set(extras) == set(row["accelerators"])
    for name, facts in row["accelerators"].items():
        image = f"{facts['image']}@{facts['image_digest']}"
        assert f"ARG BASE_IMAGE_{name.upper()}={image}" in content["Dockerfile"]
        if row["framework"] != "torch":
            package = "tensorflow" if name == "cuda" else "tensorflow-cpu"
            here = "sys_platform == 'linux' and platform_machine == 'x86_64'"
            assert f"{package}=={row['version']} ; {here}" in extras[name]
            assert f"keras=={row['keras']}" in extras[name]
            continue
        requirement, _, marker = extras[name][0].partition(" ; ")
        assert requirement == f"torch=={facts['build']}"
        platforms = project["tool"]["repro"]["environments"][name]["platforms"]
        for machine in ("x86_64", "aarch64"):
            named = Marker(marker).evaluate({"sys_platform": "linux", "platform_machine": machine})
            assert named == (f"linux-{machine}" in platforms)
        source = [s for s in project["tool"]["uv"]["sources"]["torch"] if s["extra"] == name]
        if facts["index"] is None:
            assert source == []
        else:
            index = {i["name"]: i for i in project["tool"]["uv"]["index"]}[source[0]["index"]]
            assert index == {"name": index["name"], "url": facts["index"], "explicit": True}


@pytest.mark.parametrize(
    ("slug", "choice"),
    [
        (slug, {name: answer})
        for slug in ("zq", LONG_SLUG)
        for name in ("dependency_manager", "starter", "python_version", "stack")
        for answer in ([TENSORFLOW] if name == "stack" else CHOICES[name])
        if slug == "zq" or name != "python_version"
    ],
)
def test_ruff_finds_nothing_and_formats_nothing(bake, slug, choice):
    """With a short and a long package name, for each manager, starter, framework and Python (its
    rules follow it), as it is."""
    project = bake(project_slug=slug, **{"python_version": THIS_PYTHON, **HOSTILE, **choice})
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "."],
            cwd=project,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("manager", CHOICES["dependency_manager"])
def test_free_text_survives_exactly(bake, manager):
    """Quotes, backslashes, newlines and any script: every file parses and shows them as typed."""
    project = bake(dependency_manager=manager, project_slug="probe", **HOSTILE)
    content = files(project)
    for name, text in content.items():
        if name not in ("README.md", "LICENSE"):
            parse(name, text)
    metadata = tomllib.loads(content["pyproject.toml"])["project"]
    # A package's summary is one line by its standard; the README has the text itself.
    assert metadata["description"] == HOSTILE["description"].replace("\n", " ")
    author = HOSTILE["author_name"].replace("\n", " ")
    assert metadata["authors"] == [{"name": author}]
    assert author in content["LICENSE"]
    assert HOSTILE["description"] in content["README.md"]


def test_jinja_in_an_answer_does_no_harm(cookies, tmp_path):
    """Stock cookiecutter renders it; nothing runs, and the project still parses."""
    marker = tmp_path / "ran"
    attack = f"{{{{ ''.__class__.__mro__[1].__subclasses__() | length }}}} $(touch {marker})"
    result = cookies.bake(extra_context={"description": attack, "project_slug": "probe"})
    assert not marker.exists()
    if result.exit_code == 0:
        for name, text in files(result.project_path).items():
            parse(name, text)


def test_the_project_has_the_files_of_the_contract(bake):
    """What the README promises is there, and the licence is one file."""
    content = files(bake(**TEXT_FREE))
    assert set(content) >= {
        ".dockerignore",
        ".editorconfig",
        ".env.example",
        ".gitignore",
        ".github/workflows/ci.yml",
        ".github/actions/setup/action.yml",
        ".pre-commit-config.yaml",
        "Dockerfile",
        "LICENSE",
        "Makefile",
        "README.md",
        "compose.gpu.yaml",
        "compose.yaml",
        "configs/baseline.yaml",
        "configs/cifar10_resnet18.yaml",
        "configs/smoke.yaml",
        "docs/reproducibility.md",
        "environment.mk",
        "notebooks/explore_run.ipynb",
        "requirements/cuda.txt",
        "requirements/torch-cuda.txt",
        "tests/test_reproducibility.py",
        "train.py",
    }


@pytest.mark.parametrize("manager", CHOICES["dependency_manager"])
def test_every_manager_has_every_verb(bake, manager):
    """The Makefile and the manager's part of it define the verbs of the contract."""
    content = files(bake(dependency_manager=manager, **TEXT_FREE))
    rules = content["Makefile"] + content["environment.mk"] + content["framework.mk"]
    verbs = "setup lock train verify compare runs test lint check doctor notebook mlflow docker"
    verbs += " up down upgrade clean"
    missing = [v for v in verbs.split() if not re.search(rf"^{v}:", rules, re.M)]
    assert missing == []


def test_no_template_file_branches_on_an_answer():
    """The tree is the switch: what an answer changes is a folder or a row, not a condition."""
    folders = [ROOT / "{{cookiecutter.project_slug}}", ROOT / "templates"]
    for path in sorted(p for folder in folders for p in folder.rglob("*") if p.is_file()):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\bif cookiecutter\.", text), path
        assert not re.search(r"cookiecutter\.\w+ [!=]=", text), path


def test_sources_hold_no_jinja():
    """The package is plain Python in the template too: linted unrendered, copied as it stands."""
    project = ROOT / "{{cookiecutter.project_slug}}"
    sources = sorted([*project.rglob("src/**/*.py"), *project.rglob("environment/*.py")])
    assert len(sources) > 80
    for path in sources:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\{\{ ?cookiecutter|\{%", text), path


def test_what_is_copied_holds_no_tag_and_what_is_rendered_holds_one():
    """A file without tags is copied as it stands; one with tags is not on the list of copies."""
    folder = ROOT / "{{cookiecutter.project_slug}}"
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()  # as cookiecutter matches it
        copied = any(fnmatch.fnmatch(name, p) for p in QUESTIONS["_copy_without_render"])
        tagged = re.search(r"\{\{ |\{%", re.sub(r"\$\{\{", "", path.read_text(encoding="utf-8")))
        assert copied != bool(tagged), name


@pytest.mark.parametrize("starter", [*CHOICES["starter"], "tensorflow"])
def test_the_guide_to_ones_own_task_names_what_there_is(bake, starter):
    """Its tests, files and verbs exist, whatever the project began with."""
    other = {"stack": TENSORFLOW}
    project = bake(**TEXT_FREE, **(other if starter == "tensorflow" else {"starter": starter}))
    guide = (project / "docs" / "your-task.md").read_text(encoding="utf-8")
    tests = "".join(path.read_text(encoding="utf-8") for path in project.glob("tests/*.py"))
    named = set(re.findall(r"`(?:tests/)?(test_\w+?)(\.py)?`", guide))
    assert len(named) > 8
    for name, is_file in named:
        assert (project / "tests" / f"{name}.py").is_file() if is_file else f"def {name}(" in tests
    for path in re.findall(r"`((?:configs|docs)/[\w.-]+)`", guide):
        assert (project / path).is_file(), path
    rules = "".join((project / f).read_text() for f in ("Makefile", "framework.mk"))
    for verb in re.findall(r"`make ([a-z-]+)", guide):
        assert re.search(rf"^{verb}:", rules, re.M) or verb == "lock", verb
