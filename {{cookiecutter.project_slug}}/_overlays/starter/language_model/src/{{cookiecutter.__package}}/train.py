"""The story of a run, top to bottom: data, model, loop, results. Yours to change."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .config import Config
from .data import TrainSet, load_data, sequences
from .generate import sample
from .model import GPT, next_token_loss
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
        training, context = run.config.training, run.config.model.context
        device = run.use(training.device)

        # --- data -----------------------------------------------------------------------------
        data = load_data(run.config.data, run.data_dir, run.config.model)
        batches = run.batches(
            TrainSet(data.train, context, run.streams("crop")),
            global_batch_size=training.global_batch_size,
            num_steps=training.num_steps,
            accumulate=training.accumulate,
            num_workers=run.config.data.num_workers,
            prefetch_factor=run.config.data.prefetch_factor,
        )

        # --- model, optimizer, and the average that is evaluated --------------------------------
        run.seed("init")
        model = run.place(GPT(run.config.model))
        optimizer = build_optimizer(model, training)
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(training.average_decay))

        # --- start or resume: whatever is named here is saved, restored and checked -----------
        run.start(data.describe(), model=model, optimizer=optimizer, average=average)

        # --- loop: after each turn the run saves a checkpoint if one is due, and may stop -----
        precision = getattr(torch, training.precision)
        autocast = torch.autocast(device.type, precision, enabled=precision != torch.float32)
        model.train()
        for step, batch in run.steps(batches):
            run.seed("dropout", step)
            lr = learning_rate(step, training)
            for group in optimizer.param_groups:
                group["lr"] = lr

            optimizer.zero_grad(set_to_none=True)
            for tokens in run.pieces(batch):
                with autocast:
                    logits = model(tokens[:, :-1])
                run.backward(next_token_loss(logits, tokens[:, 1:]))
            grad_norm = clip_grad_norm_(model.parameters(), training.max_grad_norm)
            optimizer.step()
            average.update_parameters(model)
            run.log_step(loss=run.loss, grad_norm=grad_norm)

            if (step + 1) % training.eval_every == 0 or step + 1 == batches.num_steps:
                tokens = sequences(data.val, context)
                val_loss = evaluate(average.module, tokens, device, spread=run.spread)
                run.log_metrics(learning_rate=lr, val_loss=val_loss)
                run.keep_best("val_loss", higher=False)

        # --- results --------------------------------------------------------------------------
        tokens = sequences(data.test, context)
        test_loss = evaluate(average.module, tokens, device, spread=run.spread)
        run.seed("sample")
        run.write_file("sample.txt", sample(average.module, run.config.sample))
        return run.finish({"test_loss": test_loss}, weights=average.module)


@torch.no_grad()
def evaluate(
    model: GPT, tokens: torch.Tensor, device: torch.device, batch_size: int = 64, spread: Any = map
) -> float:
    """Mean loss over sequences int64 [N, context + 1], in order; draws no random number.

    `run.spread` in place of `map` shares the work among all processes.
    """

    def measure(part: torch.Tensor) -> float:
        return next_token_loss(model(part[:, :-1]), part[:, 1:]).item() * len(part)

    model.eval()
    total = 0.0
    for loss in spread(measure, tokens.to(device).split(batch_size)):
        total += loss
    model.train()
    return total / len(tokens)
