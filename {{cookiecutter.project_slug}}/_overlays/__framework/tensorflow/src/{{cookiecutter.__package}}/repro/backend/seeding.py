"""Every switch that makes TensorFlow deterministic, and the seeding of all generators."""

import os
import random
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ..random.streams import check_seed, derive
from ..shell import flags, recorded
from .facts import VARIABLES
from .quiet import keras, tf
from .sections import Determinism

_L1D = Path("/sys/devices/system/cpu/cpu0/cache/index0/size")
_models: "WeakKeyDictionary[keras.layers.Layer, None]" = WeakKeyDictionary()
"""The models of a run, in their order."""


def set_seed(seed: int, determinism: Determinism | None = None) -> None:
    """Seed Python, NumPy, TensorFlow and Keras and set the determinism switches.

    `PYTHONHASHSEED` cannot be set from here: it takes effect only at interpreter start, which
    the command line takes care of (`env.py`).

    Raises:
        ValueError: `seed` is not a whole number from 0 to `MAX_SEED`, or TensorFlow has computed
            with other switches.
    """
    check_seed(seed)
    _models.clear()  # of an earlier run in this process, whose models may still be there
    keras.utils.set_random_seed(seed)  # random, NumPy, TensorFlow
    set_determinism(determinism or Determinism())


def set_determinism(determinism: Determinism) -> None:
    """Set every switch of the `determinism` section; call before the first tensor.

    Raises:
        ValueError: TensorFlow has computed in this process with other switches.
    """
    if _op_determinism() and not determinism.deterministic_algorithms:
        raise ValueError("op determinism was enabled in this process, and cannot be disabled again")
    threads = tf.config.threading
    try:
        if threads.get_intra_op_parallelism_threads() != determinism.num_threads:
            threads.set_intra_op_parallelism_threads(determinism.num_threads)
        if threads.get_inter_op_parallelism_threads() != 1:
            threads.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        raise ValueError(
            "TensorFlow has computed in this process with another number of threads; set_seed "
            "comes before the first tensor"
        ) from None
    if determinism.deterministic_algorithms:
        tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(determinism.matmul_precision == "tf32")
    # Whatever this process or somebody's keras.json chose before.
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")


def read_determinism() -> dict[str, Any]:
    """The actual value of every switch in this process, not the one that was requested."""
    names = ("PYTHONHASHSEED", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", *VARIABLES)
    values = {name: os.environ.get(name) for name in names}
    values |= recorded(os.environ)
    values |= {"python_flags": flags()} if flags() else {}
    tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
    return {
        "deterministic_algorithms": _op_determinism(),
        "matmul_precision": "tf32" if tf32 else "ieee",
        "num_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
        "keras_backend": keras.config.backend(),
        "floatx": keras.config.floatx(),
        "epsilon": keras.config.epsilon(),
        "dtype_policy": keras.config.dtype_policy().name,
        "image_data_format": keras.config.image_data_format(),
        "jit": tf.config.optimizer.get_jit() or None,
        # Products are cut into blocks that fit it, and summed in that order.
        "l1d_cache": _L1D.read_text().strip() if _L1D.exists() else None,
        "environment": values,
    }


def _op_determinism() -> bool:
    # The public interface sets it and has no way to read it.
    from tensorflow.python.framework import config

    return config.is_op_determinism_enabled()


def seed_stream(seed: int, *path: str | int) -> None:
    """Set the generators to the start of the stream `path`, such as ("dropout", 7): Python's own,
    from which Keras takes initial weights, NumPy's, and that of each layer which draws.

    TensorFlow's stateful operations (`tf.random.normal`) are seeded once, by `set_seed`: they
    cannot be set back without losing all compiled functions. Draw by `tf.random.stateless_…`.
    """
    random.seed(derive(seed, *path))
    np.random.seed(derive(seed, *path, "numpy") % 2**32)
    # Looked up each time: a layer may be made when the model is first called. Not in `weights`,
    # since these counters are functions of the step.
    variables = (variable for model in _models for variable in model.variables)
    states = [each for each in variables if each.name == "seed_generator_state"]
    for place, state in enumerate(states):
        start_layer(state, derive(seed, *path, place))


def start_layer(state: keras.Variable, key: int) -> None:
    """Put the stream of a layer at its start: two words, of which Keras keeps 31 bits each."""
    state.assign(np.array([key >> 32, key & 0x7FFFFFFF], dtype=np.int64))


def register(model: keras.layers.Layer) -> None:
    """Let `seed_stream` set the layers of a model that draw, such as `Dropout`."""
    _models[model] = None
