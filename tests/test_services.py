"""Services that really run: found over HTTP and in a browser, and by nobody else."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from boxes import (
    TOKEN,
    answer,
    compose,
    docker,
    exit_code,
    tracked,
    wait_for,
)
from conftest import CHOICES, ROOT, free_port

from tools import engine

pytestmark = pytest.mark.containers
BROWSER = [
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--virtual-time-budget=20000"),
]


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


def test_a_run_of_the_services_appears_in_mlflow(services):
    """Over HTTP: finished, with parameters, metrics and the manifest beside the model."""
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
