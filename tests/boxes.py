"""How the tests of images and services use an engine, as users do: make, docker, HTTP.

What no registry provides here has a stand-in: Debian for the base image, uv's wheel for its image.
Everything else is what a user gets, by the commands that a user types.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

from conftest import ROOT, commit, free_port

from tools.stand_ins import OVERRIDE

FOLDER = ROOT / "build" / "engine"
TOKEN = "a-secret-that-no-layer-holds"
RESULT_FILES = ("steps.jsonl", "metrics.csv", "model.safetensors")


def make(project, *arguments, environ, fails=False):
    """Run make as a user does; return the output, or on failure its one line."""
    command = ["make", *arguments, f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True)
    if fails:
        assert done.returncode != 0, done.stdout
        errors = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
        assert len(errors) == 1, done.stderr
        assert "Traceback" not in done.stderr
        return errors[0]
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def docker(*arguments, environ, check=True, **how):
    done = subprocess.run(
        ["docker", *map(str, arguments)], env=environ, capture_output=True, text=True, **how
    )
    if check:
        assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


def prepare(project, **variables):
    """What a user writes into a fresh project: .env, and this machine's way to the network."""
    text = (project / ".env.example").read_text()
    ports = {"MLFLOW_PORT": free_port(), "JUPYTER_PORT": free_port()}
    for name, value in {"JUPYTER_TOKEN": TOKEN, **ports, **variables}.items():
        text, count = re.subn(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        assert count == 1
    (project / ".env").write_text(text)
    (project / "compose.override.yaml").write_text(OVERRIDE)
    commit(project)
    return ports


def in_image(built, *command, outputs, **how):
    """Run the image as its documentation says, with a folder for what it writes."""
    outputs.mkdir(exist_ok=True)
    os.chown(outputs, *[getattr(built, "user", 1000)] * 2)
    mount = f"{outputs}:/app/outputs"
    options = ["run", "--rm", "--init", "--volume", mount, built.image]
    return docker(*options, *command, environ=built.environ, **how)


def the_run(outputs):
    (run,) = [path.parent for path in outputs.glob("*/manifest.json")]
    return run


def bits(run):
    return [(run / name).read_bytes() for name in RESULT_FILES]


def compose(services, *arguments, check=True):
    files = ["--file", "compose.yaml", "--file", "compose.override.yaml"]
    profiles = ["--profile", "train", "--profile", "track", "--profile", "notebook"]
    environ = {**services.environ, "ACCELERATOR": "cpu"}
    command = ["compose", *files, *profiles, *arguments]
    return docker(*command, environ=environ, cwd=services.project, check=check)


def answer(url, body=None, headers=None):
    """Status and content of an address."""
    request = urllib.request.Request(
        url,
        json.dumps(body).encode() if body else None,
        {"Content-Type": "application/json", **(headers or {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def tracked(services, **tags):
    """The runs that MLflow has, newest first."""
    search = f"{services.mlflow}/api/2.0/mlflow/experiments/search"
    found = json.loads(answer(search, {"max_results": 100})[1])["experiments"]
    body = {"experiment_ids": [each["experiment_id"] for each in found]}
    return json.loads(answer(f"{services.mlflow}/api/2.0/mlflow/runs/search", body)[1])["runs"]


def wait_for(what, seconds=90):
    """Poll until `what()` is true, and return its value."""
    for _ in range(seconds * 10):
        if found := what():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s")


def exit_code(services, service):
    """The exit code of a container that has ended, else nothing."""
    done = compose(services, "ps", "--all", "--format", "json", service)
    facts = json.loads(done.stdout.strip().splitlines()[0])
    return None if facts["State"] != "exited" else facts["ExitCode"]
