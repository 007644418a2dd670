"""A run directory: opening one, and describing the run that is about to fill it."""

import datetime
from pathlib import Path
from typing import Any

import torch

from .config import INERT_KEYS, Config, config_sha256, flatten, to_dict, to_yaml
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

CHECKPOINTS = "checkpoints"
CONFIG = "config.yaml"


def new_run_id(config: Config) -> str:
    """A name that sorts by time and says what ran."""
    now = datetime.datetime.now(datetime.UTC)
    return f"{now:%Y%m%d-%H%M%S-%f}-{config.experiment_name}-seed{config.seed}"


def open_run_dir(run_dir: Path, config: Config, *, resume: bool) -> Path:
    """Make the directory of a new run, or check that `config` may continue the one that is there.

    Raises:
        ValueError: a new run's directory is not empty, or the run to resume is another one.
    """
    if resume:
        recorded = flatten(read_manifest(run_dir)["config"])
        given = flatten(to_dict(config))
        changed = [
            f"{key} was {recorded.get(key)!r}, now {given.get(key)!r}"
            for key in sorted(recorded.keys() | given.keys())
            if recorded.get(key) != given.get(key) and not key.startswith(INERT_KEYS)
        ]
        if changed:
            raise ValueError(f"{run_dir} ran with another configuration: {'; '.join(changed)}")
        return run_dir
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise ValueError(f"run directory {run_dir} is not empty; choose another or resume it")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot make run directory {run_dir}: {error.strerror}") from None
    return run_dir


def start_manifest(
    run_dir: Path, config: Config, data: ImageData, *, start: int, num_steps: int
) -> dict[str, Any]:
    """Write the manifest before the first step and return it; a resume keeps the first one.

    Raises:
        ValueError: a resumed run was started on other data.
    """
    data_facts = {
        "name": data.name,
        "num_samples": data.num_samples,
        "sha256": data.sha256(),
    }
    root = find_project_root()
    code = describe_code(root)
    if (run_dir / MANIFEST).exists():
        manifest = read_manifest(run_dir)
        if manifest["data"] != data_facts:
            raise ValueError(
                f"{run_dir} ran on other data: was {manifest['data']}, now {data_facts}"
            )
        resumes = [
            *manifest.get("resumes", []),
            {"step": start, "command": command_line(), "code": code},
        ]
        manifest = {**manifest, "resumes": resumes}
    else:
        settings = to_dict(config)
        manifest = {
            "schema": SCHEMA,
            "run_id": run_dir.name,
            "command": command_line(),
            "seed": config.seed,
            "config": settings,
            "config_sha256": config_sha256(settings),
            "code": code,
            "data": data_facts,
            "environment": describe_environment(root),
            "hardware": describe_hardware(_accelerator()),
            "determinism": read_determinism(),
            "results": {
                "metrics": {},
                "weights_sha256": None,
                "num_steps": num_steps,
                "completed": False,
            },
        }
        (run_dir / CONFIG).write_text(to_yaml(config), encoding="utf-8")
    write_manifest(run_dir, manifest)
    return manifest


def finish_manifest(
    run_dir: Path, manifest: dict[str, Any], *, metrics: dict[str, float], weights_sha256: str
) -> None:
    """Write the manifest again, with what the run came to."""
    results = {
        **manifest["results"],
        "metrics": metrics,
        "weights_sha256": weights_sha256,
        "completed": True,
    }
    write_manifest(run_dir, {**manifest, "results": results})


def _accelerator() -> dict[str, Any]:
    driver = Path("/proc/driver/nvidia/version")
    return {
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "driver": driver.read_text().splitlines()[0] if driver.exists() else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
    }
