"""The whole story of a run, top to bottom: device, seed, data, model, resume, loop, results."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import clip_grad_norm_

from .checkpoint import load_latest, restore, save_checkpoint, save_weights, state_of
from .config import Config, Paths, as_config
from .data import Split, build_loader, load_data
from .environment import resolve
from .interrupt import Interrupted, StopRequest
from .loading import batches
from .model import build_model
from .optim import build_optimizer, learning_rate, resolve_device
from .order import BatchSampler
from .progress import Progress
from .record import WEIGHTS, Recorder, Step, logs_until, try_to_plot
from .run import (
    CHECKPOINTS,
    TrainResult,
    check_run_dir,
    describe_run,
    finish_manifest,
    new_run_id,
    only_writer,
    start_record,
)
from .seeding import seed_stream, set_seed
from .tracking import NullTracker, build_tracker

_log = logging.getLogger(__name__)


def train_model(
    config: Config | Mapping[str, Any] | str | Path,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    allow_changes: bool = False,
    stop_at: int | None = None,
) -> TrainResult:
    """Train, evaluate and record one run.

    `config` may also be nested mappings or the path of a YAML file. `run_dir` names the run's
    directory, new or empty, unless `resume` continues the run there from its last checkpoint;
    `allow_changes` lets it resume with other code, data or configuration than it began with.
    `stop_at` ends the run after that step, as SIGTERM does at any.

    Raises:
        ValueError: the configuration, the data or the run directory is not usable.
        Interrupted: the run was asked to stop; a checkpoint of its last step is written.
    """
    config = as_config(config)
    paths, tracking = resolve(config, os.environ)
    run_dir = Path(run_dir or Path(paths.output_dir) / new_run_id(config))
    check_run_dir(run_dir, resume=resume)
    tracker = build_tracker(tracking.mlflow_uri, run_dir)
    with only_writer(run_dir), tracker:
        return _train(config, paths, tracker, run_dir, resume, allow_changes, stop_at)


def _train(
    config: Config,
    paths: Paths,
    tracker: NullTracker,
    run_dir: Path,
    resume: bool,
    allow_changes: bool,
    stop_at: int | None,
) -> TrainResult:
    # --- device and seed: before anything draws a random number -------------------------------
    device = resolve_device(config.training.device)
    set_seed(config.seed, config.determinism)

    # --- data ---------------------------------------------------------------------------------
    data = load_data(config.data, Path(paths.data_dir))
    checkpoints = run_dir / CHECKPOINTS
    state = load_latest(checkpoints, device) if resume else None
    start = state["step"] if state else 0
    best = state["best"] if state else {"step": 0, "val_accuracy": -1.0}
    batch_size, num_epochs = config.training.global_batch_size, config.training.num_epochs
    sampler = BatchSampler(
        len(data.train), batch_size, seed=config.seed, num_epochs=num_epochs, start=start
    )
    steps_per_epoch, num_steps = sampler.steps_per_epoch, sampler.num_steps
    loader = build_loader(data.train, config.data, sampler)

    # --- model and optimizer ------------------------------------------------------------------
    seed_stream(config.seed, "init")
    model = build_model(config.model, num_classes=data.num_classes, mean=data.mean, std=data.std)
    model.to(device)
    optimizer = build_optimizer(model, config.training)

    # --- resume: weights and optimizer; random streams, order and schedule follow the step ----
    manifest = describe_run(
        run_dir, config, data, start=start, num_steps=num_steps, allow_changes=allow_changes
    )
    if state:
        restore(state, model, optimizer)
        logs_until(run_dir, start, state["logs"])  # the last check that may refuse

    # --- record: what this run is made of, on disk before its first step ----------------------
    start_record(run_dir, manifest)
    recorder = Recorder(run_dir, resume_step=start)
    tracker.start()
    progress = Progress(num_steps, start=start)

    # --- loop: one iterator over all epochs; `step` counts from 0, records and files from 1 ---
    def save(step: int) -> dict[str, Any]:
        state = state_of(step, best, recorder.sync(), model, optimizer)
        save_checkpoint(checkpoints, state, keep=config.training.keep_checkpoints)
        return state

    done = start
    model.train()
    with recorder, progress, StopRequest() as stop:
        for step, (images, labels) in enumerate(batches(loader, stop), start=start):
            epoch, done = step // steps_per_epoch, step + 1
            seed_stream(config.seed, "dropout", step)
            lr = learning_rate(
                step, steps_per_epoch=steps_per_epoch, num_steps=num_steps, config=config.training
            )
            for group in optimizer.param_groups:
                group["lr"] = lr

            images = images.to(device, non_blocking=True)
            labels = labels.to(device, non_blocking=True)
            loss = F.cross_entropy(
                model(images), labels, label_smoothing=config.training.label_smoothing
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            grad_norm = clip_grad_norm_(model.parameters(), config.training.max_grad_norm)
            optimizer.step()

            # `.item()` waits for the GPU: the price of an exact record of every step.
            numbers = {"loss": loss.item(), "grad_norm": grad_norm.item()}
            recorder.step(Step(done, epoch, numbers))
            progress.step()
            is_best = False
            if done % steps_per_epoch == 0:
                seed_stream(config.seed, "eval", "val", done)
                val_loss, val_accuracy = evaluate(model, data.val, batch_size, device)
                metrics = {"learning_rate": lr, "val_loss": val_loss, "val_accuracy": val_accuracy}
                progress.row(recorder.row(epoch=epoch, step=done, metrics=metrics))
                is_best = val_accuracy > best["val_accuracy"]  # on a tie the earlier one stays
                if is_best:
                    best = {"step": done, "val_accuracy": val_accuracy}
            stopping = stop.requested or done == stop_at
            due = done % config.training.checkpoint_every == 0 or done == num_steps
            if due or is_best or stopping:
                state = save(done)
            if stopping and done < num_steps:
                raise Interrupted(run_dir, done, stop.signal_number)
        if stop.failure:  # no batch came
            if done > start:
                save(done)
            raise Interrupted(run_dir, done, reason=stop.failure)

    # --- results: final weights, test metrics, and the manifest that names them; then a picture -
    seed_stream(config.seed, "eval", "test", num_steps)
    test_loss, test_accuracy = evaluate(model, data.test, batch_size, device)
    metrics = {"test_loss": test_loss, "test_accuracy": test_accuracy}
    _log.info("test_loss %.4f  test_accuracy %.4f", test_loss, test_accuracy)
    weights_sha256 = save_weights(run_dir / WEIGHTS, model)
    finish_manifest(
        run_dir, manifest, metrics, weights_sha256=weights_sha256, logs=state["logs"], best=best
    )
    try_to_plot(run_dir)
    return TrainResult(test_loss, test_accuracy, weights_sha256, run_dir)


@torch.no_grad()
def evaluate(
    model: nn.Module, split: Split, batch_size: int, device: torch.device
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy over a split, in order; draws no random number."""
    model.eval()
    total_loss, num_correct = 0.0, 0
    for begin in range(0, len(split), batch_size):
        part = slice(begin, begin + batch_size)
        labels = torch.tensor(split.labels[part], device=device)
        logits = model(torch.tensor(split.images[part], device=device))
        total_loss += F.cross_entropy(logits, labels, reduction="sum").item()
        num_correct += int((logits.argmax(dim=1) == labels).sum())
    model.train()
    return total_loss / len(split), num_correct / len(split)
