"""MLflow gets the whole run whatever happens to the server, and training does not notice.

The server here is a stand-in in memory, which can be cut off at any call.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
from conftest import PACKAGE, SMOKE, edit_manifest, run, train
from real.repro.run.logs import read_metrics
from real.repro.run.manifest import read_manifest
from real.repro.tracking import mlflow as mlflow_run
from real.repro.tracking.mlflow import RemoteRun, track

ADDRESS = "http://tracking.example:5000"
TAGGED = re.compile(r"tags\.`(.+?)` = (['\"])(.+?)\2")
NOBODY = "http://127.0.0.1:9"


class Server:
    """What MLflow's client does to its server, kept in memory; call number `fail_at` fails, or
    is done and its answer is lost."""

    def __init__(self):
        self.experiments, self.runs, self.models = {}, [], {}
        self.calls, self.fail_at, self.done_first = 0, None, False

    def __call__(self, uri):
        assert uri == ADDRESS
        return self

    def __getattribute__(self, name):
        if not name.startswith("_") and callable(getattr(Server, name, None)):
            self.calls += 1
            if self.calls == self.fail_at:
                return self._cut_off(super().__getattribute__(name))
        return super().__getattribute__(name)

    def _cut_off(self, call):
        def fails(*arguments, **options):
            if self.done_first:
                call(*arguments, **options)
            raise ConnectionError("cut off")

        return fails

    def get_experiment_by_name(self, name):
        return self.experiments.get(name)

    def create_experiment(self, name):
        self.experiments[name] = SimpleNamespace(experiment_id=name)
        return name

    def search_runs(self, experiments, query):
        wanted = {name: value for name, _, value in TAGGED.findall(query)}.items()
        assert len(wanted) == query.count("=") == 2
        found = [run for run in self.runs if run.experiment in experiments]
        return [run for run in found if wanted <= run.data.tags.items()]

    def create_run(self, experiment, *, start_time, run_name, tags):
        identity = f"{len(self.runs)}"
        info = SimpleNamespace(
            run_id=identity, status="RUNNING", artifact_uri=f"artifacts:/{identity}", end_time=None
        )
        data = SimpleNamespace(tags=dict(tags), params={}, metrics=set())
        created = SimpleNamespace(
            experiment=experiment, info=info, data=data, files={}, start_time=start_time
        )
        self.runs.append(created)
        return created

    def get_run(self, identity):
        return self.runs[int(identity)]

    def get_metric_history(self, identity, name):
        found = self.runs[int(identity)].data.metrics
        return [SimpleNamespace(step=step) for key, _, _, step in found if key == name]

    def log_batch(self, identity, metrics=(), params=(), tags=()):
        data = self.runs[int(identity)].data
        data.metrics |= {(m.key, m.value, m.timestamp, m.step) for m in metrics}
        data.tags |= {tag.key: tag.value for tag in tags}
        for param in params:
            assert data.params.setdefault(param.key, param.value) == param.value

    def log_artifact(self, identity, path, folder=None):
        file = Path(path)
        name = f"{folder}/{file.name}" if folder else file.name
        self.runs[int(identity)].files[name] = file.read_bytes()

    def update_run(self, identity, status):
        self.runs[int(identity)].info.status = status

    def set_terminated(self, identity, status, end_time=None):
        info = self.runs[int(identity)].info
        info.status, info.end_time = status, end_time

    def create_registered_model(self, name):
        if name in self.models:
            from mlflow.exceptions import RestException

            raise RestException({"error_code": "RESOURCE_ALREADY_EXISTS"})
        self.models[name] = []

    def search_model_versions(self, query):
        return self.models[query.split("= ")[1][1:-1]]

    def create_model_version(self, name, source, run_id, tags):
        versions = self.models[name]
        versions.append(
            SimpleNamespace(version=f"{len(versions) + 1}", source=source, run_id=run_id, tags=tags)
        )
        return versions[-1]


@pytest.fixture
def server(monkeypatch):
    stand_in = Server()
    monkeypatch.setattr(mlflow, "MlflowClient", stand_in)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ADDRESS)
    return stand_in


@pytest.fixture
def run_dir(smoke_run, tmp_path):
    """A finished run that a test may change."""
    return shutil.copytree(smoke_run, tmp_path / "run")


def content(server):
    """Everything a server has about its one run."""
    (only,) = server.runs
    return only.info, only.data, only.files, only.start_time


def test_a_run_arrives_whole(server, run_dir):
    """Parameters, every row at its step, results, the record, and the model with its manifest."""
    assert track(run_dir) == 0
    info, data, files, _ = content(server)
    manifest = read_manifest(run_dir)
    assert info.status == "FINISHED"
    assert data.params["training.global_batch_size"] == str(
        manifest["config"]["training"]["global_batch_size"]
    )
    assert data.tags["environment.lock_sha256"] == manifest["environment"]["lock_sha256"]
    assert data.tags["weights_sha256"] == manifest["results"]["weights_sha256"]
    sent = {(key, value, step) for key, value, _, step in data.metrics}
    for row in read_metrics(run_dir / "metrics.csv"):
        for column in ("train_loss", "val_loss", "val_accuracy", "learning_rate"):
            assert (column, float(row[column]), int(row["step"])) in sent
    results = manifest["results"]
    assert ("test_loss", results["metrics"]["test_loss"], results["num_steps"]) in sent
    record = {"manifest.json", "config.yaml", "metrics.csv", "steps.jsonl", "curves.png"}
    model = {"model/model.safetensors", "model/manifest.json", "model/config.yaml"}
    assert set(files) == record | model
    assert files["model/manifest.json"] == (run_dir / "manifest.json").read_bytes()


@pytest.mark.parametrize("done_first", [False, True], ids=["not done", "answer lost"])
def test_a_transfer_cut_off_at_any_call_is_made_up_for(server, run_dir, done_first):
    """After a retry, by the same process or another, the server has everything exactly once."""
    assert track(run_dir) == 0
    whole, calls = content(server), server.calls
    assert calls > 15
    for number in range(1, calls + 1):
        server.__init__()
        server.fail_at, server.done_first = number, done_first
        assert track(run_dir) == 1
        assert track(run_dir) == 0
        assert content(server) == whole, f"cut off at call {number}"


def test_what_is_there_is_not_sent_again(server, run_dir):
    """The second time only asks, and sends no data."""
    track(run_dir)
    (only,) = server.runs
    only.files.clear()
    before = set(only.data.metrics)
    assert track(run_dir) == 0
    assert not any(name.startswith("model/") for name in only.files)
    assert only.data.metrics == before


def test_a_run_of_the_same_name_is_another_run(server, run_dir, tmp_path):
    """With other code, data or configuration, the two runs do not mix."""
    name = read_manifest(run_dir)["run_id"]
    other = train(tmp_path / "other" / name, "--seed", 7)
    assert track(run_dir) == track(other) == 0
    first, second = server.runs
    assert first.data.params["seed"] == "0"
    assert second.data.params["seed"] == "7"
    for sent, folder in ((first, run_dir), (second, other)):
        weights = read_manifest(folder)["results"]["weights_sha256"]
        assert sent.data.tags["weights_sha256"] == weights
        assert sent.files["model/model.safetensors"] == (folder / "model.safetensors").read_bytes()


def test_rows_do_not_wait_for_a_store_of_files(server, run_dir, monkeypatch):
    """If it is full or unreachable, the numbers arrive all the same."""
    edit_manifest(run_dir, results={"completed": False})

    def full(self, identity, path, folder=None):
        raise OSError("no space left")

    monkeypatch.setattr(Server, "log_artifact", full)
    with pytest.raises(OSError, match="no space left"):
        RemoteRun(ADDRESS, run_dir).send("KILLED")
    info, data, files, _ = content(server)
    assert len([m for m in data.metrics if m[0] == "val_loss"]) == 2
    assert info.status == "KILLED"
    assert not files


def test_a_name_with_a_quotation_mark_is_one(server, smoke_run, tmp_path):
    """MLflow's filters have two kinds of quotes and no escape."""
    named = shutil.copytree(smoke_run, tmp_path / "it's")
    edit_manifest(named, run_id="it's")
    assert track(named) == track(named) == 0
    assert content(server)[0].status == "FINISHED"
    assert track(named, register="Anna's") == track(named, register="Anna's") == 0
    assert len(server.models["Anna's"]) == 1


def test_rows_that_wait_for_the_server_keep_their_time(server, run_dir, monkeypatch):
    """A row has the time at which it appeared, not that of its transfer."""
    text = (run_dir / "metrics.csv").read_text()
    first = text[: text.index("\n", text.index("\n") + 1) + 1]
    edit_manifest(run_dir, results={"completed": False})
    remote = RemoteRun(ADDRESS, run_dir)
    now = SimpleNamespace(time=lambda: 1000.0)
    monkeypatch.setattr(mlflow_run, "time", now)
    (run_dir / "metrics.csv").write_text(first.splitlines()[0] + "\n")
    remote.look()
    (run_dir / "metrics.csv").write_text(first)
    monkeypatch.setattr(mlflow_run, "_modified", lambda path: 1_000_000)
    remote.look()
    now.time = lambda: 2000.0
    (run_dir / "metrics.csv").write_text(text)
    remote.look()
    now.time = lambda: 9000.0
    remote.send()
    _, data, _, _ = content(server)
    assert {when for *_, when, _ in data.metrics} == {1_000_000, 2_000_000}


def test_a_run_that_was_stopped_resumes_as_the_same_run(server, run_dir):
    """KILLED, then resumed: running again, then finished, with every step once."""
    edit_manifest(run_dir, results={"completed": False})
    RemoteRun(ADDRESS, run_dir).send("KILLED")
    assert server.runs[0].info.status == "KILLED"
    edit_manifest(run_dir, results={"completed": False})
    RemoteRun(ADDRESS, run_dir).send()
    assert server.runs[0].info.status == "RUNNING"
    edit_manifest(run_dir, results={"completed": True})
    track(run_dir)
    info, data, _, _ = content(server)
    assert info.status == "FINISHED"
    assert len([m for m in data.metrics if m[0] == "val_loss"]) == 2


def test_a_registered_model_has_its_manifest_beside_it(server, run_dir, capsys):
    """The version points at the folder with both; registered again, it is the same version."""
    assert track(run_dir, register="digits") == 0
    assert track(run_dir, register="digits") == 0
    (version,) = server.models["digits"]
    assert version.source == "artifacts:/0/model"
    assert version.tags["weights_sha256"] == read_manifest(run_dir)["results"]["weights_sha256"]
    assert {"model/model.safetensors", "model/manifest.json"} <= set(server.runs[0].files)
    assert capsys.readouterr().out.count("registered: digits, version 1") == 2


def test_weights_that_are_not_the_manifests_are_not_registered(server, run_dir):
    """Nor is a run that has not ended; nothing reaches the server."""
    weights = run_dir / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match="weights"):
        track(run_dir, register="digits")
    edit_manifest(run_dir, results={"completed": False})
    with pytest.raises(ValueError, match="is not complete"):
        track(run_dir, register="digits")
    assert not server.runs


def test_no_server_named_is_said(run_dir, monkeypatch):
    """One line, with the variable to set."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    with pytest.raises(ValueError, match="set MLFLOW_TRACKING_URI"):
        track(run_dir)


@pytest.mark.parametrize(
    "address", ["http://user:s3cret@127.0.0.1:9", "http://:s3cret@127.0.0.1:9"]
)
def test_a_password_in_the_address_is_not_shown(run_dir, monkeypatch, capfd, caplog, address):
    """Neither by us nor in messages of the network."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert track(run_dir) == 1
    shown = caplog.text + "".join(capfd.readouterr())
    assert "127.0.0.1:9" in shown
    assert "s3cret" not in shown


@pytest.mark.parametrize("address", ["localhost:5000", "sqlite:///mlflow.db", "http://"])
def test_what_is_no_address_is_refused_before_training(tmp_path, address):
    """One line, exit code 2, no run directory."""
    environ = {"MLFLOW_TRACKING_URI": address}
    done = run("train", "--config", SMOKE, "--run-dir", tmp_path / "run", env=environ)
    assert done.returncode == 2
    assert done.stderr.startswith("error: MLFLOW_TRACKING_URI must be the address of a server")
    assert not (tmp_path / "run").exists()


def test_the_other_process_ends_when_its_trainer_is_not_there(run_dir):
    """Killed before it was noticed, even: it gives up after its patience."""
    edit_manifest(run_dir, results={"completed": False})
    environ = {"MLFLOW_TRACKING_URI": NOBODY, "TRACKING_PATIENCE": "0"}
    done = run("track", run_dir, "--follow", 1 << 30, env=environ)
    assert done.returncode == 1
    assert "send it when the server is back" in done.stderr


def test_a_run_that_ends_at_once_says_how_to_send_it(tmp_path):
    """Before the other process could listen, even."""
    environ = {"MLFLOW_TRACKING_URI": NOBODY, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    run_dir = tmp_path / "run"
    done = run("train", "--config", SMOKE, "--run-dir", run_dir, "--stop-at", 1, env=environ)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"track {run_dir}") == 1


def test_a_resumed_run_is_left_to_the_process_of_its_new_trainer(run_dir):
    """That of a trainer that was killed sends no row twice, and does not call the run dead."""
    edit_manifest(run_dir, results={"completed": False})
    environ = {**os.environ, "MLFLOW_TRACKING_URI": NOBODY, "TRACKING_PATIENCE": "600"}
    command = [sys.executable, "-m", PACKAGE, "track", run_dir, "--follow", f"{1 << 30}"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as waiting:
        assert "training continues" in waiting.stderr.readline()
        edit_manifest(run_dir, resumes=[{"step": 1}])
        assert waiting.stderr.read() == ""
    assert waiting.returncode == 0


def test_a_server_that_never_answers_changes_nothing(smoke_run, tmp_path):
    """It takes the connection and is silent: equal bits, exit code 0, one warning, one advice."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environ = {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "1",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "TRACKING_PATIENCE": "1",
        }
        tracked = tmp_path / "run"
        done = run("train", "--config", SMOKE, "--run-dir", tracked, env=environ)
    assert done.returncode == 0, done.stderr
    for name in ("steps.jsonl", "metrics.csv", "model.safetensors"):
        assert (tracked / name).read_bytes() == (smoke_run / name).read_bytes()
    assert done.stderr.count("training continues") == 1
    assert done.stderr.count(f"track {tracked}") == 1


def test_a_run_without_a_server_starts_no_process(tmp_path, monkeypatch):
    """The null tracker has nothing to do with MLflow."""
    assert read_manifest(train(tmp_path / "run"))["results"]["completed"]
    from real.repro.tracking.tracker import MlflowTracker, build_tracker

    assert not isinstance(build_tracker("", tmp_path), MlflowTracker)
    assert isinstance(build_tracker(ADDRESS, tmp_path), MlflowTracker)
