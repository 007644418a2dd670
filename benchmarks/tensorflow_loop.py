"""The whole of `train_model` against Keras's `model.fit`, on the same model and the same batches.

Ours has its step log, its checkpoints, its bar, its evaluations; `fit` has its own evaluations and
nothing else. Runs inside a TensorFlow demo's environment:

make demo DEMO_STACK=tensorflow-2.21.0-cpu && python benchmarks/tensorflow_loop.py
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

from pairs import report
from training_loop import PROJECT

EPOCHS, ROUNDS, WIDTH = 10, 7, 32


def main() -> None:
    """Start the comparison in the demo's environment."""
    python = PROJECT / ".venv" / "bin" / "python"
    if not python.exists() or not (PROJECT / "src/demo_project/repro/backend/quiet.py").exists():
        sys.exit("error: run make demo DEMO_STACK=tensorflow-2.21.0-cpu first")
    facts = PROJECT / "src" / "demo_project" / "repro" / "backend" / "facts.py"
    settings: dict[str, object] = {}
    exec(facts.read_text(), settings)  # what the project sets before its framework is loaded
    determinism = SimpleNamespace(num_threads=1, deterministic_algorithms=True)
    variables = settings["variables"]({}, determinism)
    environ = {**os.environ, **variables, "MLFLOW_TRACKING_URI": ""}
    subprocess.run([python, __file__, "inside"], cwd=PROJECT, env=environ, check=True)


def ours(config) -> float:
    """Steps per second of `train_model`, records and evaluations included."""
    from demo_project import train_model

    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        result = train_model(config, run_dir=Path(scratch) / "run")
        seconds = time.perf_counter() - started
        num_steps = len((result.run_dir / "steps.jsonl").read_text().splitlines())
    return num_steps / seconds


def fit(config) -> float:
    """Steps per second of `model.fit` on the batches of our loader, and its evaluations."""
    import keras
    import tensorflow as tf
    from demo_project.data import TrainSet, load_data
    from demo_project.model import build_model
    from demo_project.repro import SampleStreams
    from demo_project.repro.backend.loader import Batches
    from demo_project.repro.random.sampler import BatchSampler

    started = time.perf_counter()
    training = config.training
    data = load_data(config.data, Path("data"))
    size = training.global_batch_size
    sampler = BatchSampler(len(data.train), size, seed=config.seed, num_epochs=EPOCHS)
    batches = Batches(TrainSet(data.train, config.data, SampleStreams(config.seed)), sampler, 0, 2)
    shape = {"shape": data.shape, "num_classes": data.num_classes}
    model = build_model(config.model, **shape, mean=data.mean, std=data.std)
    per_epoch = batches.steps_per_epoch
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, per_epoch * (EPOCHS - 2), warmup_target=4e-3, warmup_steps=2 * per_epoch
    )
    how = {"weight_decay": training.weight_decay, "global_clipnorm": training.max_grad_norm}
    model.compile(
        keras.optimizers.AdamW(rate, **how),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    form = (tf.TensorSpec((size, *data.shape), tf.uint8), tf.TensorSpec((size,), tf.int64))
    source = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=form)
    model.fit(
        source.prefetch(2),
        epochs=EPOCHS,
        steps_per_epoch=per_epoch,
        validation_data=(data.val.images, data.val.labels),
        validation_batch_size=size,
        verbose=0,
    )
    model.evaluate(data.test.images, data.test.labels, batch_size=size, verbose=0)
    return batches.num_steps / (time.perf_counter() - started)


def inside() -> None:
    """Run both in turn and print the ratio, pair by pair."""
    from demo_project.config import load_config

    overrides = [f"training.num_epochs={EPOCHS}", f"model.width={WIDTH}", "training.device=cpu"]
    config = load_config("configs/baseline.yaml", overrides)
    report("model.fit", lambda: ours(config), lambda: fit(config), target=0.95, rounds=ROUNDS)


if __name__ == "__main__":
    inside() if sys.argv[1:] == ["inside"] else main()
