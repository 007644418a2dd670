"""The optimizer, and the learning rate of each step. Yours to change."""

from math import cos, pi

import torch
from torch import nn

from .config import Training


def build_optimizer(model: nn.Module, config: Training) -> torch.optim.Optimizer:
    """AdamW, with weight decay for matrices only, as GPT-3 was trained: Brown et al., 2020.

    It is fused: several times faster on a CPU, and its square root is exact on every CPU, where the
    ordinary optimizer uses the chip's approximation.
    """
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    how = {"betas": (0.9, 0.95), "weight_decay": config.weight_decay, "fused": True}
    return torch.optim.AdamW(groups, config.learning_rate, **how)


def learning_rate(step: int, config: Training) -> float:
    """Linear warm-up, then a cosine down to a tenth; a function of the step, so it needs no state.

    Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts.
    """
    warmup = min(config.warmup_steps, config.num_steps - 1)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / (config.num_steps - warmup)
    return config.learning_rate * (0.1 + 0.9 * 0.5 * (1 + cos(pi * progress)))
