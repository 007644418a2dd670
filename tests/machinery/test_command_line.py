"""The command line is quick, honest about bad input, and knows what the environment must hold."""

import os
import shutil
import subprocess
import sys

import pytest
import real.repro.cli as command_line
import real.train as train_module
from conftest import PACKAGE, ROOT, SMOKE, run
from real.__main__ import main
from real.config import Config
from real.repro.backend import facts
from real.repro.config.load import config_from_dict
from real.repro.env import load_env_file, resolve, wanted_environment

HEAVY = (facts.PACKAGES[0], "numpy", "sklearn", "matplotlib", "mlflow")


@pytest.mark.parametrize(
    "module",
    [
        *("__main__", "config", "repro.cli", "repro.proof.compare", "repro.doctor.items"),
        "repro.run.manifest",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(module):
    """`--help`, `compare` and `doctor` answer without loading a numerical library."""
    code = f"import {PACKAGE}.{module}, sys; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["train", "--config", "none.yaml"],
        ["train", "--config", SMOKE, "--seed", "-1"],
        ["train", "--config", SMOKE, "nonsense"],
        ["train", "--config", SMOKE, "data.num_workers=many"],
        ["train", "--resume", "no/such/run"],
        ["verify", "no/such/run"],
        ["compare", "no/such/run", "nor/this"],
        ["train", "--config", SMOKE, "seed=!!bool maybe"],
        ["train", "--config", SMOKE, "--seed", "abc"],
        ["train", "--bogus"],
        ["bogus"],
        ["runs", "--json", "--csv"],
        ["runs", "--sort"],
        [],
    ],
    ids=lambda a: " ".join(map(str, a[:1] + a[-1:])),
)
def test_bad_input_is_one_line_and_exit_code_two(arguments):
    """No traceback, nothing on stdout."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_refused_run_leaves_no_folder(tmp_path):
    """Not even the folders that its directory was to be in."""
    command = ["train", "--config", SMOKE, "--run-dir", tmp_path / "a" / "b" / "c"]
    done = run(*command, "training.global_batch_size=999999")
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_the_commands_that_follow_are_told_of_a_run_that_is_kept(tmp_path):
    """And not of one that a verification throws away, of which nobody looks at the curves either:
    `make verify verify` is about one run."""
    note, train = tmp_path / "last-run", ("train", "--config", SMOKE, "training.num_epochs=1")
    env = {"LAST_RUN_FILE": str(note)}
    kept = run(*train, "--run-dir", tmp_path / "kept", env=env)
    assert "done in" in kept.stderr
    scratch = run(*train, "--run-dir", tmp_path / "scratch", "--scratch", env=env)
    assert "done in" not in scratch.stderr
    assert note.read_text() == f"{tmp_path / 'kept'}\n"
    drawn = [(tmp_path / name / "curves.png").exists() for name in ("kept", "scratch")]
    assert drawn == [True, False]


@pytest.mark.parametrize("error", [RuntimeError("can't allocate memory"), MemoryError()], ids=repr)
def test_too_little_memory_is_one_line(monkeypatch, capsys, error):
    """Exit code 1, and which keys to lower; another error of that kind is a bug with its trace."""

    def fails(*arguments, **options):
        raise error

    monkeypatch.setattr(train_module, "train_model", fails)
    monkeypatch.setattr(command_line, "restart_with", lambda wanted: None)
    assert main(["train", "--config", str(SMOKE)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: out of memory; take a smaller model, or fewer samples a batch")
    error = RuntimeError("shapes do not match")
    with pytest.raises(RuntimeError, match="shapes"):
        main(["train", "--config", str(SMOKE)])


def test_overrides_may_stand_anywhere():
    """Before, between and after the options: what is wrong with the last one is found."""
    arguments = ["training.num_epochs=1", "--config", SMOKE, "model.width=4", "--seed", 3]
    done = run("train", *arguments, "model.dropout=2")
    assert done.returncode == 2
    assert "model.dropout must be at least 0 and at most 0.95, got 2" in done.stderr
    done = run("train", "model.dropout=3", *arguments)
    assert "model.dropout must be at least 0 and at most 0.95, got 3" in done.stderr


def test_what_is_no_override_is_refused():
    """An option that does not exist is named."""
    done = run("train", "--config", SMOKE, "--sed", "3")
    assert done.returncode == 2
    assert "--sed" in done.stderr


def test_train_py_is_the_same_command():
    """`python train.py` refuses what `python -m … train` refuses, in the same words."""
    command = [sys.executable, "train.py", "--config", "none.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == run("train", "--config", "none.yaml").stderr


def test_a_variable_of_the_env_file_cannot_choose_instructions(tmp_path, monkeypatch):
    """Such a line of `.env` is left out; the others are taken, and what is set already stays."""
    path = tmp_path / ".env"
    path.write_text("NVIDIA_TF32_OVERRIDE=1\nMKL_CBWR=AVX2\nTAKEN=yes\nKEPT=file\n")
    monkeypatch.setenv("KEPT", "shell")
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    monkeypatch.setenv("TAKEN", "")
    monkeypatch.delenv("TAKEN")
    load_env_file(path)
    assert os.environ["TAKEN"] == "yes"
    assert os.environ["KEPT"] == "shell"
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ
    monkeypatch.setenv("TAKEN", "")  # so that it is gone after the test


def test_missing_variables_are_all_named_at_once():
    """Every variable without a value or a default is in the one message."""
    tree = {"seed": 0, "paths": {"data_dir": "${A_DIR}", "output_dir": "${B_DIR}/x-${C:-c}"}}
    config = config_from_dict(Config, tree)
    with pytest.raises(ValueError, match="missing environment variables: A_DIR, B_DIR;"):
        resolve(config, {})
    paths, _ = resolve(config, {"A_DIR": "a", "B_DIR": "b"})
    assert (paths.data_dir, paths.output_dir) == ("a", "b/x-c")


def test_a_hash_seed_of_the_user_is_kept_and_threads_are_the_configs():
    """Only what is unset is filled in; the thread count belongs to the configuration."""
    config = config_from_dict(Config, {"seed": 0, "determinism": {"num_threads": 3}})
    wanted = wanted_environment(config, {"PYTHONHASHSEED": "5", "OMP_NUM_THREADS": "64"})
    assert wanted["PYTHONHASHSEED"] == "5"
    assert wanted["OMP_NUM_THREADS"] == "3"
    assert wanted_environment(config, {})["PYTHONHASHSEED"] == "0"


def test_an_unset_hash_seed_is_set_before_the_interpreter_starts(tmp_path):
    """The process that trains hashes strings with seed 0, whoever started it."""
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONHASHSEED"}
    code = (
        f"from {PACKAGE}.repro.entry import restart_with; "
        "restart_with({'PYTHONHASHSEED': '0'}); print(hash('reproducible'))"
    )
    results = {
        subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True).stdout
        for _ in range(3)
    }
    assert len(results) == 1
    assert results != {b""}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_an_env_file_that_is_a_pipe_is_refused(tmp_path):
    """Nobody may ever write into it."""
    os.mkfifo(tmp_path / ".env")
    done = subprocess.run(
        [sys.executable, "-m", PACKAGE, "runs", tmp_path],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: .env is not a file")


def test_an_env_file_may_begin_with_a_byte_order_mark(tmp_path):
    """Editors on Windows write one; its first variable is one like the others."""
    (tmp_path / ".env").write_text("\ufeffOUTPUT_DIR=elsewhere\n", encoding="utf-8")
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", PACKAGE, "runs"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert "elsewhere" in done.stdout, done.stderr


@pytest.mark.parametrize("flag", ["-E", "-I"])
def test_a_python_that_reads_no_variables_is_refused(flag):
    """Its hash seed would not be the one that is recorded."""
    command = [sys.executable, flag, str(ROOT / "train.py"), "--config", "configs/smoke.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: Python was started with -E or -I")


@pytest.mark.parametrize("name", [f"{facts.PACKAGES[0]}.py", "numpy/__init__.py", "secrets.py"])
def test_a_module_with_the_name_of_a_library_is_refused(tmp_path, name):
    """In the working directory, where Python looks first; one of another name is not in the way."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise SystemExit(7)\n")
    (tmp_path / "mine.py").write_text("")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").write_text("")
    command = [sys.executable, "-m", PACKAGE, "runs", tmp_path]
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    shadow = tmp_path / name.split("/")[0]
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: Python would import {shadow} in place of the library")
    assert len(done.stderr.splitlines()) == 1
    shutil.rmtree(shadow) if shadow.is_dir() else shadow.unlink()
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
