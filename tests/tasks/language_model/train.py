"""The story of a language model: accumulated gradients, bfloat16, an average of the weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .config import Config, Model
from .data import NUM_SYMBOLS, Sequences, load_data
from .repro import Result, Run


def train_model(config: Config | Mapping[str, Any] | str | Path, **how: Any) -> Result:
    """Train, evaluate and record one run."""
    with Run(Config, config, **how) as run:
        training, context = run.config.training, run.config.model.context
        data = load_data(run.data_dir)
        batches = run.batches(
            Sequences(data.train, context),
            global_batch_size=training.global_batch_size,
            num_steps=training.num_steps,
            accumulate=training.accumulate,
            num_workers=run.config.data.num_workers,
        )
        held_out = torch.stack([Sequences(data.val, context)[0, index] for index in range(32)])

        run.seed("init")
        model = LanguageModel(run.config.model)
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(training.average))
        optimizer = torch.optim.AdamW(model.parameters(), training.learning_rate, fused=True)
        run.start(data.describe(), model=model, average=average, optimizer=optimizer)

        precision = getattr(torch, training.precision)
        for step, parts in run.steps(batches):
            run.seed("dropout", step)
            optimizer.zero_grad(set_to_none=True)
            total = 0.0
            for part in parts:
                with torch.autocast("cpu", precision, enabled=precision != torch.float32):
                    loss = model.loss(part) / len(parts)
                loss.backward()
                total += loss.item()
            if training.max_grad_norm is not None:
                clip_grad_norm_(model.parameters(), training.max_grad_norm)
            optimizer.step()
            average.update_parameters(model)
            run.log_step(loss=total)
            if (step + 1) % training.eval_every == 0:
                run.log_metrics(val_perplexity=perplexity(average.module, held_out))
                run.keep_best("val_perplexity", higher=False)

        score = perplexity(average.module, held_out)
        return run.finish({"val_perplexity": score}, weights=average.module)


class LanguageModel(nn.Module):
    """Characters int64 [B, T] to logits float [B, T, symbols]; one layer of causal attention."""

    def __init__(self, config: Model) -> None:
        super().__init__()
        self.symbols = nn.Embedding(NUM_SYMBOLS, config.width)
        self.positions = nn.Parameter(0.02 * torch.randn(config.context, config.width))
        self.layer = nn.TransformerEncoderLayer(
            config.width,
            config.num_heads,
            4 * config.width,
            config.dropout,
            batch_first=True,
            norm_first=True,
        )
        self.head = nn.Linear(config.width, NUM_SYMBOLS)

    def forward(self, characters: Tensor) -> Tensor:
        length = characters.shape[1]
        future = torch.triu(torch.ones(length, length, dtype=torch.bool), diagonal=1)
        features = self.symbols(characters) + self.positions[:length]
        return self.head(self.layer(features, src_mask=future))

    def loss(self, sequences: Tensor) -> Tensor:
        """Mean cross-entropy of each next character of sequences int64 [B, T + 1]."""
        logits = self(sequences[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1).float(), sequences[:, 1:].flatten())


@torch.no_grad()
def perplexity(model: nn.Module, sequences: Tensor) -> float:
    """How many characters the model hesitates between, on average."""
    model.eval()
    value = model.loss(sequences).exp().item()
    model.train()
    return value
