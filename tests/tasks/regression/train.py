"""The story of a regression: data, model, loop, results."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .config import Config, Model
from .data import Table, TrainSet, load_data
from .repro import Result, Run


def train_model(config: Config | Mapping[str, Any] | str | Path, **how: Any) -> Result:
    """Train, evaluate and record one run."""
    with Run(Config, config, **how) as run:
        training = run.config.training
        data = load_data()
        batches = run.batches(
            TrainSet(data.train, run.config.data.noise, run.streams("noise")),
            global_batch_size=training.global_batch_size,
            num_epochs=training.num_epochs,
            num_workers=run.config.data.num_workers,
        )

        run.seed("init")
        model = build_model(run.config.model, data.train.features.shape[1])
        optimizer = torch.optim.AdamW(model.parameters(), training.learning_rate, fused=True)
        run.start(data.describe(), model=model, optimizer=optimizer)

        for step, (features, targets) in run.steps(batches):
            loss = F.mse_loss(model(features).squeeze(1), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            run.log_step(mse=loss)
            if batches.ends_epoch(step):
                run.log_metrics(**evaluate(model, data.val, "val"))
                run.keep_best("val_mae", higher=False)

        return run.finish(evaluate(model, data.test, "test"))


def build_model(config: Model, num_features: int) -> nn.Module:
    """A perceptron: features float32 [B, F] to one number each [B, 1]."""
    widths = [num_features, *config.hidden]
    layers = [
        layer
        for before, after in pairwise(widths)
        for layer in (nn.Linear(before, after), nn.ReLU())
    ]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 1))


@torch.no_grad()
def evaluate(model: nn.Module, table: Table, split: str) -> dict[str, float]:
    """Mean squared and absolute error, and the share of the variance that is explained."""
    predicted = model(torch.from_numpy(table.features)).squeeze(1)
    targets = torch.from_numpy(table.targets)
    mse = F.mse_loss(predicted, targets).item()
    mae = F.l1_loss(predicted, targets).item()
    r2 = 1 - mse / targets.var(correction=0).item()
    return {f"{split}_mse": mse, f"{split}_mae": mae, f"{split}_r2": r2}
