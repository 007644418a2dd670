"""The data is the only place of a pin, and everything that reads it agrees with it."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest
import yaml
from conftest import CHOICES, QUESTIONS, ROOT

import template_guard
import template_logic as logic

DATA = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in (ROOT / "data").glob("*.json")
}
RELEASES = DATA["stacks"]["releases"]
OVERLAYS = ROOT / "{{cookiecutter.project_slug}}" / "_overlays"


def test_the_questions_are_those_of_the_contract():
    """Names and order are fixed; private names are no questions."""
    asked = [name for name in QUESTIONS if not name.startswith("_")]
    assert asked == [
        "project_name",
        "project_slug",
        "description",
        "author_name",
        "license",
        "dependency_manager",
        "stack",
        "python_version",
        "starter",
    ]
    first = {name: answers[0] for name, answers in CHOICES.items()}
    assert first == {
        "license": "MIT",
        "dependency_manager": "pip",
        "stack": "torch-2.14.1-cu130",
        "python_version": "3.12",
        "starter": "image_classification",
    }


def test_the_menu_and_the_readme_are_written_from_the_data():
    """`tools/menu.py --check` finds nothing to write."""
    done = subprocess.run([sys.executable, "tools/menu.py", "--check"], cwd=ROOT)
    assert done.returncode == 0


def test_every_stack_has_a_label_that_says_gpus_and_driver():
    """A person chooses by what nvidia-smi shows."""
    labels = QUESTIONS["__prompts__"]["stack"]
    for name in CHOICES["stack"]:
        if name.endswith("-cpu"):
            assert "no GPU needed" in labels[name]
        else:
            label = labels[name].removesuffix(" (default)")
            assert re.search(r"CUDA \d+\.\d: \w+ to \w+, driver \d+\+$", label)


def test_every_question_fits_a_terminal_of_80_columns():
    """With the numbers that cookiecutter prints before the questions and the choices."""
    for question in QUESTIONS["__prompts__"].values():
        texts = question if isinstance(question, dict) else {"__prompt__": question}
        for name, text in texts.items():
            number = "  [1/9] :" if name == "__prompt__" else "    10 - "
            assert len(number + text) <= 80, text


def test_managers_are_folders_rows_and_answers():
    """Adding a manager is one folder, one row, one word; this names the one that is missing."""
    folders = {path.name for path in (OVERLAYS / "dependency_manager").iterdir()}
    assert folders == set(DATA["managers"]["managers"]) == set(CHOICES["dependency_manager"])
    licences = {path.name for path in (OVERLAYS / "license").iterdir()}
    assert licences == set(CHOICES["license"])
    starters = {path.name for path in (OVERLAYS / "starter").iterdir()}
    assert starters == set(DATA["starters"]["starters"]) == set(CHOICES["starter"])


@pytest.mark.parametrize("release", RELEASES, ids=logic.release_name)
def test_a_row_is_complete_and_says_where_it_is_from(release):
    """Facts carry their source and the day they were checked; Pythons are answers of the menu."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", release[logic.framework_of(release)])
    assert release["status"] in ("recommended", "supported", "retired")
    assert set(release["python"]) <= set(CHOICES["python_version"])
    assert release["pypi_default"] in release["variants"]
    assert "cpu" in release["variants"]
    assert release["source"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", release["checked"])
    for variant in release["variants"]:
        facts = DATA["stacks"]["accelerators"][variant]
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", facts["image_digest"])
        assert facts["source"]


@pytest.mark.parametrize("release", RELEASES, ids=logic.release_name)
def test_a_shipped_lock_holds_the_pins_and_a_hash_for_everything(release):
    """Every package of a lock is exact and hashed; torch is the row's, with its local tag."""
    folder = ROOT / "data" / "locks" / "pip" / logic.release_name(release)
    files = sorted(folder.glob("*.txt"))
    wanted = {"torch-cuda.txt", "cuda.txt"} if "torch" in release else {"cpu.txt", "cuda.txt"}
    assert wanted <= {path.name for path in files}
    for path in files:
        text = path.read_text(encoding="utf-8")
        packages = re.split(r"\n(?=[a-z0-9])", text)
        for package in packages:
            if "==" in package:
                assert "--hash=sha256:" in package, package.splitlines()[0]
        pins = dict(re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", text, re.MULTILINE))
        if path.name == "torch-cuda.txt":
            assert pins == {"torch": release["torch"]}
        elif path.name == "torch-cpu.txt":
            found = set(re.findall(r"^torch==(\S+)", text, re.MULTILINE))
            assert found == {f"{release['torch']}+cpu", release["torch"]}
        else:
            assert pins["numpy"] == release["numpy"]
            wanted = logic.pins("runtime", "dev")
            assert {name: pins[name] for name in wanted} == wanted
            cuda = [name for name in pins if name.startswith("nvidia-")]
            assert bool(cuda) == (path.name == "cuda.txt")
            if "tensorflow" in release:
                facts = release["variants"]["cu125"]
                named = {**facts["toolkit"], "nvidia-cudnn-cu12": facts["cudnn"]} if cuda else {}
                named |= {"keras": release["keras"], "tensorflow": release["tensorflow"]}
                assert {name: pins[name] for name in named} == named


def test_no_pin_stands_outside_the_data():
    """Template files take every version from `data/`; an exact version in one of them is a leak."""
    versions = {release[logic.framework_of(release)] for release in RELEASES}
    for group in ("runtime", "dev", "notebook", "mlflow", "tools"):
        versions |= set(DATA["packages"][group].values())
    folders = [OVERLAYS.parent, ROOT / "templates"]
    files = [p for folder in folders for p in folder.rglob("*") if p.is_file()]
    # Actions are copied unrendered; a test of their own holds their versions to the data.
    for path in (path for path in files if ".github" not in path.parts):
        # A measured result names what it was measured with.
        lines = path.read_text(encoding="utf-8").splitlines()
        for line in lines:
            exact = re.findall(r"==(\d+\.\d+(?:\.\d+)?)\b", line)
            assert not set(exact) & versions, f"{path}: {line}"


def test_a_new_release_is_one_row(tmp_path, monkeypatch):
    """A made-up row appears in the menu with its label, pins and environments; no code changes."""
    data = json.loads((ROOT / "data" / "stacks.json").read_text())
    row = {**RELEASES[0], "torch": "9.9.9", "numpy": "9.0.0", "pypi_default": "cu130"}
    data["releases"].insert(0, row)
    (tmp_path / "data").mkdir()
    for path in (ROOT / "data").glob("*.json"):
        (tmp_path / "data" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "data" / "stacks.json").write_text(json.dumps(data))
    monkeypatch.setattr(logic, "ROOT", tmp_path)
    assert next(iter(logic.stack_names())) == "torch-9.9.9-cu130"
    assert logic.stack_label("torch-9.9.9-cu130").startswith("PyTorch 9.9.9, CUDA 13.0: Turing")
    stack = logic.stack("torch-9.9.9-cu126")
    assert stack["accelerators"]["cuda"]["build"] == "9.9.9+cu126"


def retired(monkeypatch, tmp_path):
    data = json.loads((ROOT / "data" / "stacks.json").read_text())
    (oldest,) = [row for row in data["releases"] if row.get("torch") == "2.7.1"]
    oldest["status"] = "retired"
    (tmp_path / "data").mkdir()
    for path in [ROOT / "cookiecutter.json", *(ROOT / "data").glob("*.json")]:
        (tmp_path / path.relative_to(ROOT)).write_bytes(path.read_bytes())
    (tmp_path / "data" / "stacks.json").write_text(json.dumps(data))
    monkeypatch.setattr(logic, "ROOT", tmp_path)


def test_a_retired_row_is_refused_for_new_projects_and_mentioned_in_updates(monkeypatch, tmp_path):
    """A project that chose it can still be updated; a new one is sent to the nearest row."""
    retired(monkeypatch, tmp_path)
    answers = {
        "project_name": "x",
        "project_slug": "probe",
        "description": "x",
        "author_name": "x",
        "license": "MIT",
        "dependency_manager": "pip",
        "stack": "torch-2.7.1-cu126",
        "python_version": "3.12",
        "starter": "image_classification",
    }
    assert logic.problems(answers) == [
        "stack torch-2.7.1-cu126 is retired; the nearest supported one is torch-2.14.1-cu126"
    ]
    assert logic.warnings(answers) == []
    updated = {**answers, "_commit": "0" * 40}
    assert logic.problems(updated) == []
    assert len(logic.warnings(updated)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "'\"\\",
        "a\nb\r\tc",
        "\x00\x1f\x7f\x85",
        "\u2028\u2029\ufeff\uffff",
        "🎲 名前 é",
        "#: %{}",
    ],
)
def test_quoted_text_is_read_back_by_toml_yaml_and_json(text):
    """One filter for all three formats."""
    import tomllib

    quoted = logic.quote(text)
    assert "\n" not in quoted
    assert json.loads(quoted) == text
    assert yaml.safe_load(f"x: {quoted}") == {"x": text}
    assert tomllib.loads(f"x = {quoted}") == {"x": text}


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Reproducible ML", "reproducible-ml"),
        ("Étude №5 — my CNN!", "etude-no5-my-cnn"),
        ("日本語", "ml-project"),
        ("42 things", "things"),
        ("", "ml-project"),
        ("x" * 99, "x" * 40),
    ],
)
def test_a_slug_is_derived_from_any_name(name, slug):
    """What is left is always a name that `problems` takes."""
    assert logic.slug(name) == slug
    assert list(logic._slug_problems(logic.slug(name))) == []


@pytest.mark.parametrize("stack", CHOICES["stack"])
@pytest.mark.parametrize("python", CHOICES["python_version"])
def test_a_lock_counts_as_shipped_only_if_it_fits_the_python(stack, python):
    """torch's CPU lock needs a hash of the index's wheel for that very Python, its CUDA lock that
    of PyPI; all of TensorFlow is on PyPI."""
    row = logic.stack(stack)
    answers = {"stack": stack, "python_version": python, "dependency_manager": "pip"}
    answers["project_slug"] = "probe"
    if row["framework"] != "torch":
        environments = list(row["accelerators"]) if python in row["python"] else []
        for manager, name in itertools.product(row["managers"], environments):
            assert logic.lock_is_shipped({**answers, "dependency_manager": manager}, name)
        return
    hashes = row["index_wheels"].get("cpu", {}).get("linux_x86_64", {})
    assert logic.lock_is_shipped(answers, "cpu") == (python in hashes)
    if python in hashes:
        assert hashes[python] in logic.lock(answers, "torch-cpu.txt")
    assert logic.lock_is_shipped(answers, "cuda") == (row["variant"] == row["pypi_default"])
    whole = python in hashes and row["variant"] in ("cpu", row["pypi_default"])
    for manager in ("uv", "poetry"):
        assert logic.lock_is_shipped({**answers, "dependency_manager": manager}, "cpu") == whole


def test_the_setup_actions_pin_the_tools_of_the_data():
    """Workflows are copied unrendered; the versions in them are those of data/packages.json."""
    tools = DATA["packages"]["tools"]
    text = {
        path.parts[-5]: path.read_text(encoding="utf-8")
        for path in OVERLAYS.glob("dependency_manager/*/.github/actions/setup/action.yml")
    }
    assert f"version: {tools['uv']}\n" in text["uv"]
    assert f"poetry=={tools['poetry']}\n" in text["poetry"]
    assert f"conda-lock=={tools['conda-lock']}\n" in text["conda"]
    assert f"pixi-version: v{tools['pixi']}\n" in text["pixi"]
    assert text["pip"]


def test_the_locks_resolver_is_the_pinned_one():
    """`make locks` runs the uv that data/packages.json names, from the template's own tools."""
    pinned = DATA["packages"]["tools"]["uv"]
    assert f"uv=={pinned}" in Path(ROOT / "requirements-dev.txt").read_text().split()


def test_a_file_whose_only_tags_are_answers_comes_out_as_jinja_makes_it(monkeypatch):
    """The shortcut for such files, byte for byte, with values that look like tags and patterns."""
    odd = {"x": r"\1 {{ cookiecutter.y }} \g<0> é", "y": "", "project_slug": "slug"}
    settings = {"keep_trailing_newline": True, **QUESTIONS["_jinja2_env_vars"]}
    plain = 0
    monkeypatch.chdir(ROOT)
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader("."), **settings)
    quickly = template_guard._quickly(SimpleNamespace(get_template=lambda name: name))
    for path in sorted(Path("{{cookiecutter.project_slug}}").rglob("*")):
        if path.suffix in (".py", ".md", ".ipynb", ".mk", "") and path.is_file():
            made = quickly(path.as_posix())
            if isinstance(made, template_guard._Plain):
                names = re.findall(r"cookiecutter\.(\w+)", path.read_text(encoding="utf-8"))
                context = {"cookiecutter": {**dict.fromkeys(names, odd["x"]), **odd}}
                expected = environment.get_template(path.as_posix()).render(**context)
                assert made.render(**context) == expected, path
                plain += 1
    assert plain >= 20


def test_a_paragraph_breaks_between_words_and_never_within_code():
    """Whatever its answers make of it: 100 columns at most, but for code that is longer."""
    code = "`make train ARGS=1`"
    lines = logic.paragraph(f"{'word ' * 18}{code} {'word ' * 30}", "  ").splitlines()
    assert any(code in line for line in lines)
    assert max(map(len, lines)) <= 100
    assert all(line.startswith("  ") for line in lines[1:])
