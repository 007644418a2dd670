"""The loss, the optimizer, and the learning rate of each step. Yours to change."""

from math import cos, pi

import keras
import tensorflow as tf

from .config import Training


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Cross-entropy of each sample [B], of labels int64 [B] and logits [B, num_classes]."""
    share = smoothing / logits.shape[-1]
    target = tf.one_hot(labels, logits.shape[-1], 1 - smoothing + share, share)
    return tf.nn.softmax_cross_entropy_with_logits(target, logits)


def build_optimizer(model: keras.Model, config: Training) -> keras.Optimizer:
    """The optimizer of `config`, with its state made, so that it can be restored.

    Weight decay is decoupled in both, which in PyTorch's SGD it is not.
    """
    how = {"weight_decay": config.weight_decay, "name": "optimizer"}
    if config.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(config.learning_rate, momentum=0.9, nesterov=True, **how)
    else:
        optimizer = keras.optimizers.AdamW(config.learning_rate, epsilon=1e-8, **how)
    optimizer.build(model.trainable_variables)
    return optimizer


def learning_rate(step: int, steps_per_epoch: int, num_steps: int, config: Training) -> float:
    """Linear warm-up, then cosine decay to zero; a function of the step, so it needs no state.

    Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts.
    """
    warmup = min(round(config.warmup_epochs * steps_per_epoch), num_steps - 1)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / (num_steps - warmup)
    return config.learning_rate * 0.5 * (1 + cos(pi * progress))
