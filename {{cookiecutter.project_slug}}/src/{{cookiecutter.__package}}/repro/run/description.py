"""What a run consists of, and what has changed when a run is resumed."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..backend import facts as framework
from ..backend.device import describe_accelerator
from ..backend.seeding import read_determinism
from ..config.base import is_inert
from ..config.load import config_sha256, flatten, to_dict
from ..config.run_config import RunConfig, complete
from ..files import MANIFEST, PROJECT, find_project_root
from .dvc import changed_data, describe_dvc
from .manifest import (
    SCHEMA,
    command_line,
    describe_code,
    describe_environment,
    describe_hardware,
    is_ordered,
    num_ranks,
    read_manifest,
)

_log = logging.getLogger(__name__)


def describe_run(
    run_dir: Path,
    config: RunConfig,
    data: Mapping[str, Any],
    ranks: Mapping[str, Any],
    *,
    inert: tuple[str, ...],
    start: int,
    num_steps: int,
    allow_changes: bool,
) -> dict[str, Any]:
    """Build the manifest of a run that is about to start, or extend that of one to be resumed;
    `ranks` are the facts about the processes that share it.

    Nothing is written, so that a refused run leaves the record untouched.

    Raises:
        ValueError: data under DVC is not what git pins, code, data or configuration of a resumed
            run have changed, or it is complete and has no checkpoint.
    """
    root = find_project_root()
    pinned = describe_dvc(root)
    if (changed := changed_data(pinned)) and not allow_changes:
        raise ValueError(
            f'{", ".join(changed)} differs from what its .dvc file pins: make data ARGS="add FILE" '
            "takes it as the new version, --allow-changes records the difference"
        )
    facts = {
        "seed": config.seed,
        "config": to_dict(config),
        "code": describe_code(root, leave_out=run_dir),
        "data": {**data, "dvc": pinned} if pinned else dict(data),
    }
    digest = config_sha256(facts["config"])
    hardware = {**describe_hardware(describe_accelerator()), "ranks": dict(ranks)}
    if facts["code"]["commit"] is None:
        _log.warning(
            "warning: this run names no commit, so nobody can go back to its code: git init, "
            "git add --all, git commit"
        )
    if (run_dir / MANIFEST).exists():
        manifest = read_manifest(run_dir)
        changes = [*changes_between(manifest, facts, inert), *_other_ranks(manifest, ranks)]
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
            "hardware": hardware,
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
        "project": PROJECT,
        "run_id": run_dir.name,
        "command": command_line(),
        **facts,
        "config_sha256": digest,
        "environment": describe_environment(root),
        "hardware": hardware,
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


def seen_by_all(run_dir: Path, config: RunConfig, data: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same for all processes of a run."""
    root = find_project_root()
    environment = describe_environment(root)
    code = describe_code(root, leave_out=run_dir)
    layers = {
        "config": to_dict(config),
        "code": {"files": code["files"], **code},  # a file says more than that something differs
        "determinism": read_determinism(),
    }
    facts = {
        f"{name} {key}": value
        for name, layer in layers.items()
        for key, value in flatten(layer).items()
    }
    return {
        **facts,
        "data": data["sha256"],
        "lock": environment["lock_sha256"],
        **_framework(environment),
        "Python": environment["python"],
    }


def _other_ranks(manifest: Mapping[str, Any], ranks: Mapping[str, Any]) -> list[str]:
    """Another number of processes, if the bits depend on it."""
    before, now = num_ranks(manifest), ranks["num_ranks"]
    if before == now or not is_ordered(manifest):
        return []
    return [f"the number of ranks was {before}, now {now}, and distributed.gradients is ordered"]


def needed_for_equal_bits(manifest: dict[str, Any] | None = None) -> list[Any]:
    """The facts that must be unchanged for a resume to give the same bits (lock, framework's build,
    GPUs): from the last entry of `manifest`, or of this machine."""
    if manifest is None:
        environment, gpus = (
            describe_environment(find_project_root()),
            describe_accelerator()["gpus"],
        )
    else:
        last = [manifest, *manifest.get("resumes", [])][-1]
        environment, gpus = last["environment"], last["hardware"]["gpus"]
    # Their models, not their number: a run uses one for each of its processes.
    return [environment["lock_sha256"], *_framework(environment).values(), sorted({*gpus})]


def _framework(environment: Mapping[str, Any]) -> dict[str, str | None]:
    return {name: environment["packages"].get(name) for name in framework.PACKAGES}


def changes_between(
    manifest: Mapping[str, Any], facts: Mapping[str, Any], inert: tuple[str, ...]
) -> list[str]:
    """What differs between a recorded run and this process, key by key, except keys that cannot
    change the result."""
    changes = []
    for layer in ("config", "code", "data"):
        before, after = (
            flatten(complete(each[layer]) if layer == "config" else each[layer])
            for each in (manifest, facts)
        )
        changes += [
            f"{layer} {key} was {_short(before.get(key))}, now {_short(after.get(key))}"
            for key in sorted(before.keys() | after.keys())
            if before.get(key) != after.get(key)
            and not (layer == "config" and is_inert(key, inert))
        ]
    return changes


def _short(value: Any) -> str:
    # The first digits are enough to tell digests apart; in full they would clutter the line.
    text = repr(value)
    return text if len(text) < 60 else f"{text[:13]}…"
