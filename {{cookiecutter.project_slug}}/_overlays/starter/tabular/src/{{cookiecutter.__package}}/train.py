"""The story of a run, top to bottom: data, model, loop, results. Yours to change."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from .config import Config
from .data import Split, TableData, TrainSet, load_data
from .metrics import compute_metrics, loss_function
from .model import build_model
from .optim import build_optimizer, learning_rate
from .repro import Result, Run


def train_model(config: Config | Mapping[str, Any] | str | Path, **how: Any) -> Result:
    """Train, evaluate and record one run.

    `how` goes to `Run`: `run_dir`, `resume`, `allow_changes`, `stop_at`.

    Raises:
        ValueError: the configuration, the data or the run directory is not usable.
        Interrupted: the run was asked to stop; a checkpoint of its last step is written.
    """
    # Opening a run locks its directory, sets every determinism switch and seeds all libraries.
    with Run(Config, config, **how) as run:
        training = run.config.training
        device = run.use(training.device)

        # --- data -----------------------------------------------------------------------------
        data = load_data(run.config.data, run.data_dir)
        batches = run.batches(
            TrainSet(data.train, run.config.data.noise, run.streams("noise")),
            global_batch_size=training.global_batch_size,
            num_epochs=training.num_epochs,
            num_workers=run.config.data.num_workers,
            prefetch_factor=run.config.data.prefetch_factor,
        )

        # --- model and optimizer --------------------------------------------------------------
        run.seed("init")
        shape = {"num_features": data.train.features.shape[1], "num_outputs": data.num_outputs}
        model = run.place(build_model(run.config.model, **shape))
        optimizer = build_optimizer(model, training)

        # --- start or resume: whatever is named here is saved, restored and checked -----------
        run.start(data.describe(), model=model, optimizer=optimizer)

        # --- loop: after each turn the run saves a checkpoint if one is due, and may stop -----
        model.train()
        for step, batch in run.steps(batches):
            run.seed("dropout", step)
            lr = learning_rate(step, batches.steps_per_epoch, batches.num_steps, training)
            for group in optimizer.param_groups:
                group["lr"] = lr

            optimizer.zero_grad(set_to_none=True)
            for features, targets in run.pieces(batch):
                run.backward(loss_function(data.task, model(features), targets))
            grad_norm = clip_grad_norm_(model.parameters(), training.max_grad_norm)
            optimizer.step()
            run.log_step(loss=run.loss, grad_norm=grad_norm)

            if batches.ends_epoch(step):
                metrics = evaluate(model, data, data.val, device)
                run.log_metrics(learning_rate=lr, **named("val", metrics))
                run.keep_best("val_loss", higher=False)

        # --- results --------------------------------------------------------------------------
        return run.finish(named("test", evaluate(model, data, data.test, device)))


@torch.no_grad()
def evaluate(
    model: nn.Module, data: TableData, split: Split, device: torch.device, batch_size: int = 1024
) -> dict[str, float]:
    """The metrics of a split, in order; draws no random number."""
    model.eval()
    features = torch.from_numpy(split.features).split(batch_size)
    outputs = torch.cat([model(part.to(device)).cpu() for part in features])
    model.train()
    return compute_metrics(data, outputs, torch.from_numpy(split.targets))


def named(split: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics with the name of their split: `val_loss`."""
    return {f"{split}_{name}": value for name, value in metrics.items()}
