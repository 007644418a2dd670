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


def open_run_dir(run_dir: Path, *, resume: bool) -> None:
    """Make the directory of a new run, or check that there is one to continue.

    Raises:
        ValueError: a new run's directory is not empty or cannot be made; nothing to resume.
    """
    if resume:
        read_manifest(run_dir)
    elif run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise ValueError(f"run directory {run_dir} is not empty; choose another or resume it")
    else:
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"cannot make run directory {run_dir}: {error.strerror}") from None


def start_manifest(
    run_dir: Path,
    config: Config,
    data: ImageData,
    *,
    start: int,
    num_steps: int,
    allow_changes: bool,
) -> dict[str, Any]:
    """Write the manifest before the first step and return it; a resume keeps what it says.

    Raises:
        ValueError: a run is resumed with other code, data or configuration than it began with.
    """
    root = find_project_root()
    facts = {
        "config": to_dict(config),
        "code": describe_code(root),
        "data": {"name": data.name, "num_samples": data.num_samples, "sha256": data.sha256()},
    }
    if (run_dir / MANIFEST).exists():
        manifest = read_manifest(run_dir)
        changes = _changes(manifest, facts)
        if changes and not allow_changes:
            raise ValueError(
                f"{run_dir} began with something else: {'; '.join(changes)}; "
                "--allow-changes goes on all the same and records it"
            )
        resume = {
            "step": start,
            "command": command_line(),
            "changes": changes,
            "hardware": describe_hardware(_accelerator()),
            "determinism": read_determinism(),
        }
        manifest = {**manifest, "resumes": [*manifest.get("resumes", []), resume]}
        if changes:
            manifest |= facts | {"config_sha256": config_sha256(facts["config"])}
    else:
        manifest = {
            "schema": SCHEMA,
            "run_id": run_dir.name,
            "command": command_line(),
            "seed": config.seed,
            **facts,
            "config_sha256": config_sha256(facts["config"]),
            "environment": describe_environment(root),
            "hardware": describe_hardware(_accelerator()),
            "determinism": read_determinism(),
            "results": {
                "metrics": {},
                "best": None,
                "weights_sha256": None,
                "num_steps": num_steps,
                "completed": False,
            },
        }
        (run_dir / CONFIG).write_text(to_yaml(config), encoding="utf-8")
    write_manifest(run_dir, manifest)
    return manifest


def finish_manifest(
    run_dir: Path,
    manifest: dict[str, Any],
    metrics: dict[str, float],
    *,
    weights_sha256: str,
    best: dict[str, Any],
) -> None:
    """Write the manifest again, with what the run came to."""
    results = {
        **manifest["results"],
        "metrics": metrics,
        "best": best,
        "weights_sha256": weights_sha256,
        "completed": True,
    }
    write_manifest(run_dir, {**manifest, "results": results})


def _changes(manifest: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    """What differs between a recorded run and this process, key by key, but for inert keys."""
    changes = []
    for layer, now in facts.items():
        before, after = flatten(manifest[layer]), flatten(now)
        changes += [
            f"{layer} {key} was {before.get(key)!r}, now {after.get(key)!r}"
            for key in sorted(before.keys() | after.keys())
            if before.get(key) != after.get(key)
            and not (layer == "config" and key.startswith(INERT_KEYS))
        ]
    return changes


def _accelerator() -> dict[str, Any]:
    driver = Path("/proc/driver/nvidia/version")
    return {
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "driver": driver.read_text().splitlines()[0] if driver.exists() else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
    }
