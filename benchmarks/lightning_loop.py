"""The whole of `train_model`'s loop against Lightning's Trainer, on the same model and loader.

Lightning runs with `seed_everything(workers=True)` and `deterministic=True` and with nothing else:
no logger, no checkpoints, no bar, no validation. Ours has its step log, its checkpoints, its bar.

Runs inside the demo's environment (`make demo` makes it): python benchmarks/lightning_loop.py
"""

import logging
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

from pairs import report
from training_loop import EPOCHS, PROJECT, ROOT, our_batches, our_loop

ROUNDS = 7
PACKAGES = ROOT / "build" / "bench"


def main() -> None:
    """Fetch Lightning beside the demo's environment, and start the comparison there."""
    python = PROJECT / ".venv" / "bin" / "python"
    if not python.exists():
        sys.exit("error: the demo's environment is missing; run make demo first")
    if not (PACKAGES / "lightning").exists():
        requirements = ROOT / "benchmarks" / "requirements.txt"
        command = [python, "-m", "pip", "install", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--target", PACKAGES]
        subprocess.run([*command, "--requirement", requirements], check=True)
    environ = {**os.environ, "PYTHONPATH": str(PACKAGES), "MLFLOW_TRACKING_URI": ""}
    subprocess.run([python, __file__, "inside"], cwd=PROJECT, env=environ, check=True)


def lightning_loop(config) -> float:
    """Steps per second of Lightning's Trainer."""
    import lightning
    import torch.nn.functional as F
    from demo_project.data import load_data
    from demo_project.model import build_model
    from demo_project.optim import build_optimizer
    from demo_project.repro.backend.seeding import set_determinism

    class Module(lightning.LightningModule):
        def __init__(self, model) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch, _):
            images, labels = batch
            smoothing = config.training.label_smoothing
            return F.cross_entropy(self.model(images), labels, label_smoothing=smoothing)

        def configure_optimizers(self):
            return build_optimizer(self.model, config.training)

    set_determinism(config.determinism)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    data = load_data(config.data, Path("data"))
    batches = our_batches(config, data)
    model = build_model(config.model, num_classes=10, mean=data.mean, std=data.std)
    marks: list[float] = []

    class Clock(lightning.Callback):
        def on_train_batch_start(self, *_) -> None:
            marks[:] = marks or [time.perf_counter()]

        def on_train_batch_end(self, *_) -> None:
            marks[1:] = [time.perf_counter()]

    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,  # the loader runs through all epochs in one iterator
        deterministic=True,
        gradient_clip_val=config.training.max_grad_norm,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[Clock()],
    )
    # The `DataLoader` itself: of an iterable without a length Lightning fetches one batch ahead.
    trainer.fit(Module(model), batches._loader)
    assert trainer.global_step == batches.num_steps
    return batches.num_steps / (marks[1] - marks[0])


def inside() -> None:
    """Run both in turn and print the ratio, pair by pair."""
    from demo_project.config import load_config

    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    config = load_config("configs/baseline.yaml", [f"training.num_epochs={EPOCHS}"])
    report(
        "Lightning",
        lambda: our_loop(config),
        lambda: lightning_loop(config),
        target=1.0,
        rounds=ROUNDS,
    )


if __name__ == "__main__":
    inside() if sys.argv[1:] == ["inside"] else main()
