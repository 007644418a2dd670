"""A run on an MLflow server: uploaded from its directory, with as many retries as it takes.

The server is asked what it already has, and only the rest is sent. So it does not matter how often
a transfer was cut off, or whether this is the first one, one for a resumed run, or a late one.
"""

import hashlib
import json
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

from ..config.load import flatten
from ..env import resolve_text
from ..files import CONFIG, CURVES, MANIFEST, METRICS, PROJECT, STEPS, WEIGHTS
from ..proof.compare import compare_runs
from ..redact import without_secrets
from ..run.logs import read_metrics, to_float
from ..run.manifest import read_manifest
from .tracker import ENDINGS, FAILED, check_address

_log = logging.getLogger(__name__)

RECORD = (MANIFEST, CONFIG, METRICS, STEPS, CURVES)
"""Files uploaded for a finished run, besides the model."""
MODEL = (WEIGHTS, MANIFEST, CONFIG)
"""Files uploaded as `model/`: weights always travel with their manifest and config."""
RUN_ID, MADE_OF = "repro.run_id", "repro.made_of"
"""Tags that identify a run on the server: its name, and a digest of what went into it, so that
a run of the same name, or one resumed with changes, is a different run there."""
LOOK_SECONDS, RETRY_SECONDS = 0.5, 3.0
MAX_PARAMS, MAX_ROWS = 100, 100
"""MLflow accepts 100 parameters and 1000 metrics per request."""


class RemoteRun:
    """One run directory and its counterpart on the server; every call may be repeated.

    Exceptions of the client propagate to the caller.
    """

    def __init__(self, uri: str, run_dir: Path) -> None:
        # A dead server must cost seconds, not minutes as by the client's defaults.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        # Imported here: it takes a second, which `--help` should not.
        from mlflow import MlflowClient

        for chatty in ("urllib3", "mlflow"):
            logging.getLogger(chatty).setLevel(logging.ERROR)
        self._client: Any = MlflowClient(uri)
        self._run_dir = run_dir
        self._id = ""
        self._described = False
        self._sent = 0
        self._times: list[int] = []

    def look(self) -> None:
        """Note when rows appeared, so that rows sent late keep their time."""
        rows = len(read_metrics(self._run_dir / METRICS))
        if not self._times and rows:  # not seen when they appeared
            self._times = [_modified(self._run_dir / METRICS)] * rows
        self._times += [int(time.time() * 1000)] * (rows - len(self._times))

    def send(self, ended: str = "") -> None:
        """Send what the server lacks: the run itself, parameters, rows, and the files of a finished
        run; `ended` says how an incomplete run ended: `KILLED` or `FAILED`."""
        manifest = read_manifest(self._run_dir)
        if not self._id:
            self._open(manifest)
        self._send_rows()
        if ended:
            self._client.set_terminated(self._id, ended)
        if not self._described:
            # Last: a full or unreachable file store must not delay the rows.
            self._artifact(self._id, MANIFEST)
            self._artifact(self._id, CONFIG)
            self._described = True
        if manifest["results"]["completed"]:
            self._finish(manifest)

    def register(self, name: str) -> str:
        """Register the run's model as a version of the model `name`; return the version number."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        versions = self._client.search_model_versions(f"name = {_quoted(name)}")
        for version in versions:
            if version.run_id == self._id:
                return version.version
        source = f"{self._client.get_run(self._id).info.artifact_uri}/model"
        manifest = read_manifest(self._run_dir)
        weights = manifest["results"]["weights_sha256"]
        tags = {**_facts(manifest), "weights_sha256": weights}
        created = self._client.create_model_version(name, source, run_id=self._id, tags=tags)
        return created.version

    def _open(self, manifest: dict[str, Any]) -> None:
        """Find the run on the server or create it, and see what it has."""
        from mlflow.entities import Param

        experiment = self._experiment(manifest["config"]["experiment_name"])
        known = {RUN_ID: manifest["run_id"], MADE_OF: _made_of(manifest)}
        ours = " and ".join(f"tags.`{name}` = {_quoted(value)}" for name, value in known.items())
        found = self._client.search_runs([experiment], ours)
        if found:
            run = found[0]
            history = self._client.get_metric_history(run.info.run_id, "epoch")
            self._sent = len({metric.step for metric in history})
        else:
            tags = {**known, **_facts(manifest)}
            if manifest["code"]["commit"]:
                tags["mlflow.source.git.commit"] = manifest["code"]["commit"]
            run = self._client.create_run(
                experiment,
                start_time=_modified(self._run_dir / CONFIG),
                run_name=manifest["run_id"],
                tags=tags,
            )
        identity = run.info.run_id
        params = [
            Param(key, str(value))
            for key, value in flatten(manifest["config"]).items()
            if key not in run.data.params
        ]
        for start in range(0, len(params), MAX_PARAMS):
            self._client.log_batch(identity, params=params[start : start + MAX_PARAMS])
        if run.info.status not in ("RUNNING", "FINISHED"):
            self._client.update_run(identity, status="RUNNING")  # it was stopped, then resumed
        self._id = identity

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found:
            return found.experiment_id
        try:
            return self._client.create_experiment(name)
        except MlflowException:  # another run was faster
            return self._client.get_experiment_by_name(name).experiment_id

    def _send_rows(self) -> None:
        from mlflow.entities import Metric

        self.look()
        rows = read_metrics(self._run_dir / METRICS)
        while self._sent < len(rows):
            end = min(self._sent + MAX_ROWS, len(rows))
            metrics = [
                Metric(column, to_float(text), self._times[i], int(rows[i]["step"]))
                for i in range(self._sent, end)
                for column, text in rows[i].items()
                if column != "step"
            ]
            self._client.log_batch(self._id, metrics=metrics)
            self._sent = end

    def _finish(self, manifest: dict[str, Any]) -> None:
        from mlflow.entities import Metric, RunTag

        run = self._client.get_run(self._id)
        weights = RunTag("weights_sha256", manifest["results"]["weights_sha256"])
        if run.info.status == "FINISHED" and run.data.tags.get(weights.key) == weights.value:
            return
        ended = _modified(self._run_dir / MANIFEST)
        results = manifest["results"]
        metrics = [
            Metric(name, float("nan") if value is None else value, ended, results["num_steps"])
            for name, value in results["metrics"].items()
        ]
        for name in RECORD:
            self._artifact(self._id, name)
        for name in MODEL:
            self._artifact(self._id, name, "model")
        self._client.log_batch(self._id, metrics=metrics, tags=[weights])
        self._client.set_terminated(self._id, "FINISHED", ended)  # last: it marks a complete run

    def _artifact(self, identity: str, name: str, folder: str | None = None) -> None:
        if (self._run_dir / name).exists():
            self._client.log_artifact(identity, str(self._run_dir / name), folder)


PICTURE_SECONDS = 10
"""How long to wait for the curves of a complete run."""


def track(run_dir: Path, *, register: str = "") -> int:
    """Send a run to the server, and register its model as `register` if given.

    Returns 0, or 1 if the server could not be reached or refused it.

    Raises:
        ValueError: this is not a run directory, no server is named, or the model cannot be
            registered.
    """
    manifest = read_manifest(run_dir)
    uri = _server(manifest)
    if register:
        if not manifest["results"]["completed"]:
            raise ValueError(f"{run_dir} is not complete; finish it with train --resume {run_dir}")
        compare_runs(run_dir, run_dir)  # its files must match the manifest
    try:
        remote = RemoteRun(uri, run_dir)
        remote.send()
        version = remote.register(register) if register else ""
    except Exception as error:  # any failure of the network or the server
        _log.error("error: MLflow at %s failed: %s", without_secrets(uri), _reason(error))
        return 1
    print(f"MLflow at {without_secrets(uri)} has {run_dir}")
    if register:
        print(f"registered: {register}, version {version}, with its {MANIFEST} beside it")
    return 0


def follow(run_dir: Path, trainer: int) -> int:
    """Send a run while the parent process `trainer` writes it; return when it has ended.

    A server that does not answer is retried until TRACKING_PATIENCE seconds (default 30) after the
    run has ended.
    """
    stopped: list[str] = []
    signal.signal(FAILED, lambda *_: stopped.append("FAILED"))
    signal.signal(signal.SIGTERM, lambda *_: stopped.append("KILLED"))
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)
    manifest = read_manifest(run_dir)
    resumes = manifest.get("resumes")
    uri = _server(manifest)
    remote = RemoteRun(uri, run_dir)
    warned, ended = False, 0.0
    while True:
        gone = bool(stopped) or os.getppid() != trainer
        # Read after checking the parent: if the trainer has exited, this is its final state.
        manifest = read_manifest(run_dir)
        if manifest.get("resumes") != resumes:
            return 0  # resumed by another trainer, whose own process sends it from now on
        completed = manifest["results"]["completed"]
        if (completed or gone) and not ended:
            ended = time.monotonic()
        remote.look()
        # The results are final before the picture is drawn, which may fail.
        waiting = completed and not gone and time.monotonic() - ended < PICTURE_SECONDS
        if waiting and not (run_dir / CURVES).exists():
            time.sleep(0.1)
            continue
        try:
            how = stopped[0] if stopped else "KILLED"
            remote.send(how if gone and not completed else "")
            if ended:
                return 0
        except Exception as error:  # whatever the network does, training continues
            if not warned:
                _log.warning(
                    "MLflow at %s failed, training continues and what is missing there is sent "
                    "again: %s",
                    *(without_secrets(uri), _reason(error)),
                )
                warned = True
            if stopped or (ended and time.monotonic() - ended > _patience()):
                _log.warning(
                    "MLflow at %s lacks a part of this run; send it when the server is back: "
                    "python -m %s track %s",
                    *(without_secrets(uri), PROJECT, run_dir),
                )
                return 1
            time.sleep(RETRY_SECONDS)
        time.sleep(LOOK_SECONDS)


def _server(manifest: dict[str, Any]) -> str:
    named = manifest["config"].get("tracking", {}).get("mlflow_uri", "")
    # If the run's config names no server, the current variable decides.
    uri = resolve_text(str(named), os.environ) or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise ValueError("no MLflow server is named; set MLFLOW_TRACKING_URI")
    check_address(uri)
    return uri


def _facts(manifest: dict[str, Any]) -> dict[str, str]:
    """Tags that tell two runs apart at a glance."""
    facts = {
        "code.commit": manifest["code"]["commit"],
        "code.dirty": manifest["code"]["dirty"],
        "data.sha256": manifest["data"]["sha256"],
        "environment.lock_sha256": manifest["environment"]["lock_sha256"],
        "config_sha256": manifest["config_sha256"],
    }
    return {key: str(value) for key, value in facts.items() if value is not None}


def _made_of(manifest: dict[str, Any]) -> str:
    """One digest of configuration, code and data: if it is equal, the run is the same."""
    parts = [manifest["config_sha256"], manifest["code"], manifest["data"]["sha256"]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _quoted(text: str) -> str:
    """Quote text for an MLflow filter, which has two kinds of quotes but no escapes."""
    return f'"{text}"' if "'" in text else f"'{text}'"


def _patience() -> float:
    try:
        return float(os.environ.get("TRACKING_PATIENCE") or 30)
    except ValueError:
        return 30.0


def _modified(path: Path) -> int:
    """When a file was last modified, in milliseconds."""
    return path.stat().st_mtime_ns // 1_000_000


def _reason(error: BaseException) -> str:
    # The network error is the innermost cause; the client's own message repeats the address.
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return without_secrets(" ".join(str(error).split()))[:200]
