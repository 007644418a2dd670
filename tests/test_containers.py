"""Images that are really built and services that really run, in an engine of the tests' own.

What no registry gives here has a stand-in: Debian for the base image, uv's wheel for its image.
Everything else is what a user gets, by the commands that a user types.
"""

import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import CHOICES, REAL_STACK, ROOT, commit, free_port

import template_logic as logic
from tools import demo, engine, pytorch_index, stand_ins
from tools.stand_ins import OVERRIDE, UV

pytestmark = pytest.mark.containers

FOLDER = ROOT / "build" / "engine"
TOKEN = "a-secret-that-no-layer-holds"
RESULT_FILES = ("steps.jsonl", "metrics.csv", "model.safetensors")
BROWSER = [
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--virtual-time-budget=20000"),
]


@pytest.fixture(scope="session")
def containers():
    """Variables under which `make docker` and `make up` find an engine, images and indexes."""
    with stand_ins.ready(FOLDER, REAL_STACK) as environ:
        yield environ


def make(project, *arguments, environ, fails=False):
    """Run make as a user does; the output, or on failure its one line."""
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


@pytest.fixture(scope="session")
def built(baked_real, containers):
    """A project of pip with its CPU image, and what building it said."""
    project = baked_real(dependency_manager="pip", project_slug="boxed").path
    ports = prepare(project)
    docker_args = "DOCKER_ARGS=--network=host --progress=plain"
    begin = time.monotonic()
    output = make(project, "docker", "ACCELERATOR=cpu", docker_args, environ=containers)
    facts = {"project": project, "image": "boxed:cpu", "output": output, "args": docker_args}
    return SimpleNamespace(**facts, **ports, environ=containers, seconds=time.monotonic() - begin)


def in_image(built, *command, outputs, image=None, **how):
    """Run the image as its documentation says, with a folder for what it writes."""
    outputs.mkdir(exist_ok=True)
    os.chown(outputs, *[getattr(built, "user", 1000)] * 2)
    mount = f"{outputs}:/app/outputs"
    options = ["run", "--rm", "--init", "--volume", mount, image or built.image]
    return docker(*options, *command, environ=built.environ, **how)


def the_run(outputs):
    (run,) = [path.parent for path in outputs.glob("*/manifest.json")]
    return run


# --- images -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("manager", "stack", "user"),
    [("uv", REAL_STACK.replace("cpu", "cu130"), 4321), ("poetry", REAL_STACK, 1000)],
)
def test_other_managers_build_an_image_that_trains_and_verifies(
    baked_real, containers, tmp_path, manager, stack, user
):
    """From their own locks, by the same stages; for a stack with CUDA, and as another user, too."""
    project = baked_real(
        dependency_manager=manager, stack=stack, project_slug=f"boxed-{manager}"
    ).path
    prepare(project)
    arguments = ["docker", "ACCELERATOR=cpu", "DOCKER_ARGS=--network=host"]
    numbers = {"HOST_UID": str(user), "HOST_GID": str(user)}
    make(project, *arguments, environ={**containers, **numbers})
    outputs = tmp_path / "outputs"
    own = SimpleNamespace(image=f"boxed-{manager}:cpu", environ=containers, user=user)
    in_image(own, "train.py", "--config", "configs/smoke.yaml", outputs=outputs)
    done = in_image(own, "-m", f"boxed_{manager}", "verify", outputs=outputs)
    assert done.stdout.splitlines()[-1] == "IDENTICAL"
    assert the_run(outputs).stat().st_uid == user
    docker("image", "rm", own.image, environ=containers)


def test_the_image_trains_as_an_ordinary_user_and_verifies(built, tmp_path):
    """Not root, its code read-only; the second time the bits are the same."""
    outputs = tmp_path / "outputs"
    in_image(built, "train.py", "--config", "configs/baseline.yaml", outputs=outputs)
    done = in_image(built, "-m", "boxed", "verify", outputs=outputs)
    assert done.stdout.splitlines()[-1] == "IDENTICAL"
    assert the_run(outputs).stat().st_uid == 1000
    probe = "import os; print(os.getuid()); open('/app/train.py', 'a')"
    refused = in_image(built, "-c", probe, outputs=outputs, check=False)
    assert refused.stdout == "1000\n"
    assert "Permission denied: '/app/train.py'" in refused.stderr


@pytest.fixture(scope="session")
def environment(built):
    """The same project's environment without a container; the variables that it was made with."""
    names = [name for name in built.environ if name.startswith("PYTORCH_INDEX")]
    environ = {**demo.environment(), **{name: built.environ[name] for name in names}}
    make(built.project, "setup", "ACCELERATOR=cpu", environ=environ)
    return environ


def test_inside_and_outside_give_the_same_bits(built, environment, tmp_path):
    """A run in the image and one of this machine's environment; what differs is named."""
    outputs = tmp_path / "outputs"
    in_image(built, "train.py", "--config", "configs/baseline.yaml", outputs=outputs)
    inside = the_run(outputs)
    python = built.project / ".venv/bin/python"
    outside = tmp_path / "outside"
    train = [python, "train.py", "--config", "configs/baseline.yaml", "--run-dir", outside]
    subprocess.run(train, cwd=built.project, env=environment, check=True, capture_output=True)
    compare = [python, "-m", "boxed", "compare", inside, outside, "--json"]
    done = subprocess.run(compare, cwd=built.project, capture_output=True, text=True)
    answer = json.loads(done.stdout)
    assert answer["identical"] is True
    # pip comes with a virtual environment and has no place in the image; the C library may differ.
    assert {c["key"] for c in answer["causes"]} <= {"packages.pip", "platform"}


def test_the_image_runs_read_only_as_a_user_whom_it_does_not_know(built, tmp_path):
    """As clusters run it (Apptainer, a hardened Kubernetes): only the outputs are writable."""
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    os.chown(outputs, 4321, 4321)
    options = ["run", "--rm", "--read-only", "--tmpfs", "/tmp", "--user", "4321:4321"]
    options += ["--cap-drop", "ALL", "--volume", f"{outputs}:/app/outputs", built.image]
    train = ["train.py", "--config", "configs/smoke.yaml", "data.num_workers=2"]
    docker(*options, *train, environ=built.environ)
    done = docker(*options, "-m", "boxed", "verify", environ=built.environ)
    assert done.stdout.splitlines()[-1] == "IDENTICAL"


def test_the_image_holds_nothing_that_builds(built):
    """No compiler, no pip of either Python, no uv, no repository, no tests."""
    names = "gcc cc uv pip git make curl"
    shell = f"for each in {names}; do command -v $each; done; ls -A /app"
    shell += "; find / -path /proc -prune -o -name 'pip*' -path '*/bin/*' -print"
    shell += "; for python in /opt/venv/bin/python /opt/python/*/bin/python3; do"
    shell += " $python -m pip --version && echo /bin/; done; true"
    done = docker(
        "run", "--rm", "--entrypoint", "sh", built.image, "-c", shell, environ=built.environ
    )
    assert not set(done.stdout.split()) & {".git", ".env", "Dockerfile", "tests"}
    assert "train.py" in done.stdout.split()
    assert done.stderr.count("No module named pip") >= 2
    assert "/bin/" not in done.stdout


def test_the_image_says_what_it_is(built, tmp_path):
    """Revision, date and lock in the labels; a run in it records the same."""
    done = docker("inspect", built.image, environ=built.environ)
    (facts,) = json.loads(done.stdout)
    labels = facts["Config"]["Labels"]
    git = ["git", "-C", str(built.project), "log", "-1", "--format=%H %ct"]
    sha, seconds = subprocess.check_output(git, text=True).split()
    assert labels["org.opencontainers.image.revision"] == sha
    created = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(seconds)))
    assert labels["org.opencontainers.image.created"] == f"{created}+00:00"
    assert facts["Created"].startswith(created)
    assert labels["repro.python"] == platform.python_version()
    inside = docker("run", "--rm", built.image, "-V", environ=built.environ).stdout
    assert inside.split()[1] == labels["repro.python"]
    assert labels["repro.stack"] == REAL_STACK
    assert labels["repro.torch"] == logic.stack(REAL_STACK)["torch"]
    outputs = tmp_path / "outputs"
    in_image(built, "train.py", "--config", "configs/smoke.yaml", outputs=outputs)
    manifest = json.loads((the_run(outputs) / "manifest.json").read_text())
    assert manifest["environment"]["lock_sha256"] == labels["repro.lock-sha256"]
    assert manifest["code"]["commit"] == sha
    assert manifest["code"]["dirty"] is False


def test_a_change_of_code_installs_nothing_again(built):
    """Only the last layer is new, and the run knows that its code is no commit's."""
    model = built.project / "src/boxed/model.py"
    text = model.read_text()
    model.write_text(f"{text}\n# a change\n")
    arguments = [built.args, "ACCELERATOR=cpu"]
    command = ["make", "docker", *arguments, f"PYTHON={sys.executable}"]
    done = subprocess.run(
        command, cwd=built.project, env=built.environ, capture_output=True, text=True
    )
    model.write_text(text)
    steps = dict(re.findall(r"^#(\d+) \[(environment \d)", done.stdout, re.MULTILINE))
    assert len(steps) == 2, done.stdout
    cached = set(re.findall(r"^#(\d+) CACHED", done.stdout, re.MULTILINE))
    assert set(steps) <= cached
    label = '{{index .Config.Labels "org.opencontainers.image.revision"}}'
    said = docker("inspect", "--format", label, built.image, environ=built.environ).stdout
    assert said.strip().endswith("-dirty")
    make(built.project, "docker", *arguments, environ=built.environ)


def test_a_commit_built_again_is_the_same_image(built, tmp_path):
    """From a fresh clone and without the cache: the same digest, layers, dates and all."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", built.project, clone], check=True)
    name = "{{.Id}}"
    before = docker("inspect", "--format", name, built.image, environ=built.environ).stdout
    make(clone, "docker", f"{built.args} --no-cache", "ACCELERATOR=cpu", environ=built.environ)
    assert docker("inspect", "--format", name, built.image, environ=built.environ).stdout == before


def test_a_lock_that_was_edited_is_refused_while_building(built, tmp_path):
    """One digit of a hash: one line that says which package is not the lock's."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", built.project, clone], check=True)
    lock = clone / "requirements/cpu.txt"
    hashes = re.search(r"^tqdm==(?:.*\\\n)+.*$", lock.read_text(), re.MULTILINE)[0]
    other = re.sub(r"(sha256:)(.)", lambda m: m[1] + ("1" if m[2] == "0" else "0"), hashes)
    lock.write_text(lock.read_text().replace(hashes, other))
    said = make(clone, "docker", built.args, "ACCELERATOR=cpu", environ=built.environ, fails=True)
    assert said == "error: a file is not the one that the lock names (sha256): tqdm==4.70.1"


def test_a_mirrors_password_is_in_no_layer(built, tmp_path):
    """An index that wants one: refused without it; with it, the image is the one from before."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", built.project, clone], check=True)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login reader password s3cret-word\n")
    inspect = ["inspect", "--format", "{{.Id}}", built.image]
    before = docker(*inspect, environ=built.environ).stdout
    with pytorch_index.serve_pypi("2999-01-01", login="reader:s3cret-word") as address:
        environ = {**built.environ, "PACKAGE_INDEX": address}
        arguments = ["docker", "ACCELERATOR=cpu"]
        make(clone, *arguments, built.args, environ=environ, fails=True)
        secret = f"{built.args} --secret id=netrc,src={netrc}"
        said = make(clone, *arguments, secret, environ=environ)
    assert "s3cret-word" not in said
    assert docker(*inspect, environ=built.environ).stdout == before


def test_the_editors_container_is_the_trainer(built, tmp_path):
    """The development container's compose files start, see this folder, and `make` works there."""
    environ = {**built.environ, "ACCELERATOR": "cpu"}
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", built.project, clone], check=True)
    (clone / "compose.override.yaml").write_text(OVERRIDE)
    files = ["compose.yaml", "compose.override.yaml", ".devcontainer/compose.yaml"]
    compose = ["compose", *(word for name in files for word in ("--file", name))]
    facts = json.loads((clone / ".devcontainer/devcontainer.json").read_text())
    subprocess.run(facts["initializeCommand"], shell=True, cwd=clone, check=True)
    subprocess.run(["chown", "-R", "1000:1000", clone], check=True)
    docker(*compose, "build", "trainer", environ=environ, cwd=clone)
    options = ["run", "--rm", "--no-deps", "--entrypoint", "make", "trainer"]
    lint = docker(*compose, *options, "lint", environ=environ, cwd=clone)
    assert "All checks passed!" in lint.stdout
    train = ["train", "verify", "CONFIG=configs/smoke.yaml"]
    done = docker(*compose, *options, *train, environ=environ, cwd=clone)
    assert done.stdout.splitlines()[-1] == "IDENTICAL"
    docker(*compose, "--profile", "train", "down", environ=environ, cwd=clone)
    docker("image", "rm", "boxed-dev:cpu", environ=environ)


@pytest.mark.parametrize("stack", ["torch-2.14.1-cu130", "torch-2.13.0-cpu"])
@pytest.mark.parametrize("manager", CHOICES["dependency_manager"])
def test_compose_takes_the_files(containers, bake, manager, stack):
    """With and without a GPU, with the editor's file over them, and with nothing set at all."""
    project = bake(dependency_manager=manager, stack=stack, project_slug="probe")
    first = ["compose.yaml"]
    gpu = ["compose.yaml", "compose.gpu.yaml"]
    editor = ["compose.yaml", ".devcontainer/compose.yaml"]
    for files in [first, editor, *([gpu] if (project / gpu[1]).exists() else [])]:
        named = [word for name in files for word in ("--file", name)]
        profiles = ["--profile", "train", "--profile", "track", "--profile", "notebook"]
        config = ["config", "--format", "json"]
        done = docker("compose", *named, *profiles, *config, environ=containers, cwd=project)
        assert "WARN" not in done.stderr.upper()
        made = json.loads(done.stdout)["services"]
        assert made.keys() == {"trainer", "mlflow", "jupyter"}
        ports = [port for service in made.values() for port in service.get("ports", [])]
        assert [port["host_ip"] for port in ports] == ["127.0.0.1"] * 2
        for name in ("trainer", "jupyter"):
            assert int(made[name]["shm_size"]) == 2 << 30  # Docker's 64 MB are too few
        assert made["trainer"]["depends_on"]["mlflow"]["condition"] == "service_healthy"


# --- services ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def services(built):
    """All three, by `make up`, the run of the smoke configuration among them."""
    config = ["ACCELERATOR=cpu", "CONFIG=configs/smoke.yaml"]
    begin = time.monotonic()
    output = make(built.project, "up", *config, environ=built.environ)
    facts = {**vars(built), "output": output, "seconds": time.monotonic() - begin}
    facts["outputs"] = built.project / "outputs"
    yield SimpleNamespace(
        **facts,
        mlflow=f"http://127.0.0.1:{built.MLFLOW_PORT}",
        jupyter=f"http://127.0.0.1:{built.JUPYTER_PORT}",
    )
    make(built.project, "down", "ACCELERATOR=cpu", environ=built.environ)
    docker("volume", "rm", "boxed_mlflow", environ=built.environ)


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
    """Poll until `what()` is true; its value."""
    for _ in range(seconds * 10):
        if found := what():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s")


def exit_code(services, service):
    """Of a container that has ended, else nothing."""
    done = compose(services, "ps", "--all", "--format", "json", service)
    facts = json.loads(done.stdout.strip().splitlines()[0])
    return None if facts["State"] != "exited" else facts["ExitCode"]


def test_a_run_of_the_services_appears_in_mlflow(services):
    """Over HTTP: finished, with parameters, metrics and the manifest beside the model."""
    assert wait_for(lambda: exit_code(services, "trainer") is not None)
    assert exit_code(services, "trainer") == 0
    run = tracked(services)[0]
    assert run["info"]["status"] == "FINISHED"
    record = services.outputs / run["info"]["run_name"]
    manifest = json.loads((record / "manifest.json").read_text())
    metrics = {m["key"]: m["value"] for m in run["data"]["metrics"]}
    assert metrics["test_accuracy"] == manifest["results"]["metrics"]["test_accuracy"]
    params = {p["key"]: p["value"] for p in run["data"]["params"]}
    assert params["seed"] == "0"
    identity = run["info"]["run_id"]
    path = "path=model/manifest.json"
    status, sent = answer(f"{services.mlflow}/get-artifact?{path}&run_uuid={identity}")
    assert status == 200
    assert sent == (record / "manifest.json").read_bytes()


def test_a_model_is_registered_with_its_manifest(services):
    """`track --register` in the trainer's image; the version names the folder of both."""
    run = tracked(services)[0]
    record = f"outputs/{run['info']['run_name']}"
    command = ["run", "--rm", "trainer", "-m", "boxed", "track", record, "--register", "digits"]
    assert "registered: digits, version 1" in compose(services, *command).stdout
    _, found = answer(f"{services.mlflow}/api/2.0/mlflow/model-versions/search")
    (version,) = json.loads(found)["model_versions"]
    assert version["source"].endswith(f"{run['info']['run_id']}/artifacts/model")


def test_mlflow_answers_to_its_own_names_only(services):
    """Another Host header is refused; so are pages of other origins."""
    search = f"{services.mlflow}/api/2.0/mlflow/experiments/search"
    assert answer(search, {"max_results": 1})[0] == 200
    assert answer(search, {"max_results": 1}, {"Host": "evil.example"})[0] == 403
    assert answer(search, {"max_results": 1}, {"Origin": "http://evil.example"})[0] == 403


def test_jupyter_opens_with_the_token_only(services):
    """403 without, 200 with it."""
    assert answer(f"{services.jupyter}/api/status")[0] == 403
    assert answer(f"{services.jupyter}/api/status?token=wrong")[0] == 403
    assert answer(f"{services.jupyter}/api/status?token={TOKEN}")[0] == 200


def test_jupyter_does_not_start_without_a_token(services):
    """Neither with an empty one, whoever starts it."""
    for options in ([], ["--env", "JUPYTER_TOKEN="]):
        done = docker(
            "run", "--rm", *options, "boxed-jupyter:cpu", environ=services.environ, check=False
        )
        assert done.returncode == 2
        assert "error: JUPYTER_TOKEN is empty; set it in .env" in done.stderr


def test_the_notebook_runs_in_the_service(services):
    """On the runs that the trainer left; it compares the two newest."""
    compose(services, "run", "--rm", "trainer", "train.py", "--config", "configs/smoke.yaml")
    notebook = "/app/notebooks/explore_run.ipynb"
    execute = ["/opt/notebook/bin/python", "-m", "jupyter", "execute", "--output=/tmp/out.ipynb"]
    compose(services, "exec", "-T", "jupyter", *execute, notebook)
    done = compose(services, "exec", "-T", "jupyter", "cat", "/tmp/out.ipynb")
    cells = [cell for cell in json.loads(done.stdout)["cells"] if cell["cell_type"] == "code"]
    assert "IDENTICAL" in "".join(cells[-1]["outputs"][0]["text"])
    drawn = [o for cell in cells for o in cell["outputs"] if "image/png" in o.get("data", {})]
    assert len(drawn) == 2


def test_no_service_is_open_beyond_this_machine(services):
    """The published ports listen on loopback and on nothing else."""
    ports = {services.MLFLOW_PORT, services.JUPYTER_PORT}
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            address, state = line.split()[1], line.split()[3]
            host, port = address.split(":")
            if state == "0A" and int(port, 16) in ports:
                listening.add((host, int(port, 16)))
    assert listening == {("0100007F", port) for port in ports}


def test_mlflow_keeps_its_memory_sane(services):
    """Half a gigabyte, not the two and a half of its defaults."""
    name = compose(services, "ps", "--format", "{{.Name}}", "mlflow").stdout.strip()
    stats = ["stats", "--no-stream", "--format", "{{.MemUsage}}", name]
    used = docker(*stats, environ=services.environ).stdout.split("/")[0].strip()
    assert used.endswith("MiB"), used
    assert float(used.removesuffix("MiB")) < 512


@pytest.fixture(scope="session")
def browser():
    """Chromium, from Debian's packages where it is not there."""
    if not shutil.which("chromium"):
        engine.install("chromium")
    return BROWSER


def test_a_browser_shows_the_run(services, browser, tmp_path):
    """A page of MLflow as a person sees it: the run's name, a metric and its value."""
    run = tracked(services)[0]
    info = run["info"]
    value = next(m["value"] for m in run["data"]["metrics"] if m["key"] == "test_accuracy")
    page = f"#/experiments/{info['experiment_id']}/runs/{info['run_id']}"
    command = [*browser, f"--user-data-dir={tmp_path}", "--dump-dom", f"{services.mlflow}/{page}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    text = re.sub(r"<[^>]+>", " ", done.stdout)
    assert info["run_name"] in text
    assert "test_accuracy" in text
    assert str(value) in text


LONG = ["train.py", "--config", "configs/smoke.yaml", "--auto-resume"]
LONG += ["training.num_epochs=60", "training.checkpoint_every=10"]


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


def bits(run):
    return [(run / name).read_bytes() for name in RESULT_FILES]


def bits_so_far(run):
    with suppress(FileNotFoundError):
        return bits(run)


def test_a_trainer_that_was_killed_goes_on_when_it_is_started_again(services, long_run):
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


def test_mlflow_may_die_while_a_run_goes_on(services, long_run):
    """Training goes on to its end meanwhile, and says so once; when the server is back it gets
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
    assert said.count("training goes on") == 1
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


def test_the_notebook_is_served_without_a_container_too(built, environment, tmp_path):
    """`make notebook`: on loopback, by its token, and the starter notebook is there."""
    port = free_port()
    # The tests may be root, whom Jupyter refuses by itself, and have no screen.
    own = {"ServerApp": {"allow_root": True, "open_browser": False}}
    (tmp_path / "jupyter_server_config.json").write_text(json.dumps(own))
    settings = {"JUPYTER_TOKEN": TOKEN, "JUPYTER_PORT": str(port)}
    settings["JUPYTER_CONFIG_DIR"] = str(tmp_path)
    command = ["make", "notebook", "ACCELERATOR=cpu", f"PYTHON={sys.executable}"]
    server = subprocess.Popen(
        command,
        cwd=built.project,
        env={**environment, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}/api/contents"
    try:
        wait_for(lambda: server.poll() is not None or is_open(port), seconds=180)
        assert server.poll() is None, "make notebook ended"
        assert answer(address)[0] == 403
        status, listed = answer(f"{address}?token={TOKEN}")
        assert status == 200
        assert "explore_run.ipynb" in {each["name"] for each in json.loads(listed)["content"]}
        assert "IDENTICAL" in executed(built.project, environment, tmp_path)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def executed(project, environ, folder):
    """What the notebook's last cell prints about two runs, in the kernel of the environment."""
    environ = {**environ, "OUTPUT_DIR": str(folder / "outputs")}
    python = [project / ".venv/bin/python"]
    for _ in range(2):
        train = [*python, "train.py", "--config", "configs/smoke.yaml"]
        subprocess.run(train, cwd=project, env=environ, check=True, capture_output=True)
    execute = ["-m", "jupyter", "execute", f"--output={folder}/out.ipynb"]
    command = [*python, *execute, "notebooks/explore_run.ipynb"]
    subprocess.run(command, cwd=project, env=environ, check=True, capture_output=True)
    cells = json.loads((folder / "out.ipynb").read_text())["cells"]
    return "".join(cells[-1]["outputs"][0]["text"])


def is_open(port):
    """Whether something listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- a GPU's way in ---------------------------------------------------------------------------


def test_the_gpu_override_hands_the_gpu_on(built, services):
    """With a stand-in for NVIDIA's hook the container starts and is told which devices it has."""
    source = ROOT / "{{cookiecutter.project_slug}}/_overlays/__accelerator/cuda/compose.gpu.yaml"
    target = built.project / "compose.gpu.yaml"
    name = "{{ cookiecutter.project_slug | image_name }}"
    target.write_text(source.read_text().replace(name, "boxed"))
    docker("tag", built.image, "boxed:cuda", environ=built.environ)
    environ = {**built.environ, "ACCELERATOR": "cpu"}
    try:
        files = ["--file", "compose.yaml", "--file", "compose.gpu.yaml"]
        probe = "import os; print(os.environ['NVIDIA_VISIBLE_DEVICES'])"
        run = ["run", "--rm", "--no-deps", "trainer", "-c", probe]
        done = docker("compose", *files, *run, environ=environ, cwd=built.project)
    finally:
        target.unlink()
    assert done.stdout.strip() == "all"


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


# --- what goes wrong --------------------------------------------------------------------------


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


def test_a_folder_that_is_not_the_users_is_said_inside_too(built, tmp_path):
    """A container started by hand: one line, exit code 2, nothing written."""
    (tmp_path / "outputs").mkdir(mode=0o755)
    mount = f"{tmp_path}/outputs:/app/outputs"
    command = ["train.py", "--config", "configs/smoke.yaml"]
    options = ["run", "--rm", "--volume", mount, built.image]
    done = docker(*options, *command, environ=built.environ, check=False)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Permission denied" in errors[0]
    assert "user 1000" in errors[0]


def test_a_full_disk_loses_no_step_that_was_saved(built, tmp_path):
    """A real full one: one line, exit code 1; with room again the run ends in the same bits."""
    whole, small = tmp_path / "whole", tmp_path / "small"
    command = ["train.py", "--config", "configs/smoke.yaml", "training.checkpoint_every=1"]
    command += ["training.num_epochs=40", "training.keep_checkpoints=100"]
    in_image(built, *command, outputs=whole)
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,uid=1000,gid=1000", "tmpfs", str(small)]
    subprocess.run(mount, check=True)
    try:
        done = in_image(built, *command, outputs=small, check=False)
        assert done.returncode == 1, done.stderr[-2000:]
        run = f"outputs/{the_run(small).name}"
        advice = f"No space left on device for {run}; make room, then go on with train --resume"
        assert f"error: {advice} {run}" in re.sub(r"\[Errno \d+\] ", "", done.stderr)
        assert "Traceback" not in done.stderr
        subprocess.run(["mount", "-o", "remount,size=100m", str(small)], check=True)
        run = the_run(small)
        in_image(built, "train.py", "--resume", f"outputs/{run.name}", outputs=small)
        assert bits(run) == bits(the_run(whole))
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_no_layer_holds_a_secret(built, services, tmp_path):
    """Neither the token nor a mirror's address: in no layer, history or setting of any image."""
    secrets = [TOKEN.encode()]
    if "PYTORCH_INDEX_CPU" in built.environ:
        secrets.append(built.environ["PYTORCH_INDEX_CPU"].encode())
    for image in (built.image, "boxed-jupyter:cpu", "boxed-mlflow"):
        history = docker("history", "--no-trunc", image, environ=built.environ).stdout
        facts = docker("inspect", image, environ=built.environ).stdout
        archive = tmp_path / "image.tar"
        docker("save", "--output", archive, image, environ=built.environ)
        texts = [history.encode(), facts.encode(), *layer_files(archive)]
        archive.unlink()
        assert any(b"import" in text for text in texts), "the scan sees no file"
        for secret in secrets:
            assert not any(secret in text for text in texts), f"{image} holds {secret}"


def layer_files(archive):
    """The content of each small file in each layer; secrets are short."""
    with tarfile.open(archive) as whole:
        for member in filter(tarfile.TarInfo.isfile, whole):
            blob = whole.extractfile(member)
            with suppress(tarfile.ReadError), tarfile.open(fileobj=blob) as layer:
                for file in layer:
                    # What is compiled or compressed is the lock's.
                    if file.isfile() and file.size < 1 << 20 and not file.name.endswith(".pyc"):
                        yield layer.extractfile(file).read()
