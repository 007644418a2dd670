"""Where metrics go besides the run directory: MLflow when a server is named, else nowhere."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .config import Config, flatten, to_dict

_log = logging.getLogger(__name__)


class NullTracker:
    """Takes everything and keeps nothing, so that the training loop has no branches."""

    def metrics(self, values: dict[str, float], *, step: int) -> None:
        """Take the values of one moment."""

    def finish(self, run_dir: Path) -> None:
        """Take the files of a finished run."""


class MlflowTracker(NullTracker):
    """Reports to an MLflow server; when the server fails, training goes on without it."""

    def __init__(self, uri: str, config: Config, run_name: str) -> None:
        # A dead server must cost seconds, not the minutes of the client's own defaults.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        # Imported here: it costs two seconds, and most runs on a laptop have no server.
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric, self._param = Metric, Param
        self._uri = uri
        self._run: str | None = None
        self._client: MlflowClient | None = None
        self._working = True
        self._try(lambda: self._start(MlflowClient(uri), config, run_name))

    def metrics(self, values: dict[str, float], *, step: int) -> None:
        # The step stands for the time too: the record must not depend on a clock.
        batch = [self._metric(name, value, step, step) for name, value in values.items()]
        self._try(lambda: self._client.log_batch(self._run, metrics=batch))

    def finish(self, run_dir: Path) -> None:
        def send() -> None:
            for name in ("manifest.json", "config.yaml", "curves.png", "model.safetensors"):
                self._client.log_artifact(self._run, str(run_dir / name))
            self._client.set_terminated(self._run)

        self._try(send)

    def _start(self, client: Any, config: Config, run_name: str) -> None:
        self._client = client
        name = config.experiment_name
        experiment = self._client.get_experiment_by_name(name)
        identity = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run_id = self._client.create_run(identity, run_name=run_name).info.run_id
        params = [self._param(key, str(value)) for key, value in flatten(to_dict(config)).items()]
        self._client.log_batch(run_id, params=params)
        self._run = run_id

    def _try(self, call: Callable[[], Any]) -> None:
        if not self._working:
            return
        try:
            call()
        except Exception as error:  # whatever the network does, it must not end the training
            self._working = False
            reason = " ".join(str(error).split())[:200]
            _log.warning(
                "MLflow at %s failed, this run is no longer tracked there: %s", self._uri, reason
            )


def build_tracker(uri: str, config: Config, run_name: str) -> NullTracker:
    """The tracker for the server at `uri`; an empty `uri` means none."""
    return MlflowTracker(uri, config, run_name) if uri else NullTracker()
