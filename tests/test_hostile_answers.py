"""Any answer at all: a clean project that shows it as it was typed, or one line and nothing."""

import importlib.metadata
import json
import logging
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import CHOICES, ROOT, THIS_PYTHON
from cookiecutter.cli import main as cookiecutter
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from test_bake import parse

import template_logic as logic

MARKER = Path(tempfile.gettempdir()) / "an-answer-ran"
RUN = f"touch {MARKER}"
RESULTS = ROOT / "build" / "hostile-answers.json"
FREE = ("project_name", "description", "author_name")
HALF = "\ud800"
NASTY = [
    *(
        "'",
        '"',
        "`",
        "''' \"\"\"",
        "\\",
        "\\N{BULLET}",
        "\\x00",
        "%s %(a)s",
        "{0}",
        "${HOME}",
        "$HOME",
    ),
    *("\n", "\r\n", "\r", "\t", "\0", "\x0b\x0c\x1c\x1d\x1e\x85", "\x7f", "\u2028\u2029", "\ufeff"),
    *(
        "\u202e\u2066 right to left",
        "e\u0301 \u00e9",
        "\ufffe\uffff",
        "\U0001f3b2",
        HALF,
        "名前 اسم",
    ),
    *(f"`{RUN}`", f"$({RUN})", f"; {RUN} #", f"\n\t{RUN}\n", f"'; import os; os.system('{RUN}') #"),
    *(
        "# comment",
        "- a: [b",
        "a: b",
        "!!python/object:os.system x",
        "&a *a",
        "---",
        "...",
        "<<: *x",
    ),
    *(
        '"""\nimport os\n',
        "'''",
        "]]> <b>&amp;",
        "[x](y)",
        "```",
        "| a | b |",
        "<!-- x -->",
        "## Setup",
    ),
    *("FROM scratch", "RUN true", "include x.mk", "$(shell id)", "\\\nRUN x", "ENV A=b"),
    *("../..", "/etc/passwd", "C:\\con", "~", "*", "a/b", "."),
]
JINJA = [
    text.replace("RUN", RUN)
    for text in (
        *(
            "{{",
            "}}",
            "{%",
            "%}",
            "{#",
            "#}",
            "{{ x }}",
            "{% endif %}",
            "{{ 1 // 0 }}",
            "{{ 7 * 7 }}",
        ),
        *(
            "{{ cookiecutter }}",
            "{{ cookiecutter.description }}",
            "{% include 'README.md' %}",
            "{{ ''.x.y }}",
        ),
        "{{ cycler.__init__.__globals__.os.system('RUN') }}",
        "{{ cycler['__init__']['__globals__']['os'].system('RUN') }}",
        "{{ (cycler | attr('__init__') | attr('__globals__'))['os'].system('RUN') }}",
        "{{ ([cycler] | map(attribute='__init__.__globals__.os') | first).system('RUN') }}",
        "{{ problems.__globals__.__builtins__.exec('import os; os.system(\"RUN\")') }}",
        "{{ self.__init__.__globals__ }}",
        "{%- set x = joiner %}{{ x.__call__.__globals__.sys }}",
        "{{ '{0.__init__.__globals__}'.format(cycler) }}",
    )
]
RESERVED = json.loads((ROOT / "data" / "reserved.json").read_text())
INSTALLED = importlib.metadata.packages_distributions()
OWN = {path.stem for path in (ROOT / "{{cookiecutter.project_slug}}").rglob("*.py")}
NAMES = st.sampled_from(
    sorted({*sys.stdlib_module_names, *INSTALLED, *OWN, *(n for k in RESERVED.values() for n in k)})
)

texts = st.one_of(
    st.text(max_size=40),
    st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=6)), max_size=6).map("".join),
    st.sampled_from(NASTY).map(lambda text: text * 3000),
    st.lists(st.sampled_from(JINJA + NASTY), min_size=1, max_size=3).map(" ".join),
)
slugs = st.one_of(
    *[st.none()] * 4,  # most of the others are refused, whatever else is given
    NAMES,
    NAMES.map(lambda name: f"{name}-lab"),
    st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True),
    st.from_regex(r"[a-z][a-z0-9_-]{34,39}", fullmatch=True),
    texts,
)
answers = st.fixed_dictionaries(
    dict.fromkeys(FREE, texts)
    | {"project_slug": slugs}
    | {name: st.sampled_from(choices) for name, choices in CHOICES.items()},
)


@pytest.fixture(autouse=True)
def quiet():
    """cookiecutter logs every file; kept by pytest for each example, that is a lot."""
    logging.disable(logging.DEBUG)
    yield
    logging.disable(logging.NOTSET)


def outcome(given):
    """Generate as the command line does, and check the result against the promise."""
    given = {name: value for name, value in given.items() if value is not None}
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        out.mkdir()
        arguments = [str(ROOT), "--no-input", "--output-dir", str(out)]
        arguments += [f"{name}={value}" for name, value in given.items()]
        done = CliRunner().invoke(cookiecutter, arguments)
        assert not MARKER.exists(), "code of an answer ran"
        assert isinstance(done.exception, SystemExit | None), repr(done.exception)
        if done.exit_code:
            lines = [line for line in done.output.splitlines() if line.strip()]
            assert lines
            assert all(line.startswith("error: ") for line in lines), done.output
            assert list(out.iterdir()) == []
            assert {path.name for path in Path(scratch).iterdir()} == {"out"}
            return "refused"
        (project,) = out.iterdir()
        holds(project, given)
        return "generated"


def holds(project, given):
    """Every file parses, the text is as typed, ruff is content, the package imports."""
    package = project.name.replace("-", "_")
    for path in sorted(p for p in project.rglob("*") if p.is_file()):
        text = path.read_bytes().decode()
        name = path.relative_to(project).as_posix()
        if name not in ("README.md", "LICENSE", "docs/upgrading.md"):
            parse(name, text)
    for command in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *command, "--no-cache", "."]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    sources = project / "src" / package
    code = f"import {package}, {package}.config; print({package}.__file__)"
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, 'src'); {code}"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.stdout.strip().startswith(str(sources)), done.stderr
    typed = {name: given[name] for name in FREE}
    if any(mark in text for text in typed.values() for mark in ("{{", "{%", "{#")):
        return  # stock cookiecutter renders what it is given on the command line
    # It also reads such an answer as lines of a template, which end in one way.
    typed = {name: re.sub(r"\r\n?", "\n", text) for name, text in typed.items()}
    kept = json.loads((project / ".template.json").read_text())["cookiecutter"]
    assert {name: kept[name] for name in FREE} == typed
    metadata = tomllib.loads((project / "pyproject.toml").read_bytes().decode())["project"]
    assert metadata["description"] == logic.one_line(typed["description"])
    assert metadata["authors"] == [{"name": logic.one_line(typed["author_name"])}]
    assert typed["description"] in (project / "README.md").read_bytes().decode()
    assert logic.one_line(typed["author_name"]) in (project / "LICENSE").read_bytes().decode()


def tried(count, seen):
    """The test of `count` examples; the same ones every time."""

    @settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],  # shrinking bakes for minutes
        suppress_health_check=list(HealthCheck),
    )
    @given(given=answers)
    @example(given=dict.fromkeys(FREE, "O'Connor") | {"project_slug": "probe"})
    def run(given):
        seen["tried"] += 1
        seen[outcome(given)] += 1

    return run


def test_any_answers_give_a_clean_project_or_one_line():
    """The first examples of the long list."""
    seen = Counter()
    tried(200, seen)()
    assert seen["refused"] > 20
    assert seen["generated"] > 20


@pytest.mark.slow
def test_two_thousand_answers():
    """All of the list; the figures are in `build/hostile-answers.json`."""
    seen = Counter()
    tried(2000, seen)()
    RESULTS.write_text(json.dumps(seen, indent=2) + "\n")
    assert seen["tried"] >= 2000
    assert seen["generated"] > 200


@pytest.mark.parametrize("text", [*NASTY, *JINJA], ids=lambda text: ascii(text)[:30])
def test_each_nasty_text_in_every_answer(text):
    """In all of them; where that is refused, in one at a time: nothing hides behind another."""
    plain = {"project_slug": "probe", "python_version": THIS_PYTHON}
    nasty = dict.fromkeys(FREE, f"a {text} b")
    seen = outcome({**plain, **nasty})
    if seen == "refused":
        for name in FREE:
            outcome({**plain, **dict.fromkeys(FREE, "plain"), name: nasty[name]})
    # What looks like Jinja depends on what it renders to; anything else but half a character is
    # a text like any other.
    assert text in JINJA or seen == ("refused" if text == HALF else "generated")


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@pytest.mark.parametrize(
    "name", [*FREE, *CHOICES, "project_slug", "__package", "__accelerator", "new"]
)
def test_any_value_in_an_answers_file(name, tmp_path_factory):
    """`.template.json` after anybody's editor: what is no answer is refused, and no folder made."""
    good = CliRunner()
    home = tmp_path_factory.mktemp("good")
    made = good.invoke(
        cookiecutter, [str(ROOT), "--no-input", "-o", str(home), "project_slug=probe"]
    )
    assert made.exit_code == 0
    file = json.loads((home / "probe" / ".template.json").read_text())

    @settings(
        max_examples=15,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(value=JSON)
    @example(value="../outside")
    @example(value="a/b")
    @example(value=["torch-2.13.0-cpu"])
    def run(value):
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "out"
            out.mkdir()
            replay = Path(scratch) / "answers.json"
            changed = {**file, "cookiecutter": {**file["cookiecutter"], name: value}}
            replay.write_text(json.dumps(changed))
            arguments = [str(ROOT), "--replay-file", str(replay), "-o", str(out)]
            done = CliRunner().invoke(cookiecutter, arguments)
            assert not MARKER.exists()
            assert isinstance(done.exception, SystemExit | None), repr(done.exception)
            assert {path.name for path in Path(scratch).iterdir()} == {"out", "answers.json"}
            if done.exit_code:
                lines = [line for line in done.output.splitlines() if line.strip()]
                assert all(line.startswith("error: ") for line in lines), done.output
                assert list(out.iterdir()) == []
            else:
                kept = json.loads((out / "probe" / ".template.json").read_text())["cookiecutter"]
                assert name == "new" or kept[name] == value

    run()
