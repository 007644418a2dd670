"""Nothing in the calling shell affects a command, and no secret leaks from it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PACKAGE, ROOT, SMOKE, launcher, run
from real.config import Config
from real.repro import entry, shell
from real.repro.config.load import config_from_dict
from real.repro.env import load_env_file, resolve, wanted_environment
from real.repro.redact import without_secrets

CHOOSE = (
    *("OMP_THREAD_LIMIT", "OMP_PROC_BIND", "GOMP_SPINCOUNT", "KMP_AFFINITY", "MKL_DYNAMIC"),
    *("MKL_ENABLE_INSTRUCTIONS", "OPENBLAS_CORETYPE", "BLIS_NUM_THREADS", "DNNL_MAX_CPU_ISA"),
    *("ONEDNN_DEFAULT_FPMATH_MODE", "NPY_DISABLE_CPU_FEATURES", "ATEN_CPU_CAPABILITY"),
    *("SKLEARN_WORKING_MEMORY", "NUMEXPR_NUM_THREADS", "NVIDIA_TF32_OVERRIDE"),
    *("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUDNN_DETERMINISTIC", "TORCHINDUCTOR_MAX_AUTOTUNE"),
    *("PYTORCH_NO_CUDA_MEMORY_CACHING", "CUBLASLT_WORKSPACE_SIZE"),
)
LEFT = (
    *("CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF", "TORCH_HOME"),
    *("HOME", "PATH", "SLURM_JOB_ID"),
)


@pytest.mark.parametrize("name", CHOOSE)
def test_what_chooses_threads_kernels_or_precision_is_dropped(name, tmp_path, monkeypatch):
    """Whatever its value, from the shell and from `.env`."""
    config = config_from_dict(Config, {"seed": 0})
    assert wanted_environment(config, {name: "7"}).get(name, "") != "7"
    (tmp_path / ".env").write_text(f"{name}=7\n")
    monkeypatch.setattr(os, "environ", {})
    load_env_file(tmp_path / ".env")
    assert name not in os.environ


@pytest.mark.parametrize("name", LEFT)
def test_what_says_where_things_are_stays(name):
    """Which GPU, which folder, which job: no kernel is chosen by these."""
    assert name not in wanted_environment(config_from_dict(Config, {"seed": 0}), {name: "7"})


def test_what_is_preloaded_is_recorded():
    """An allocator or a library in front of others cannot be undone, so the record names it."""
    found = shell.recorded({"LD_PRELOAD": "a.so", "MALLOC_ARENA_MAX": "1", "OMP_PLACES": "cores"})
    assert found == {"LD_PRELOAD": "a.so", "MALLOC_ARENA_MAX": "1", "OMP_PLACES": "cores"}
    assert shell.recorded({"HOME": "/", "OMP_NUM_THREADS": "1"}) == {}


def test_other_peoples_modules_are_not_imported(tmp_path):
    """PYTHONPATH with a module of a library's name, and switches of Python: as without them."""
    for name in ("yaml", "dotenv", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('another one')\n")
    given = {"PYTHONPATH": str(tmp_path), "PYTHONOPTIMIZE": "2", "PYTHONINSPECT": "1"}
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, ROOT / "train.py", "--help"]
    plain, done = (
        subprocess.run(command, env=e, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        for e in (environ, environ | given)
    )
    assert (done.returncode, done.stdout) == (0, plain.stdout), done.stderr
    assert "training.learning_rate=" in done.stdout


def test_what_is_set_at_every_start_ends_in_one_line(tmp_path):
    """A wrapper around Python that sets a variable each time would be restarted for ever."""
    python = tmp_path / "python"
    script = f"import sys; sys.executable = {str(python)!r}; sys.orig_argv[0] = sys.executable\n"
    (tmp_path / "train.py").write_text(script + (ROOT / "train.py").read_text())
    python.write_text(f'#!/bin/sh\nOMP_PLACES=cores exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [python, tmp_path / "train.py", "--config", SMOKE, "--run-dir", tmp_path / "run"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert re.fullmatch(r"error: OMP_PLACES is set again whenever .* starts; .*\n", done.stderr)


def test_the_source_of_another_checkout_is_refused(tmp_path):
    """In a copy, the interpreter of the original would run the original's code: one line."""
    inside = tmp_path / "copy" / "src" / PACKAGE
    inside.mkdir(parents=True)
    (inside / "__main__.py").write_text("")
    (tmp_path / "copy" / "deep").mkdir()
    assert entry.other_checkout(tmp_path / "copy" / "deep") == tmp_path / "copy"
    assert entry.other_checkout(tmp_path) is None
    assert entry.other_checkout(ROOT / "tests") is None
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", PACKAGE, "doctor"]
    done = subprocess.run(
        command, cwd=tmp_path / "copy" / "deep", env=environ, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: the working directory is in {tmp_path / 'copy'}")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell closes the streams")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_reason_to_fail(closed, tmp_path):
    """cron and daemons have none: the command answers by its exit code, and no file gets output."""
    script = f'exec "$0" -m {PACKAGE} compare nothing nowhere {closed}'
    done = subprocess.run(["/bin/sh", "-c", script, sys.executable], cwd=ROOT, capture_output=True)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_output_that_cannot_be_written_is_one_line():
    """A full disk behind `>`: the exit code says so, and one line on stderr."""
    command = [sys.executable, "-m", PACKAGE, "doctor"]
    for buffering in ({}, {"PYTHONUNBUFFERED": "1"}):
        environ = {**os.environ, "PYTHONUNBUFFERED": "", **buffering}
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                command, cwd=ROOT, env=environ, stdout=full, stderr=subprocess.PIPE, text=True
            )
        assert done.returncode in (1, 2)
        assert re.fullmatch("error: .*No space left on device\n", done.stderr)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:pass@host/x", "https://host/x"),
        ("at https://TOKEN@host:8080/x?a=1 and", "at https://host:8080/x?a=1 and"),
        ("https://host/x?token=abc&b=2", "https://host/x?token=***&b=2"),
        ("ssh://git@host/x.git 'http://u:p@h'", "ssh://host/x.git 'http://h'"),
        ("https://host/@scope/x", "https://host/@scope/x"),
        ("someone@example.org", "someone@example.org"),
    ],
)
def test_no_address_is_shown_with_its_password(text, shown):
    """User, password and token are removed; the rest stays recognizable."""
    assert without_secrets(text) == shown


def test_a_password_gets_into_no_record(tmp_path):
    """In the configuration it would: refused; what the shell and `.env` say is not recorded."""
    config = config_from_dict(
        Config, {"seed": 0, "tracking": {"mlflow_uri": "http://u:secret@host"}}
    )
    with pytest.raises(ValueError, match="holds a user or password") as error:
        resolve(config, {})
    assert "secret" not in str(error.value)
    done = run("train", "--config", "none.yaml", "tracking.mlflow_uri=http://u:secret@host")
    assert "secret" not in done.stderr


def test_the_two_interpreters_really_differ():
    """Hash seed and memory: what is proved on the second is proved in other surroundings."""
    seen = [launcher(other).run("doctor", "--json").marks for other in (False, True)]
    assert seen[0]["hash"] != seen[1]["hash"]
    assert seen[0]["zone"] != seen[1]["zone"]
    assert (seen[0]["memory"], seen[1]["memory"]) == (None, "165")
