"""A TensorFlow project, from a bake to its own proof; and what only its framework can do wrong."""

import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lent
import pytest
from conftest import REAL_STACK, ROOT, commit, make
from faults import FAULTS, seen_in
from tensorflow_faults import OWN

from tools import demo

pytestmark = pytest.mark.real
STACK = "tensorflow-2.21.0-cpu"
SMOKE = "CONFIG=configs/smoke.yaml"
WEIGHTS = "model.safetensors"
MACHINERY = ROOT / "tests" / "machinery"
TENSORFLOW = ROOT / "tests" / "tensorflow"
SHARED = ("best", "files", "interrupt", "manifest", "run", "saver")
"""Of the tests of the machinery, those of what a framework could break and that name none."""
ALSO_SHARED = ("auto_resume", "command_line", "compare", "config", "environment", "record")
ALSO_SHARED += ("results", "shell", "verify")
"""Further ones that are green here, of what no framework could break; they see faults."""


@pytest.fixture(scope="module")
def project(baked_real):
    """Set up and committed, with hostile text in the answers."""
    made = baked_real(stack=STACK).path
    commit(made)
    lent.set_up(made)
    return made


def run(project, *arguments, **variables):
    """A command of the project, in the caller's shell with these variables."""
    command = [project / ".venv/bin/python", *map(str, arguments)]
    environ = {**demo.environment(), **variables}
    return subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True)


def pytest_in(folder):
    """pytest by the project's own settings, with the tests of a folder of the template."""
    command = ["-m", "pytest", "-c", "pyproject.toml", "--rootdir", ".", "--confcutdir", folder]
    return [*command, "-p", "no:cacheprovider"]


def copy_of(project, folder):
    """Its files outside git, with the same environment."""
    left_out = (".venv", ".envs", ".git", "outputs", "__pycache__", ".pytest_cache")
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns(*left_out))
    (folder / ".venv").symlink_to((project / ".venv").resolve())
    return folder


def the_error(done):
    """The one line that a refusal prints."""
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    return line


def test_it_trains_verifies_and_compares(project):
    """`make train verify`, again with threads, by segments; the same bits, whoever asks."""
    assert make(project, "train", "verify", SMOKE).splitlines()[-1] == "IDENTICAL"
    make(project, "train", SMOKE, "ARGS=data.num_workers=4")
    assert make(project, "compare").splitlines()[-1] == "IDENTICAL"
    done = run(project, "-m", "real", "verify", "--segments", "2")
    assert done.stdout.splitlines()[-1] == "IDENTICAL", done.stderr
    (newest, *_) = json.loads(run(project, "-m", "real", "runs", "--json").stdout)
    assert newest["metrics"].keys() == {"test_loss", "test_accuracy"}


def test_its_own_checks_are_green(project):
    """`make check`: style, its tests, which kill, resume and disturb it, and the doctor."""
    output = make(project, "check")
    assert "All checks passed!" in output
    assert "items, 0 fail" in output


def test_the_machinery_keeps_its_promises(project):
    """The tests of files that both frameworks share; the framework is loaded once for all."""
    files = [MACHINERY / f"test_{name}.py" for name in SHARED]
    done = run(project, *pytest_in(MACHINERY), *files)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_the_framework_keeps_its_promises(project):
    """Seeds and switches, checkpoints, loading: what only this framework's folder does."""
    done = run(project, *pytest_in(TENSORFLOW), TENSORFLOW)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def test_nobodys_keras_has_a_say(project, tmp_path):
    """A keras.json in the home, another backend, precision, threads and kernels in the shell: the
    same bits, and nothing is written into the home."""
    plain, odd = tmp_path / "plain", tmp_path / "odd"
    command = ("train.py", "--config", "configs/smoke.yaml", "--run-dir")
    assert run(project, *command, plain).returncode == 0
    home = tmp_path / "home"
    (home / ".keras").mkdir(parents=True)
    settings = {"floatx": "float16", "backend": "jax", "image_data_format": "channels_first"}
    (home / ".keras" / "keras.json").write_text(json.dumps(settings))
    caller = {
        **{"HOME": str(home), "KERAS_BACKEND": "jax", "TF_USE_LEGACY_KERAS": "1"},
        **{"TF_NUM_INTRAOP_THREADS": "2", "TF_ENABLE_ONEDNN_OPTS": "0", "XLA_FLAGS": "--no-such"},
        **{"ONEDNN_MAX_CPU_ISA": "SSE41", "TF_DETERMINISTIC_OPS": "0", "OMP_NUM_THREADS": "2"},
    }
    done = run(project, *command, odd, **caller)
    assert done.returncode == 0, done.stderr
    for name in ("steps.jsonl", "metrics.csv", "model.safetensors"):
        assert (plain / name).read_bytes() == (odd / name).read_bytes(), name
    assert [path.name for path in (home / ".keras").iterdir()] == ["keras.json"]
    assert json.loads((home / ".keras" / "keras.json").read_text()) == settings
    recorded = json.loads((odd / "manifest.json").read_text())["determinism"]
    assert (recorded["keras_backend"], recorded["floatx"]) == ("tensorflow", "float32")
    assert (recorded["num_threads"], recorded["deterministic_algorithms"]) == (1, True)


def test_what_it_cannot_do_is_one_line(project, tmp_path):
    """A GPU that is not there, the portable profile, several processes; no run is left."""
    command = ("train.py", "--config", "configs/smoke.yaml", "--run-dir", tmp_path / "run")
    assert "TensorFlow 2.21.0 (a CPU build) sees no GPU" in the_error(
        run(project, *command, "training.device=cuda")
    )
    refused = the_error(run(project, *command, "determinism.profile=portable"))
    assert "determinism.profile must be one of fast" in refused
    launched = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    refused = the_error(run(project, *command, **launched))
    assert "torchrun started 2 processes, and a TensorFlow project trains in one" in refused
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        (
            "train.py",
            "loss, grad_norm = train_step(images, labels, np.float32(lr))",
            "loss, grad_norm = [*run.pieces((images, labels))][0]",
            "run.pieces is PyTorch's way; compute the whole batch in one tf.function",
        ),
        (
            "model.py",
            'features = layers.Flatten(name="flatten")(features)',
            'features = layers.Flatten(name="flatten")(features)\n'
            '    twin = keras.Sequential([layers.Dense(4, name="x")], name="a")(features)\n'
            '    twin = keras.Sequential([layers.Dense(4, name="x")], name="b")(features) + twin',
            "",
        ),
        (
            "train.py",
            "@tf.function\n    def step",
            "@tf.function(jit_compile=True)\n    def step",
            "",
        ),
        ("train.py", "model=model,", "model=model, images=data,", "lacks state_dict"),
    ],
)
def test_a_loop_that_does_what_cannot_be_repeated_is_told_so(
    project, tmp_path, file, old, new, told
):
    """In a copy of the project; where it is allowed, two runs of it are equal."""
    copied = copy_of(project, tmp_path / "copied")
    path = copied / "src" / "real" / file
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    commit(copied)
    runs = []
    for name in ("a", "b"):
        command = ("train.py", "--config", "configs/smoke.yaml", "--run-dir", tmp_path / name)
        runs.append(run(copied, *command))
    if told:
        assert told in the_error(runs[0])
    elif runs[0].returncode == 0:
        logs = [(tmp_path / name / "steps.jsonl").read_bytes() for name in ("a", "b")]
        assert logs[0] == logs[1]
    else:
        # XLA has no deterministic gradient of max-pooling; the error is TensorFlow's own.
        assert "deterministic" in runs[0].stderr


def test_a_checkpoint_of_the_other_framework_is_refused(project, tmp_path, baked_real):
    """Whatever is found in the folder of checkpoints, it is named, and nothing is lost."""
    run_dir = tmp_path / "run"
    command = ("train.py", "--config", "configs/smoke.yaml", "--run-dir", run_dir, "--stop-at", "6")
    assert run(project, *command).returncode == 0
    for path in (run_dir / "checkpoints").iterdir():
        path.write_bytes(b"PK\x03\x04 what torch.save writes")
    assert "is not a whole checkpoint" in the_error(run(project, "train.py", "--resume", run_dir))
    assert len((run_dir / "steps.jsonl").read_text().splitlines()) == 6


def test_another_framework_is_another_lock(project):
    """A lock with torch in TensorFlow's place, or with the CUDA build in the CPU environment."""
    lock = project / "requirements" / "cpu.txt"
    text = lock.read_text()
    check = ("environment/check.py", "--environment", "cpu")
    try:
        lock.write_text(text.replace("tensorflow-cpu==", "torch=="))
        assert "tensorflow is not in it, and must be 2.21.0" in run(project, *check).stderr
        here = "tensorflow==2.21.0 ; (platform_machine == 'aarch64' and sys_platform == 'linux')"
        assert here in text
        everywhere = text.replace(here, "tensorflow==2.21.0 ; (sys_platform == 'linux')")
        lock.write_text(everywhere.replace("tensorflow-cpu==", "unrelated=="))
        assert "is the CUDA build here, and must be tensorflow-cpu" in run(project, *check).stderr
    finally:
        lock.write_text(text)
    assert REAL_STACK.startswith("torch-")


def planted(project, fault, copy):
    """Whether the tests see a fault that is planted in a copy of the project."""
    copy_of(project, copy)
    if fault:
        path = copy / "src" / "real" / fault.file
        text = path.read_text().replace(fault.old, fault.new)
        compile(text, fault.name, "exec")  # code that no Python reads would turn every test red
        path.write_text(text)
    # The tests of the very file first: most faults are found in seconds.
    file = Path(fault.file) if fault else Path()
    machinery = [MACHINERY / f"test_{name}.py" for name in (*SHARED, *ALSO_SHARED)]
    first = [MACHINERY / seen_in(fault)] if "repro" in file.parts else []
    first = [path for path in first if path in machinery]
    own = f"tests/test_{file.stem}.py"
    quick, slow = "tests/test_quality.py", "tests/test_reproducibility.py"
    rest = ["tests", f"--ignore={quick}", f"--ignore={slow}"]
    rest += ["--deselect=tests/test_expected.py::test_a_fresh_run_comes_to_them"]
    suites = (
        *([["-m", "pytest", own]] if (copy / own).is_file() else []),
        *([[*pytest_in(MACHINERY), *first]] if first else []),
        [*pytest_in(TENSORFLOW), TENSORFLOW],
        *(["-m", "pytest", *which] for which in ([quick], rest, [slow])),
        [
            *pytest_in(MACHINERY),
            *(MACHINERY / f"test_{name}.py" for name in (*SHARED, *ALSO_SHARED)),
        ],
    )
    for suite in suites:
        done = run(copy, *suite, "-x", PYTHONPATH=str(copy / "src"))
        assert done.returncode in (0, 1), done.stdout[-3000:] + done.stderr[-2000:]
        if done.returncode:
            break
    shutil.rmtree(copy)
    name = fault.name if fault else "no fault"
    print("red  " if done.returncode else "GREEN", name, flush=True)
    return bool(done.returncode)


NEVER_EXECUTED = (
    "every rank takes the whole batch's first share",
    "the portable profile sets nothing",
    "the optimizer starts afresh",
    "the optimizer starts afresh, and nobody looks",
    "the weights start afresh, and nobody looks",
)
"""Their place is here, too: a single process has no ranks, and this framework no such profile; the
states of Keras's objects go another way, whose faults are among its own."""


def faults(project):
    """Those that have a place in a project of this framework, and are executed there."""
    texts = {path: path.read_text() for path in (project / "src" / "real").rglob("*.py")}
    source = {path.relative_to(project / "src" / "real").as_posix(): t for path, t in texts.items()}
    shared = [fault for fault in FAULTS if source.get(fault.file, "").count(fault.old) == 1]
    for fault in OWN:
        assert source[fault.file].count(fault.old) == 1, fault.name
    assert {fault.name for fault in shared} >= {*NEVER_EXECUTED}
    executed = (fault for fault in shared if fault.name not in NEVER_EXECUTED)
    return [*OWN, *(fault for fault in executed if fault.group != "ranks")]


def test_a_sample_of_the_faults_turns_the_tests_red(project, tmp_path):
    """Of at least sixty that have a place here; all are planted in the slow tier."""
    every = faults(project)
    assert len(every) >= 60
    missed = [
        f.name for n, f in enumerate(every[20::48]) if not planted(project, f, tmp_path / str(n))
    ]
    assert missed == []


def bits(run_dir):
    """What a run computed: its steps, its table, its weights."""
    return [(run_dir / name).read_bytes() for name in ("steps.jsonl", "metrics.csv", WEIGHTS)]


@pytest.mark.slow
def test_seeds_interpreters_threads_and_ten_kills_give_the_same_bits(project, tmp_path):
    """Three seeds in two interpreters each; 1, 2 and 4 parallel calls; SIGKILL after each of ten
    numbers of steps, and a resume."""
    long = ["train.py", "--config", "configs/smoke.yaml", "training.num_epochs=40"]
    long += ["record.checkpoint_every=7"]

    def train(name, *given, **variables):
        done = run(project, *long, "--run-dir", tmp_path / name, *given, **variables)
        assert done.returncode == 0, done.stderr
        return bits(tmp_path / name)

    whole = [train(f"seed {seed}", f"seed={seed}") for seed in range(3)]
    assert len({each[0] for each in whole}) == 3
    for seed in range(3):
        elsewhere = {"PYTHONHASHSEED": "7", "TZ": "Pacific/Apia", "OMP_NUM_THREADS": "1"}
        assert train(f"again {seed}", f"seed={seed}", **elsewhere) == whole[seed]
    for calls in (1, 2, 4):
        assert train(f"{calls} calls", "seed=0", f"data.num_workers={calls}") == whole[0]
    num_steps = whole[0][0].count(b"\n")
    for instant in range(10):
        run_dir = tmp_path / f"killed {instant}"
        command = [project / ".venv/bin/python", *long, "seed=0", "--run-dir", run_dir]
        running = subprocess.Popen(command, cwd=project, env=demo.environment())
        log = run_dir / "steps.jsonl"
        while not (log.exists() and log.read_bytes().count(b"\n") > num_steps * instant // 12):
            assert running.poll() is None, "it was done before it was killed"
        running.kill()
        running.wait()
        left = log.read_bytes().count(b"\n")
        assert left < num_steps
        done = run(project, "train.py", "--resume", run_dir)
        assert done.returncode == 0, done.stderr
        assert bits(run_dir) == whole[0], f"killed after {left} of {num_steps} steps"


@pytest.mark.slow
def test_every_fault_turns_the_tests_red(project, tmp_path):
    """And none is seen where there is none."""
    assert not planted(project, None, tmp_path / "sound")
    wanted = os.environ.get("FAULTS", "").split(",")
    every = [fault for fault in faults(project) if any(part in fault.name for part in wanted)]
    with ThreadPoolExecutor(2) as pool:
        seen = pool.map(lambda n: planted(project, every[n], tmp_path / str(n)), range(len(every)))
    missed = [fault.name for fault, red in zip(every, seen, strict=True) if not red]
    print(f"{len(every) - len(missed)} of {len(every)} seen; missed: {missed or 'none'}")
    assert len(missed) <= 0.05 * len(every), missed
