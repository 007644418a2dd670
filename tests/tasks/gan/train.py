"""The story of a GAN: two networks, two optimizers, two losses, and nothing to be right about."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import Dataset

from .config import Config
from .repro import Result, Run


class Images(Dataset):
    """Digits float32 [64] from -1 to 1, fetched by `(epoch, index)`."""

    def __init__(self) -> None:
        self.images = (load_digits().data / 8 - 1).astype(np.float32)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        return torch.from_numpy(self.images[key[1]])

    def describe(self) -> dict[str, Any]:
        digest = hashlib.sha256(self.images.tobytes()).hexdigest()
        return {"name": "digits", "num_samples": len(self), "sha256": digest}


def train_model(config: Config | Mapping[str, Any] | str | Path, **how: Any) -> Result:
    """Train and record one run."""
    with Run(Config, config, **how) as run:
        training, shape = run.config.training, run.config.model
        images = Images()
        batches = run.batches(
            images,
            global_batch_size=training.global_batch_size,
            num_epochs=training.num_epochs,
            num_workers=run.config.data.num_workers,
        )

        run.seed("init")
        generator = network(shape.num_latents, shape.width, 64, nn.Tanh())
        critic = network(64, shape.width, 1, nn.Identity())
        rates = training.learning_rates
        makes = torch.optim.Adam(generator.parameters(), rates[0], betas=(0.5, 0.999), fused=True)
        judges = torch.optim.Adam(critic.parameters(), rates[1], betas=(0.5, 0.999), fused=True)
        run.start(images.describe(), generator=generator, critic=critic, makes=makes, judges=judges)

        for step, real in run.steps(batches):
            run.seed("latents", step)
            fake = generator(torch.randn(len(real), shape.num_latents))

            critic_loss = (
                F.softplus(-critic(real)).mean() + F.softplus(critic(fake.detach())).mean()
            )
            judges.zero_grad(set_to_none=True)
            critic_loss.backward()
            judges.step()

            generator_loss = F.softplus(-critic(fake)).mean()
            makes.zero_grad(set_to_none=True)
            generator_loss.backward()
            makes.step()

            run.log_step(critic_loss=critic_loss, generator_loss=generator_loss)
            if batches.ends_epoch(step):
                run.log_metrics(spread=fake.detach().std())

        run.seed("eval", "end")
        with torch.no_grad():
            drawn = generator(torch.randn(256, shape.num_latents))
        return run.finish({"spread": drawn.std()})


def network(num_inputs: int, width: int, num_outputs: int, last: nn.Module) -> nn.Module:
    """float32 [B, num_inputs] to [B, num_outputs]."""
    hidden = [nn.Linear(num_inputs, width), nn.LeakyReLU(0.2), nn.Linear(width, width)]
    return nn.Sequential(*hidden, nn.LeakyReLU(0.2), nn.Linear(width, num_outputs), last)
