"""Every generator is seeded, every switch set and read back; layers draw from their own streams."""

import os
import random
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from real.repro import set_seed
from real.repro.backend import facts, seeding
from real.repro.backend.device import place, resolve_device
from real.repro.backend.sections import Determinism

set_seed(0)


def draws():
    return random.random(), float(np.random.rand()), float(tf.random.uniform([]))


def test_one_seed_sets_python_numpy_and_tensorflow():
    """The same numbers again, and others for another seed."""
    found = []
    for seed in (3, 3, 4):
        set_seed(seed)
        found.append(draws())
    assert found[0] == found[1]
    assert all(a != b for a, b in zip(found[0], found[2], strict=True))


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True, "1"])
def test_a_seed_that_some_library_refuses_is_refused(seed):
    """By the same sentence for all."""
    with pytest.raises(ValueError, match="seed must be a whole number"):
        set_seed(seed)


def test_every_switch_is_set_and_read_back():
    """As it stands in this process."""
    set_seed(0)
    found = seeding.read_determinism()
    assert found["deterministic_algorithms"] is True
    assert (found["num_threads"], found["inter_op_threads"]) == (1, 1)
    assert found["matmul_precision"] == "ieee"
    assert (found["floatx"], found["dtype_policy"]) == ("float32", "float32")
    assert found["image_data_format"] == "channels_last"
    seeding.set_determinism(Determinism(matmul_precision="tf32"))
    assert seeding.read_determinism()["matmul_precision"] == "tf32"
    set_seed(0)


def test_op_determinism_is_read_and_not_assumed():
    """A process that has not set it says so, one that has says the other."""
    code = "from real.repro.backend import seeding; from real.repro import set_seed; "
    read = "print(seeding.read_determinism()['deterministic_algorithms'])"
    command = [sys.executable, "-c", f"{code}{read}; set_seed(0); {read}"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_what_somebody_chose_before_is_set_back():
    """Precision and layout of this process, whoever set them."""
    keras.config.set_floatx("float16")
    keras.config.set_image_data_format("channels_first")
    keras.config.set_dtype_policy("mixed_bfloat16")
    set_seed(0)
    test_every_switch_is_set_and_read_back()


def test_a_switch_that_cannot_be_set_any_more_is_one_line():
    """Threads and op determinism hold for a process once it has computed."""
    float(tf.random.uniform([]))
    with pytest.raises(ValueError, match="with another number of threads"):
        seeding.set_determinism(Determinism(num_threads=3))
    with pytest.raises(ValueError, match="cannot be disabled again"):
        seeding.set_determinism(Determinism(deterministic_algorithms=False))
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(ValueError, match="sees no GPU"):
        resolve_device("cuda")


def model_of(*rates):
    pixels = keras.Input((64,), name="pixels")
    out = pixels
    for number, rate in enumerate(rates):
        out = keras.layers.Dropout(rate, name=f"dropout_of_{number}")(out)
    return keras.Model(pixels, out, name="model")


def mask(model):
    return np.asarray(model(np.ones((1, 64), np.float32), training=True)).tobytes()


def test_layers_draw_what_their_key_says_and_nothing_else():
    """Whatever was drawn before, in a traced function or not; each layer and step has its own."""
    model = place(model_of(0.5), "cpu")
    masks = {}
    for step in (0, 1, 0, 1):
        seeding.seed_stream(7, "dropout", step)
        masks.setdefault(step, set()).add(mask(model))
        mask(model)
    assert [len(found) for found in masks.values()] == [1, 1]
    assert masks[0] != masks[1]
    traced = tf.function(lambda x: model(x, training=True))
    found = set()
    for _ in range(3):
        seeding.seed_stream(7, "dropout", 1)
        found.add(np.asarray(traced(np.ones((1, 64), np.float32))).tobytes())
    assert len(found) == 1
    keys = [v.numpy().tolist() for v in place(model_of(0.5, 0.4, 0.3), "cpu").variables]
    assert len(keys) == 3
    other = place(model_of(0.5, 0.5), "cpu")
    seeding.seed_stream(7, "dropout", 0)
    states = [tuple(v.numpy().tolist()) for v in other.variables]
    assert len(set(states)) == 2


def test_every_bit_of_a_layers_key_counts():
    """Of both words: two steps that share a stream would be rare, and never seen."""
    model = place(model_of(0.5), "cpu")
    (state,) = model.variables
    bits, found = [*range(31), *range(32, 63)], set()
    for bit in bits:
        seeding.start_layer(state, 1 << bit)
        found.add(mask(model))
    assert len(found) == len(bits)


class Lazy(keras.Model):
    """Its layer is made when it is called for the first time."""

    def build(self, shape):
        self.drop = keras.layers.Dropout(0.5, name="drop")

    def call(self, x, training=False):
        return self.drop(x, training=training)


def test_a_layer_that_is_made_later_has_its_stream_too():
    """As in a model of one's own class, whose layers come with its first batch."""
    model = place(Lazy(name="lazy"), "cpu")
    mask(model)
    found = set()
    for _ in range(3):
        seeding.seed_stream(1, "dropout", 0)
        found.add(mask(model))
    assert len(found) == 1


def test_a_run_does_not_depend_on_the_models_of_another_in_the_same_process():
    """Though these are still there: the places of the layers are counted from the seed on."""
    found, kept = set(), []
    for _ in range(3):
        set_seed(0)
        kept.append(place(model_of(0.5), "cpu"))
        seeding.seed_stream(0, "dropout", 0)
        found.add(mask(kept[-1]))
    assert len(found) == 1


def test_initial_weights_are_a_function_of_the_stream():
    """Not of what was drawn, or built, before."""

    def weights(*path):
        seeding.seed_stream(*path)
        layer = keras.layers.Dense(4, name="dense")
        layer.build((None, 3))
        return layer.kernel.numpy().tobytes()

    first = weights(0, "init")
    random.random()
    assert weights(0, "init") == first
    assert len({first, weights(0, "other"), weights(1, "init")}) == 3


def test_only_keras_models_are_placed():
    """Or a layer by itself; anything else is told what it is."""
    place(keras.layers.RandomFlip(), "cpu")
    with pytest.raises(ValueError, match=r"run.place takes a Keras model, got function"):
        place(mask, "cpu")


def test_it_loads_without_a_word_and_leaves_no_trace(tmp_path):
    """Neither TensorFlow's notices nor the settings that Keras writes into a home."""
    environ = {
        **os.environ,
        **facts.variables({}, Determinism()),
        "HOME": str(tmp_path),
        "PYTHONPATH": "src",
    }
    command = [sys.executable, "-c", "import real.repro.backend.device"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert ".keras" not in {path.name for path in tmp_path.iterdir()}


def test_an_error_while_it_loads_is_shown(tmp_path):
    """Notices are left out, and nothing else."""
    (tmp_path / "keras.py").write_text("import sys\nsys.exit('broken: no oneDNN here')\n")
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:src"}
    command = [sys.executable, "-c", "import real.repro.backend.device"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 1
    assert "broken: no oneDNN here" in done.stderr
