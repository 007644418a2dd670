"""What a generated project is given: configs, overrides, `.env`, run directories, checkpoints.

Whatever is in them: it is taken, or refused in one line with exit code 2, without a traceback, and
nothing is overwritten.
"""

import importlib
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import yaml
from conftest import HOSTILE, REAL_STACK, ROOT, THIS_PYTHON, make
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tools import demo, fuzz_config
from tools.unrendered import DEFAULT

RESULTS = ROOT / "build" / "hostile-inputs.json"
STEADY = {
    "derandomize": True,
    "deadline": None,
    "database": None,
    "phases": [Phase.explicit, Phase.generate],
    "suppress_health_check": list(HealthCheck),
}


@pytest.fixture(scope="module")
def config_module(cookies_session):
    """`config.py` of a generated package; it needs YAML and pydantic alone."""
    answers = {"project_slug": "hostile-probe", "stack": REAL_STACK, "python_version": THIS_PYTHON}
    project = cookies_session.bake(extra_context={**answers, **HOSTILE}).project_path
    sys.path.insert(0, str(project / "src"))
    yield importlib.import_module("hostile_probe.config")
    sys.path.remove(str(project / "src"))


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**300, max_value=10**310),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["1e999", ".nan", "-.inf", "${X}", "${X:-", "0x10", "1_000", "2020-01-01", "~", "on"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


def mutated(tree):
    """A shipped config with one value of it replaced, dropped, added or renamed."""
    keys = [
        (section, key) for section, part in tree.items() if isinstance(part, dict) for key in part
    ]
    keys += [(section, None) for section in tree]
    return st.builds(_mutate, st.just(tree), st.sampled_from(keys), VALUES, st.integers(0, 3))


def _mutate(tree, place, value, how):
    tree = json.loads(json.dumps(tree))
    section, key = place
    node, name = (tree, section) if key is None else (tree[section], key)
    if how == 0:
        node.pop(name)
    elif how == 1:
        node[f"{name}x"] = value
    else:
        node[name] = value
    try:
        return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
    except yaml.YAMLError:
        return json.dumps(tree).encode()


def loads(module, content, overrides=()):
    """Whether the loader takes a file; whatever it raises must be one line that says what."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "config.yaml"
        path.write_bytes(content)
        try:
            config = module.load_config(path, overrides)
        except ValueError as error:
            assert str(error).strip()
            assert len(str(error).splitlines()) == 1, ascii(str(error))
            assert len(str(error)) < 2000
            return "refused"
        # What was taken is a configuration that can be written down and read again.
        path.write_text(to_yaml(module, config), encoding="utf-8")
        assert module.load_config(path) == config
        return "taken"


def to_yaml(module, config):
    """The configuration as a run writes it down."""
    load = importlib.import_module(f"{module.__package__}.repro.config.load")
    return load.to_yaml(load.to_dict(config))


def test_any_config_is_taken_or_refused_in_one_line(config_module, seen, count=600):
    """Bytes, YAML of any values, and the shipped config with one thing changed."""
    tree = yaml.safe_load((DEFAULT / "configs" / "smoke.yaml").read_text())
    contents = st.one_of(
        st.binary(max_size=60),
        VALUES.map(lambda value: json.dumps(value).encode()),
        st.text(alphabet=" \n\t-:[]{}#&*!|>'\"%@`,?~.01eaéx\u2028\ufeff\x85", max_size=60).map(
            str.encode
        ),
        mutated(tree),
        mutated(tree),
    )

    @settings(max_examples=count, **STEADY)
    @given(content=contents)
    def run(content):
        seen["config"][loads(config_module, content)] += 1

    run()
    assert min(seen["config"]["taken"], seen["config"]["refused"]) > count / 10


def test_any_override_is_taken_or_refused_in_one_line(config_module, seen, count=400):
    """As typed behind a command."""
    smoke = (DEFAULT / "configs" / "smoke.yaml").read_bytes()
    values = {
        "seed": st.integers(-1, 2**33),
        "training.learning_rate": st.floats(),
        "data.num_workers": st.integers(-1, 300),
        "model.dropout": st.floats(0, 1),
        "paths.data_dir": st.text(max_size=9),
        "model": VALUES,
    }
    known = [st.tuples(st.just(key), value) for key, value in values.items()]
    sensible = st.one_of(known).map(lambda pair: f"{pair[0]}={json.dumps(pair[1])}")
    given_text = st.one_of(st.text(max_size=20), VALUES.map(json.dumps))
    odd = st.builds(lambda key, value: f"{key}={value}", st.text(max_size=8), given_text)
    overrides = st.lists(st.one_of(sensible, sensible, odd, given_text), max_size=2)

    @settings(max_examples=count, **STEADY)
    @given(overrides=overrides)
    def run(overrides):
        seen["override"][loads(config_module, smoke, overrides)] += 1

    run()
    assert min(seen["override"]["taken"], seen["override"]["refused"]) > count / 10


BOMBS = {
    "aliases": b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
    "merge key": b"a: &a {x: 1}\nb:\n  <<: *a\n",
    "deep list": b"[" * 100_000,
    "deep mapping": b"{a: " * 20_000,
    "deep blocks": b"".join(b" " * n + b"a:\n" for n in range(2000)),
    "long number": b"seed: " + b"9" * 100_000,
    "long exponent": b"seed: 0\ntraining: {learning_rate: 1e" + b"9" * 5000 + b"}",
    "not UTF-8": b"seed: 0 # \xff\xfe",
    "UTF-16": "seed: 0".encode("utf-16"),
    "null bytes": b"seed: 0\0",
    "two documents": b"seed: 0\n---\nseed: 1\n",
    "python tag": b"!!python/object/apply:os.system ['true']",
    "bad tag": b"seed: !!bool maybe",
    "twice": b"seed: 0\nseed: 0\n",
    "twice inside": b"seed: 0\nmodel: {width: 1, width: 2}",
    "key is a list": b"? [a]\n: 1\n",
    "key is null": b"~: 1\n",
    "empty": b"",
    "only a comment": b"# nothing\n",
    "a megabyte": b"seed: 0 #" + b"x" * 1_000_000,
    "infinite": b"seed: 0\ntraining: {learning_rate: .inf}",
    "not a number": b"seed: 0\ntraining: {weight_decay: .nan}",
    "a date": b"seed: 2020-01-01",
    "octal": b"seed: 0o17",
    "terminal codes": b'seed: 0\n"\\e[31mred": 1',
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_and_oddities(config_module, seen, name):
    """Each is refused at once; two of them are fine configs."""
    outcome = loads(config_module, BOMBS[name])
    seen["bomb"][outcome] += 1
    assert outcome == ("taken" if name == "a megabyte" else "refused")


def test_coverage_guided_fuzzing_of_the_config_loader(tmp_path):
    """A fixed number of inputs that a fuzzer steers by the branches they reach."""
    done = fuzz_config.run(5_000, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"Done 5000 runs", done.stderr)


@pytest.mark.slow
def test_two_hundred_thousand_fuzzed_configs(tmp_path):
    """The same, longer."""
    done = fuzz_config.run(200_000, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"Done 200000 runs", done.stderr)


@pytest.fixture(scope="module")
def seen():
    """What was tried and what came of it, written down at the end."""
    counts = {kind: Counter() for kind in ("config", "override", "bomb", "env", "run", "command")}
    yield counts
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(counts, indent=2) + "\n")


class Driver:
    """The package's command line, in a warm interpreter of the project's environment."""

    def __init__(self, project):
        environ = {**demo.settled(), "PYTHONPATH": str(project / "src")}
        command = [project / ".venv/bin/python", ROOT / "tests/drive.py", "real"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(list(map(str, command)), env=environ, **pipes)

    def __call__(self, cwd, *arguments, **env):
        case = {"cwd": str(cwd), "arguments": [str(a) for a in arguments], "env": env}
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def drive(pip_project):
    driver = Driver(pip_project)
    yield driver
    driver.process.stdin.close()
    driver.process.wait()


@pytest.fixture(scope="module")
def smoke_run(pip_project):
    """One finished run."""
    make(pip_project, "train", "CONFIG=configs/smoke.yaml", "ARGS=--run-dir outputs/hostile")
    return pip_project / "outputs" / "hostile"


def told(answer, seen, kind):
    """One line and exit code 2, or an answer; never a traceback."""
    assert "Traceback" not in answer["stderr"], answer["stderr"][-2000:]
    assert answer["code"] in (0, 1, 2), answer
    errors = [line for line in answer["stderr"].splitlines() if line.startswith("error: ")]
    if answer["code"] == 2:
        assert len(errors) == 1, answer["stderr"][-2000:]
    seen[kind]["refused" if answer["code"] == 2 else "taken"] += 1
    return answer["code"]


def content(folder):
    return {
        p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink()
    }


def spoil(path, chance):
    """Change one file of a run as disks, editors and people do."""
    data = path.read_bytes()
    position = chance.randrange(len(data) or 1)
    kind = chance.choice(
        ["bit", "cut", "grow", "empty", "lost", "folder", "text", "number", "loop", "nest"]
    )
    if kind == "bit" and data:
        path.write_bytes(
            data[:position]
            + bytes([data[position] ^ 1 << chance.randrange(8)])
            + data[position + 1 :]
        )
    elif kind == "cut":
        path.write_bytes(data[:position])
    elif kind == "grow":
        path.write_bytes(data + data[:position])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "lost":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "loop":
        path.unlink()
        path.symlink_to(path.name)
    elif kind == "nest":
        path.write_bytes(b'{"schema": 3, "a": ' + b"[" * 100_000)
    else:
        words = [
            b"null",
            b"NaN",
            b"-1",
            b"1e999",
            b'"x"',
            b"[]",
            b"{}",
            b"9" * 5000,
            b"true",
            b"\xff",
            b"\0",
        ]
        spots = [i for i in range(len(data)) if data[i : i + 1].isdigit()] or [position]
        spot = chance.choice(spots) if kind == "number" else position
        path.write_bytes(data[:spot] + chance.choice(words) + data[spot + 1 :])
    return kind


def spoiled_runs(drive, project, smoke_run, tmp_path, seen, count, seed):
    """Every reader of a run on damaged copies of one; whatever it says, the files stay."""
    chance = random.Random(seed)
    names = [p.relative_to(smoke_run) for p in content(smoke_run)]
    commands = (
        lambda run: ("compare", smoke_run, run),
        lambda run: ("compare", run, smoke_run, "--json"),
        lambda run: ("verify", run, "--segments", "1"),
        lambda run: ("train", "--resume", run),
        lambda run: ("machines", run.parent),
        lambda run: ("runs", run.parent),
    )
    for number in range(count):
        folder = tmp_path / f"{number}" / "here"
        run = shutil.copytree(smoke_run, folder / "run")
        name = chance.choice(names)
        kind = spoil(run / name, chance)
        before = content(run)
        arguments = chance.choice(commands)(run)
        answer = drive(project, *arguments)
        code = told(answer, seen, "run")
        if code == 2:
            assert content(run) == before, (kind, name, arguments)
        shutil.rmtree(tmp_path / f"{number}")


@pytest.mark.faults
def test_a_damaged_run_is_refused_in_one_line(drive, pip_project, smoke_run, tmp_path, seen):
    """Any file of it, damaged in any of ten ways, under any command that reads runs."""
    spoiled_runs(drive, pip_project, smoke_run, tmp_path, seen, 150, seed=1)


@pytest.mark.slow
def test_a_thousand_damaged_runs(drive, pip_project, smoke_run, tmp_path, seen):
    """The same, longer."""
    spoiled_runs(drive, pip_project, smoke_run, tmp_path, seen, 1000, seed=2)


HUGE = [
    "training.warmup_epochs=1e308",
    "training.warmup_epochs=1000000",
    "training.num_epochs=1000000",
    "training.learning_rate=1e6",
    "training.max_grad_norm=1e308",
    "training.weight_decay=1e308",
    "record.checkpoint_every=1000000000",
    "record.keep_checkpoints=1000000000",
    "data.prefetch_factor=99999999999999999999",
    "model.width=9999999999999999999999",
    "determinism.num_threads=1e9",
    "seed=18446744073709551616",
]


@pytest.mark.faults
@pytest.mark.parametrize("override", HUGE)
def test_a_huge_number_is_refused_or_trained_with(drive, pip_project, tmp_path, seen, override):
    """What the loader takes does no harm later: one step is trained, without a traceback."""
    config = pip_project / "configs" / "smoke.yaml"
    arguments = ["--config", config, "--run-dir", tmp_path / "run", "--stop-at", "1", override]
    code = told(drive(tmp_path, "train", *arguments), seen, "override")
    assert code in (0, 2)
    assert (tmp_path / "run").exists() is (code == 0)


ENV_FILES = [
    b"\xff\xfe=1\n",
    b"A=\0\n",
    b"=x\n",
    b"A",
    b"A='unclosed\nB=2\n",
    b'A="${A}"\n',
    b"A=$(touch ran)\n",
    b"A=`touch ran`\n",
    b"export A=1\n",
    b"A=1\r\nB=2\r\n",
    b"\xef\xbb\xbfA=1\n",
    b"OUTPUT_DIR=\n",
    b"OUTPUT_DIR=" + b"x" * 5000 + b"\n",
    b"OUTPUT_DIR=a\0b\n",
    b"DATA_DIR=${NOWHERE}\n",
    b"PATH=\n",
    b"OUTPUT_DIR=/proc/none\n",
    b"MLFLOW_TRACKING_URI=not an address\n",
    b"LD_PRELOAD=x\n",
    b"A" * 100_000,
]


@pytest.mark.faults
@pytest.mark.parametrize("number", range(len(ENV_FILES)))
def test_any_env_file(drive, pip_project, smoke_run, tmp_path, seen, number):
    """A command reads it, or says in one line what is wrong; nothing in it is executed."""
    (tmp_path / ".env").write_bytes(ENV_FILES[number])
    config = pip_project / "configs" / "smoke.yaml"
    code = told(drive(tmp_path, "train", "--config", config), seen, "env")
    assert not list(tmp_path.rglob("ran"))
    if code == 2:
        assert {path.name for path in tmp_path.iterdir()} == {".env"}
    told(drive(tmp_path, "compare", smoke_run, smoke_run), seen, "env")


COMMANDS = [
    ["train", "--config", "/dev/zero"],
    ["train", "--config", "/"],
    ["train", "--config", "a\0b"],
    ["train", "--config", "x" * 5000],
    ["train", "--config", "SMOKE", "--seed", "-1"],
    ["train", "--config", "SMOKE", "--seed", "9" * 5000],
    ["train", "--config", "SMOKE", "--seed", "1.5"],
    ["train", "--config", "SMOKE", "=", "=="],
    ["train", "--config", "SMOKE", "a\nb=,"],
    ["train", "--config", "SMOKE", "\x1b[31m\u2028=1"],
    ["compare", "RUN", "a\nb\x1b[31m"],
    ["train", "--config", "SMOKE", "seed=\ud800"],
    ["train", "--config", "SMOKE", "--run-dir", "/proc/x"],
    ["train", "--config", "SMOKE", "--run-dir", "RUN"],
    ["train", "--config", "SMOKE", "--run-dir", "a\0b"],
    ["train", "--resume", "/"],
    ["train", "--resume", "a\0b"],
    ["train", "--resume", "RUN", "seed=7"],
    ["verify", "/"],
    ["verify", "x" * 5000],
    ["verify", "RUN", "--segments", "0"],
    ["verify", "RUN", "--segments", "9" * 5000],
    ["compare", "RUN", "/dev/null"],
    ["compare", "RUN", "a\0b"],
    ["machines", "/dev/null"],
    ["machines", "nowhere"],
    ["track", "RUN", "--register", ""],
    ["track", "RUN", "--register", "a\nb/../c"],
    ["nonsense"],
    [],
]


@pytest.mark.faults
@pytest.mark.parametrize("number", range(len(COMMANDS)))
def test_any_command_line(drive, pip_project, smoke_run, tmp_path, seen, number):
    """Refused with exit code 2, and the run that was named is as it was."""
    named = {"SMOKE": str(pip_project / "configs/smoke.yaml"), "RUN": str(smoke_run)}
    before = content(smoke_run)
    answer = drive(tmp_path, *(named.get(word, word) for word in COMMANDS[number]))
    assert "Traceback" not in answer["stderr"], answer["stderr"][-2000:]
    assert (answer["code"], "error: " in answer["stderr"]) == (2, True), answer
    seen["command"]["refused"] += 1
    assert content(smoke_run) == before
    assert list(tmp_path.iterdir()) == []
