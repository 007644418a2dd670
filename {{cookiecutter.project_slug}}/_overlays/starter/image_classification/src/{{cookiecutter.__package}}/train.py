"""The story of a run, top to bottom: data, model, loop, results. Yours to change."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import clip_grad_norm_

from .config import Config
from .data import Split, TrainSet, load_data
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
            TrainSet(data.train, run.config.data, run.streams("augment")),
            global_batch_size=training.global_batch_size,
            num_epochs=training.num_epochs,
            num_workers=run.config.data.num_workers,
            prefetch_factor=run.config.data.prefetch_factor,
        )

        # --- model and optimizer --------------------------------------------------------------
        run.seed("init")
        shape = {"num_classes": data.num_classes, "mean": data.mean, "std": data.std}
        model = run.place(build_model(run.config.model, **shape))
        optimizer = build_optimizer(model, training)

        # --- start or resume: whatever is named here is saved, restored and checked -----------
        run.start(data.describe(), model=model, optimizer=optimizer)

        how_to_evaluate = (training.global_batch_size, device, run.spread)

        # --- loop: after each turn the run saves a checkpoint if one is due, and may stop -----
        model.train()
        for step, batch in run.steps(batches):
            run.seed("dropout", step)
            lr = learning_rate(step, batches.steps_per_epoch, batches.num_steps, training)
            for group in optimizer.param_groups:
                group["lr"] = lr

            optimizer.zero_grad(set_to_none=True)
            for images, labels in run.pieces(batch):
                logits = model(images)
                run.backward(
                    F.cross_entropy(logits, labels, label_smoothing=training.label_smoothing)
                )
            grad_norm = clip_grad_norm_(model.parameters(), training.max_grad_norm)
            optimizer.step()
            run.log_step(loss=run.loss, grad_norm=grad_norm)

            if batches.ends_epoch(step):
                run.seed("eval", "val", step + 1)
                val_loss, accuracy = evaluate(model, data.val, *how_to_evaluate)
                run.log_metrics(learning_rate=lr, val_loss=val_loss, val_accuracy=accuracy)
                run.keep_best("val_accuracy", higher=True)

        # --- results --------------------------------------------------------------------------
        run.seed("eval", "test", batches.num_steps)
        test_loss, accuracy = evaluate(model, data.test, *how_to_evaluate)
        return run.finish({"test_loss": test_loss, "test_accuracy": accuracy})


@torch.no_grad()
def evaluate(
    model: nn.Module, split: Split, batch_size: int, device: torch.device, spread: Any = map
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy over a split, in order; draws no random number.

    `run.spread` in place of `map` shares the work among all processes.
    """

    def measure(begin: int) -> tuple[float, int]:
        part = slice(begin, begin + batch_size)
        labels = torch.tensor(split.labels[part], device=device)
        logits = model(torch.tensor(split.images[part], device=device))
        loss = F.cross_entropy(logits, labels, reduction="sum").item()
        return loss, int((logits.argmax(dim=1) == labels).sum())

    model.eval()
    total_loss, num_correct = 0.0, 0
    for loss, correct in spread(measure, range(0, len(split), batch_size)):
        total_loss, num_correct = total_loss + loss, num_correct + correct
    model.train()
    return total_loss / len(split), num_correct / len(split)
