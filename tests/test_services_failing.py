"""Services that are killed, cut off, or cannot start: no data lost, and a line that says why."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest
from boxes import (
    FOLDER,
    RESULT_FILES,
    TOKEN,
    answer,
    bits,
    compose,
    docker,
    exit_code,
    in_image,
    make,
    the_run,
    tracked,
    wait_for,
)
from conftest import free_port

from tools import engine, stand_ins
from tools.stand_ins import OVERRIDE, UV

pytestmark = pytest.mark.containers


LONG = ["train.py", "--config", "configs/smoke.yaml", "--auto-resume"]
LONG += ["training.num_epochs=60", "record.checkpoint_every=10"]


@pytest.fixture
def long_run(services, tmp_path):
    """What the uninterrupted run gives, and the way to start the trainer with the same."""
    whole = tmp_path / "whole"
    outside = [argument for argument in LONG if argument != "--auto-resume"]
    in_image(services, *outside, outputs=whole)
    override = services.project / "compose.override.yaml"
    command = json.dumps(LONG)
    override.write_text(f"{OVERRIDE.replace('trainer: {', f'trainer: {{ command: {command},')}")
    yield [(the_run(whole) / name).read_bytes() for name in RESULT_FILES]
    override.write_text(OVERRIDE)


def newest(services):
    return max(services.outputs.glob("*/manifest.json"), key=lambda p: p.stat().st_mtime).parent


def start_trainer(services):
    """As `docker compose up` does it; the directory of its run when steps are written."""
    before = {path: path.stat().st_mtime_ns for path in services.outputs.glob("*/manifest.json")}
    compose(services, "up", "--detach", "trainer")

    def begun():
        for path in services.outputs.glob("*/manifest.json"):
            steps = path.parent / "steps.jsonl"
            if before.get(path) != path.stat().st_mtime_ns and steps.exists():
                return path.parent if len(steps.read_text().splitlines()) > 100 else None
        return None

    return wait_for(begun)


def bits_so_far(run):
    with suppress(FileNotFoundError):
        return bits(run)


def test_a_trainer_that_was_killed_resumes_when_it_is_started_again(services, long_run):
    """SIGKILL in mid-epoch, the same command: the same directory, the same bits."""
    run = start_trainer(services)
    compose(services, "kill", "--signal", "SIGKILL", "trainer")
    assert wait_for(lambda: exit_code(services, "trainer")) == 137
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["results"]["completed"] is False
    compose(services, "up", "--detach", "trainer")
    assert wait_for(lambda: exit_code(services, "trainer") == 0)
    assert newest(services) == run
    assert bits(run) == long_run
    ours = [r for r in tracked(services) if r["info"]["run_name"] == run.name]
    assert [r["info"]["status"] for r in ours] == ["FINISHED"]


def test_a_trainer_that_is_stopped_saves_first(services, long_run):
    """SIGTERM reaches Python: exit code 143, a checkpoint of the last step, equal bits later."""
    run = start_trainer(services)
    compose(services, "stop", "trainer")
    assert exit_code(services, "trainer") == 143
    steps = len((run / "steps.jsonl").read_text().splitlines())
    assert (run / "checkpoints" / f"step-{steps:08}.pt").exists()
    compose(services, "up", "--detach", "trainer")
    assert wait_for(lambda: exit_code(services, "trainer") == 0)
    assert bits(run) == long_run


def test_mlflow_may_die_during_a_run(services, long_run):
    """Training continues to its end meanwhile, and says so once; when the server is back it gets
    every step, once."""
    run = start_trainer(services)
    compose(services, "kill", "--signal", "SIGKILL", "mlflow")
    before = len((run / "steps.jsonl").read_text().splitlines())
    assert wait_for(lambda: bits_so_far(run) == long_run)
    assert before < len((run / "steps.jsonl").read_text().splitlines())
    compose(services, "up", "--detach", "--wait", "mlflow")
    assert wait_for(lambda: exit_code(services, "trainer") is not None) and (
        exit_code(services, "trainer") == 0
    )
    # As `make up` says, without its files and profiles.
    logs = ["compose", "logs", "--no-log-prefix", "trainer"]
    said = docker(*logs, environ=services.environ, cwd=services.project).stdout
    assert said.count("training continues") == 1
    assert bits(run) == long_run
    (ours,) = [r for r in tracked(services) if r["info"]["run_name"] == run.name]
    assert ours["info"]["status"] == "FINISHED"
    identity = ours["info"]["run_id"]
    query = f"run_id={identity}&metric_key=val_loss&max_results=1000"
    _, found = answer(f"{services.mlflow}/api/2.0/mlflow/metrics/get-history?{query}")
    sent = [(m["step"], m["value"]) for m in json.loads(found)["metrics"]]
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    column = rows[0].index("val_loss")
    assert sent == [(int(row[1]), float(row[column])) for row in rows[1:]]


def test_a_run_outlives_a_server_that_stays_away(services, tmp_path):
    """Exit code 0 and one line that says how to send it later, which then works."""
    outputs = tmp_path / "outputs"
    away = ["--env", "MLFLOW_TRACKING_URI=http://127.0.0.1:9", "--env", "TRACKING_PATIENCE=1"]
    outputs.mkdir()
    os.chown(outputs, 1000, 1000)
    options = ["run", "--rm", *away, "--volume", f"{outputs}:/app/outputs", services.image]
    done = docker(*options, "train.py", "--config", "configs/smoke.yaml", environ=services.environ)
    (advice,) = [x for x in done.stderr.splitlines() if "send it when the server is back" in x]
    command = advice.split("python ")[-1].split()
    moved = SimpleNamespace(**vars(services))
    moved.environ = {**services.environ, "OUTPUT_DIR": str(outputs)}
    compose(moved, "run", "--rm", "trainer", *command)
    assert tracked(services)[0]["info"]["run_name"] == the_run(outputs).name


def test_an_engine_without_nvidias_toolkit_is_explained(containers, built, tmp_path):
    """What such an engine says is told in one line that names the toolkit."""
    with engine.running(FOLDER / "plain", gpu=False, programs=FOLDER) as plain:
        stand_ins.make_uv(FOLDER, stand_ins.uv_program(FOLDER), UV, plain)
        run = ["run", "--rm", "--gpus", "all", "--network", "host", UV, "/uv"]
        said = docker(*run, environ=plain, check=False).stderr
    explained = explain(built.project, said)
    assert explained.startswith("the engine cannot hand on a GPU: install the NVIDIA Container")


def explain(project, said):
    """The line that `make up` ends with when the engine says this."""
    code = "import sys; from engine import why; print(why(sys.stdin.read(), [], {}))"
    environ = {**os.environ, "PYTHONPATH": str(project / "environment")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=said, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_no_engine_is_said(built, tmp_path):
    """Neither without docker, nor without an engine, nor without compose."""
    few = tmp_path / "bin"
    few.mkdir()
    for name in ("sh", "env", "sed", "tail", "id", "git", "awk", "mkdir", "test"):
        (few / name).symlink_to(shutil.which(name))
    tools = str(few)
    environ = {**built.environ, "PATH": tools}
    command = [shutil.which("make"), "up", "ACCELERATOR=cpu", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=built.project, env=environ, capture_output=True, text=True)
    assert "error: docker not found: install Docker Engine" in done.stderr
    away = {**built.environ, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    said = make(built.project, "up", "ACCELERATOR=cpu", environ=away, fails=True)
    assert said.startswith("error: no container engine answers; start it")
    said = make(built.project, "docker", "ACCELERATOR=cpu", environ=away, fails=True)
    assert said.startswith("error: no container engine answers; start it")
    bare = {**built.environ, "DOCKER_CONFIG": str(tmp_path)}
    if docker("compose", "version", environ=bare, check=False).returncode:
        said = make(built.project, "up", "ACCELERATOR=cpu", environ=bare, fails=True)
        assert said.startswith("error: docker has no compose plugin: install")


@contextmanager
def changed(path, text):
    """A file with another text, or without one, while the block runs."""
    before = path.read_text()
    path.unlink() if text is None else path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before)


def test_what_is_missing_for_the_services_is_said(built):
    """No .env, an empty token, a port that is taken or none, a folder that is not writable."""
    up = ["up", "ACCELERATOR=cpu"]
    env = built.project / ".env"
    text = env.read_text()
    with changed(env, None):
        said = make(built.project, *up, environ=built.environ, fails=True)
        assert said == "error: .env is missing: cp .env.example .env, then set JUPYTER_TOKEN"
    with changed(env, text.replace(TOKEN, "")):
        said = make(built.project, *up, environ=built.environ, fails=True)
        assert said.startswith("error: JUPYTER_TOKEN is empty; set it in .env")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with changed(env, re.sub("MLFLOW_PORT=.*", f"MLFLOW_PORT={port}", text)):
            said = make(built.project, *up, environ=built.environ, fails=True)
            assert said == f"error: port {port} is in use; set another MLFLOW_PORT in .env"
        commented = f"MLFLOW_PORT='{port}'  # theirs"
        with changed(env, re.sub("MLFLOW_PORT=.*", commented, text)):
            said = make(built.project, *up, environ=built.environ, fails=True)
            assert said == f"error: port {port} is in use; set another MLFLOW_PORT in .env"
    with changed(env, f"{text}\nHOST_UID=me\n"):
        said = make(built.project, *up, environ=built.environ, fails=True)
        assert said == "error: HOST_UID must be a number, such as 1000: 'me'"
    with changed(env, re.sub("MLFLOW_PORT=.*", "MLFLOW_PORT=http", text)):
        said = make(built.project, *up, environ=built.environ, fails=True)
        assert said == "error: MLFLOW_PORT must be a port, 1 to 65535, got 'http'"
    theirs = built.project / "theirs"
    theirs.mkdir(mode=0o755)
    with changed(env, re.sub("OUTPUT_DIR=.*", "OUTPUT_DIR=./theirs", text)):
        said = make(built.project, *up, environ=built.environ, fails=True)
    theirs.rmdir()
    assert "theirs is not writable by user 1000" in said
    assert f"sudo chown -R 1000:1000 {theirs}" in said
    said = make(built.project, "up", "ACCELERATOR=tpu", environ=built.environ, fails=True)
    assert said.startswith("error: ACCELERATOR is tpu; this project has cpu")


def test_another_checkouts_services_are_left_alone(built, services, tmp_path):
    """Of the same name, on the same engine: refused in one line; with another name it may start."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", built.project, clone], check=True)
    (clone / ".env").write_text(f"JUPYTER_TOKEN={TOKEN}\n")
    for verb in ("up", "down"):
        said = make(clone, verb, "ACCELERATOR=cpu", environ=built.environ, fails=True)
        assert said.startswith(f"error: services named boxed belong to {built.project}; make down")
    assert compose(services, "ps", "--quiet", "mlflow").stdout.strip()
    config = ["up", "ACCELERATOR=cpu", "CONFIG=configs/none.yaml"]
    named = {**built.environ, "COMPOSE_PROJECT_NAME": "other"}
    said = make(clone, *config, environ=named, fails=True)
    assert said == "error: CONFIG=configs/none.yaml is no file of this project"


def test_a_volume_of_another_user_is_said(built, services, tmp_path):
    """By `make up`, in the service's own words, which say what to do; what is in it stays."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", built.project, clone], check=True)
    (clone / "compose.override.yaml").write_text(OVERRIDE)
    lines = [f"JUPYTER_TOKEN={TOKEN}", "COMPOSE_PROJECT_NAME=theirs"]
    lines += [f"{name}={free_port()}" for name in ("MLFLOW_PORT", "JUPYTER_PORT")]
    (clone / ".env").write_text("\n".join(lines))
    make_theirs = "chown 0:0 /mlflow && echo theirs > /mlflow/note"
    options = ["run", "--rm", "--user", "0", "--volume", "theirs_mlflow:/mlflow"]
    options += ["--entrypoint", "sh", "boxed-mlflow", "-c"]
    docker(*options, make_theirs, environ=built.environ)
    try:
        said = make(clone, "up", "ACCELERATOR=cpu", environ=built.environ, fails=True)
        belongs = "the volume mlflow belongs to user 0, not to 1000: set HOST_UID in .env"
        assert said.startswith(f"error: mlflow did not start: {belongs}")
        make(clone, "down", "ACCELERATOR=cpu", environ=built.environ)
        kept = docker(*options, "cat /mlflow/note", environ=built.environ).stdout
        assert kept == "theirs\n"
    finally:
        make(clone, "down", "ACCELERATOR=cpu", environ=built.environ)
        docker("volume", "rm", "theirs_mlflow", environ=built.environ)
