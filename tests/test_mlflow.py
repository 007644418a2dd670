"""`make mlflow`: the real server without Docker, on the embedded database."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from conftest import free_port

from tools import demo

pytestmark = pytest.mark.containers  # the same pages as the service's, and as long to install


@pytest.fixture
def server(pip_project):
    """`make mlflow` in a project, when it answers: address and process group."""
    port = free_port()
    running = subprocess.Popen(
        ["make", "mlflow", f"PYTHON={sys.executable}"],
        cwd=pip_project,
        env={**demo.environment(), "MLFLOW_PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(900):
            assert running.poll() is None, "the server did not start"
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2)
                break
            except OSError:
                time.sleep(1)
        yield address, running.pid
    finally:
        os.killpg(running.pid, signal.SIGTERM)
        running.wait()


def test_a_run_appears_in_a_real_mlflow_server(pip_project, server):
    """Its parameters, metrics and record, over HTTP; half a gigabyte of memory is enough."""
    address, group = server
    environ = {**demo.environment(), "MLFLOW_TRACKING_URI": address}
    command = [".venv/bin/python", "train.py", "--config", "configs/smoke.yaml"]
    done = subprocess.run(command, cwd=pip_project, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "MLflow" not in done.stderr
    run_dir = Path(done.stdout.splitlines()[-1].removeprefix("run: "))
    found = post(f"{address}/api/2.0/mlflow/runs/search", {"experiment_ids": ["1"]})["runs"]
    assert [run["info"]["run_name"] for run in found] == [run_dir.name]
    assert found[0]["info"]["status"] == "FINISHED"
    params = {p["key"]: p["value"] for p in found[0]["data"]["params"]}
    assert params["seed"] == "0"
    metrics = {m["key"] for m in found[0]["data"]["metrics"]}
    assert {"train_loss", "val_loss", "val_accuracy", "test_accuracy"} <= metrics
    run_id = found[0]["info"]["run_id"]
    listing = urllib.request.urlopen(f"{address}/api/2.0/mlflow/artifacts/list?run_id={run_id}")
    names = {file["path"] for file in json.load(listing)["files"]}
    record = {"manifest.json", "config.yaml", "metrics.csv", "steps.jsonl", "curves.png"}
    assert names == record | {"model"}
    assert 50 << 20 < memory_of(group) < 512 << 20


def memory_of(group: int) -> int:
    """Bytes that a process group holds, shared pages once (Linux's PSS)."""
    total = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(entry.name)) == group:
                total += int((entry / "smaps_rollup").read_text().split("Pss:")[1].split()[0])
        except (OSError, IndexError):
            continue  # it ended meanwhile
    return total * 1024


def post(url: str, body: dict) -> dict:
    """One call of MLflow's REST interface."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)
