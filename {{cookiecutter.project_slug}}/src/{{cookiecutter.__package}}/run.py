"""A run directory: opening one, and describing the run that is about to fill it."""

import datetime
import errno
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .config import (
    Config,
    config_from_dict,
    config_sha256,
    flatten,
    is_inert,
    to_dict,
    to_yaml,
)
from .data import ImageData
from .manifest import (
    MANIFEST,
    SCHEMA,
    command_line,
    describe_code,
    describe_environment,
    describe_hardware,
    find_project_root,
    read_manifest,
    write_manifest,
)
from .seeding import read_determinism

_log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
CONFIG = "config.yaml"


@dataclass(frozen=True)
class TrainResult:
    """What a finished run came to; `loss` and `accuracy` are of the test split."""

    loss: float
    accuracy: float
    weights_sha256: str
    run_dir: Path


def new_run_id(config: Config) -> str:
    """A name that sorts by time and says what ran."""
    now = datetime.datetime.now(datetime.UTC)
    return f"{now:%Y%m%d-%H%M%S-%f}-{config.experiment_name}-seed{config.seed}"


def check_run_dir(run_dir: Path, *, resume: bool) -> None:
    """Check, before anything is made, that a run may start or be resumed in `run_dir`.

    Raises:
        ValueError: a new run's directory is not empty; there is no run to resume.
    """
    if resume:
        read_manifest(run_dir)
    elif run_dir.exists() and not run_dir.is_dir():
        raise ValueError(f"run directory {run_dir} is a file; name a directory")
    elif run_dir.exists() and any(run_dir.iterdir()):
        raise ValueError(f"run directory {run_dir} is not empty; choose another or resume it")


def find_unfinished(output_dir: Path, config: Config) -> Path | None:
    """The newest run in `output_dir` that was cut short and that can be resumed: the same
    configuration, code, environment and kind of device, and no process that is training in it."""
    paths = list(output_dir.glob(f"*/{MANIFEST}"))
    for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        run_dir = path.parent
        try:
            manifest = read_manifest(run_dir)
            with _locked(run_dir):
                pass
        except (ValueError, OSError):
            continue  # no record of this project, or in use
        if manifest["results"]["completed"]:
            continue
        facts = {
            "config": to_dict(config),
            "code": describe_code(find_project_root(), leave_out=run_dir),
            "data": manifest["data"],
        }
        changes = _changes(manifest, facts)
        if any(change.startswith("config ") for change in changes):
            continue
        changes += [] if _surroundings(manifest) == _surroundings() else ["environment"]
        if not changes:
            return run_dir
        what = "in another environment" if changes == ["environment"] else "with other code"
        _log.info("%s was cut short, and began %s: a new run starts", run_dir, what)
    return None


@contextmanager
def only_writer(run_dir: Path) -> Iterator[None]:
    """Hold a run directory, making it first if need be; two processes would mix their logs.

    A directory that was made here and is still empty at the end, since the run was refused, goes.

    Raises:
        ValueError: another process is training there, or the directory cannot be made.
        OSError: as the system says; of a full disk, with what to do.
    """
    made_here = not run_dir.exists()
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        refused = isinstance(error, PermissionError) and hasattr(os, "getuid")
        who = f" to user {os.getuid()}" if refused else ""
        raise ValueError(f"cannot make run directory {run_dir}: {error.strerror}{who}") from None
    with _locked(run_dir):
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            advice = "and start again"
            if (run_dir / MANIFEST).exists():
                advice = f"then resume with train --resume {run_dir}"
            said = f"{error.strerror} for {run_dir}; make room, {advice}"
            raise OSError(error.errno, said) from error
        finally:
            if made_here and not any(run_dir.iterdir()):
                run_dir.rmdir()


@contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    if os.name == "nt":
        yield  # a directory cannot be locked there
        return
    import fcntl

    handle = os.open(run_dir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process is training in {run_dir}; wait for it") from None
        yield
    finally:
        os.close(handle)


def describe_run(
    run_dir: Path,
    config: Config,
    data: ImageData,
    *,
    start: int,
    num_steps: int,
    allow_changes: bool,
) -> dict[str, Any]:
    """The manifest of a run that is about to start or resume; a resume keeps what it says.

    Nothing is written, so that a refusal leaves the record as it was.

    Raises:
        ValueError: a run is resumed with other code, data or configuration than it began with, or
            is complete and has nothing to resume from.
    """
    root = find_project_root()
    facts = {
        "seed": config.seed,
        "config": to_dict(config),
        "code": describe_code(root, leave_out=run_dir),
        "data": data.describe(),
    }
    digest = config_sha256(facts["config"])
    if facts["code"]["commit"] is None:
        _log.warning(
            "warning: this run names no commit, so nobody can go back to its code: git init, "
            "git add --all, git commit"
        )
    if (run_dir / MANIFEST).exists():
        manifest = read_manifest(run_dir)
        changes = _changes(manifest, facts)
        if changes and not allow_changes:
            raise ValueError(
                f"{run_dir} began with something else: {'; '.join(changes)}; "
                "--allow-changes resumes all the same and records it"
            )
        if manifest["results"]["completed"] and not start and not allow_changes:
            raise ValueError(f"{run_dir} is complete and has no checkpoint; there is nothing to do")
        if start > num_steps:
            raise ValueError(f"{run_dir} is at step {start}, past the {num_steps} asked for now")
        resume = {
            "step": start,
            "command": command_line(),
            "changes": changes,
            "environment": describe_environment(root),
            "hardware": describe_hardware(_accelerator()),
            "determinism": read_determinism(),
        }
        earlier = manifest.get("resumes")
        resumes = [*(earlier if isinstance(earlier, list) else []), resume]
        results = {**manifest["results"], "num_steps": num_steps}
        results["completed"] = results["completed"] and start == num_steps and not changes
        manifest = {**manifest, "resumes": resumes, "results": results}
        return manifest | facts | {"config_sha256": digest} if changes else manifest
    return {
        "schema": SCHEMA,
        "project": __package__,
        "run_id": run_dir.name,
        "command": command_line(),
        **facts,
        "config_sha256": digest,
        "environment": describe_environment(root),
        "hardware": describe_hardware(_accelerator()),
        "determinism": read_determinism(),
        "results": {
            "metrics": {},
            "best": None,
            "weights_sha256": None,
            "logs": None,
            "num_steps": num_steps,
            "completed": False,
        },
    }


def _surroundings(manifest: dict[str, Any] | None = None) -> list[Any]:
    """What a resume in the same bits needs: lock, build of torch, GPUs; of now, or as recorded
    where the run began or was resumed last."""
    if manifest is None:
        environment, gpus = describe_environment(find_project_root()), _accelerator()["gpus"]
    else:
        last = [manifest, *manifest.get("resumes", [])][-1]
        environment, gpus = last["environment"], last["hardware"]["gpus"]
    return [environment["lock_sha256"], environment["packages"].get("torch"), gpus]


def start_record(run_dir: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest and its configuration, before the first step."""
    text = to_yaml(config_from_dict(manifest["config"]))
    (run_dir / CONFIG).write_text(text, encoding="utf-8")
    write_manifest(run_dir, manifest)


def finish_manifest(
    run_dir: Path,
    manifest: dict[str, Any],
    metrics: dict[str, float],
    *,
    weights_sha256: str,
    logs: dict[str, str],
    best: dict[str, Any],
) -> None:
    """Write the manifest again, with what the run came to."""
    diverged = [name for name, value in metrics.items() if not math.isfinite(value)]
    if diverged:
        _log.warning("training diverged: %s is no finite number", ", ".join(diverged))
    results = {
        **manifest["results"],
        # JSON has no NaN: what diverged is null.
        "metrics": {n: None if n in diverged else value for n, value in metrics.items()},
        "best": best,
        "weights_sha256": weights_sha256,
        "logs": logs,
        "completed": True,
    }
    write_manifest(run_dir, {**manifest, "results": results})


def _changes(manifest: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    """What differs between a recorded run and this process, key by key, but for inert keys."""
    changes = []
    for layer in ("config", "code", "data"):
        before, after = flatten(manifest[layer]), flatten(facts[layer])
        changes += [
            f"{layer} {key} was {_short(before.get(key))}, now {_short(after.get(key))}"
            for key in sorted(before.keys() | after.keys())
            if before.get(key) != after.get(key) and not (layer == "config" and is_inert(key))
        ]
    return changes


def _short(value: Any) -> str:
    # A digest's first digits tell it from another; two whole ones hide what the line says.
    text = repr(value)
    return text if len(text) < 60 else f"{text[:13]}…"


def _accelerator() -> dict[str, Any]:
    driver = Path("/proc/driver/nvidia/version")
    return {
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "driver": driver.read_text().splitlines()[0] if driver.exists() else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
    }
