"""The story of a run, top to bottom: data, model, loop, results. Yours to change."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .config import Config, Training
from .data import Split, TrainSet, load_data
from .model import build_model
from .optim import build_optimizer, cross_entropy, learning_rate
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
        run.use(training.device)

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
        shape = {"shape": data.shape, "num_classes": data.num_classes}
        model = build_model(run.config.model, **shape, mean=data.mean, std=data.std)
        run.place(model)  # its dropout draws from the streams of the run
        optimizer = build_optimizer(model, training)

        # --- start or resume: whatever is named here is saved, restored and checked -----------
        run.start(data.describe(), model=model, optimizer=optimizer)

        train_step = build_step(model, optimizer, training)
        evaluate = build_evaluation(model, training.global_batch_size)

        # --- loop: after each turn the run saves a checkpoint if one is due, and may stop -----
        for step, (images, labels) in run.steps(batches):
            run.seed("dropout", step)
            lr = learning_rate(step, batches.steps_per_epoch, batches.num_steps, training)
            # A number of NumPy's: a Python float would be a new function for each value.
            loss, grad_norm = train_step(images, labels, np.float32(lr))
            run.log_step(loss=loss, grad_norm=grad_norm)

            if batches.ends_epoch(step):
                val_loss, accuracy = evaluate(data.val)
                run.log_metrics(learning_rate=lr, val_loss=val_loss, val_accuracy=accuracy)
                run.keep_best("val_accuracy", higher=True)

        # --- results --------------------------------------------------------------------------
        test_loss, accuracy = evaluate(data.test)
        return run.finish({"test_loss": test_loss, "test_accuracy": accuracy})


def build_step(
    model: keras.Model, optimizer: keras.Optimizer, config: Training
) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """One optimizer step: images, labels and learning rate to loss and norm of the gradient."""

    @tf.function
    def step(images: tf.Tensor, labels: tf.Tensor, lr: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = tf.reduce_mean(cross_entropy(labels, logits, config.label_smoothing))
        weights = model.trainable_variables
        gradients, norm = tf.clip_by_global_norm(tape.gradient(loss, weights), config.max_grad_norm)
        optimizer.learning_rate.assign(lr)
        optimizer.apply(gradients, weights)
        return loss, norm

    return step


def build_evaluation(model: keras.Model, batch_size: int) -> Callable[[Split], tuple[float, float]]:
    """Mean cross-entropy and accuracy over a split, in order; draws no random number."""

    @tf.function(reduce_retracing=True)  # the last batch is smaller
    def sums(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = model(images, training=False)
        correct = tf.cast(tf.argmax(logits, axis=1) == labels, tf.int64)
        return tf.reduce_sum(cross_entropy(labels, logits)), tf.reduce_sum(correct)

    def evaluate(split: Split) -> tuple[float, float]:
        total_loss, num_correct = 0.0, 0
        for begin in range(0, len(split), batch_size):
            part = slice(begin, begin + batch_size)
            loss, correct = sums(split.images[part], split.labels[part])
            total_loss, num_correct = total_loss + float(loss), num_correct + int(correct)
        return total_loss / len(split), num_correct / len(split)

    return evaluate
