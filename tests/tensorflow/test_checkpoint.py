"""Checkpoints of Keras objects: whole or refused, without pickle, loaded only where they fit."""

import json
import math

import keras
import ml_dtypes
import numpy as np
import pytest
from real.repro import set_seed
from real.repro.backend import state as states
from real.repro.backend.state import capture, digest, from_file, restore, to_bytes, weights_file
from safetensors.numpy import load

set_seed(0)


def objects(width=4, *, kind=keras.optimizers.AdamW, name="dense"):
    """A small model that has been trained a little, and its optimizer."""
    pixels = keras.Input((3,), name="pixels")
    hidden = keras.layers.BatchNormalization(name="norm")(pixels)
    hidden = keras.layers.Dropout(0.5, name="dropout")(hidden)
    model = keras.Model(pixels, keras.layers.Dense(width, name=name)(hidden), name="model")
    optimizer = kind(0.1, name="optimizer")
    optimizer.build(model.trainable_variables)
    for variable in [*model.weights, *optimizer.variables]:
        if variable.dtype == "float32":
            variable.assign(np.random.default_rng(1).normal(size=variable.shape))
    return {"model": model, "optimizer": optimizer}


CLOCK = {"step": 3, "best": {"step": 2, "loss": math.pi}, "logs": {"steps.jsonl": "0" * 64}}


def written(tmp_path, state):
    path = tmp_path / "step-00000003.safetensors"
    path.write_bytes(to_bytes(state))
    return path


def test_a_state_comes_back_bit_for_bit(tmp_path):
    """Scalars, empty arrays, every dtype, nested values; and the file is the same each time."""

    class Odd:
        def state_dict(self):
            return {
                "scalar": np.float32(0.1) * np.ones(()),
                "none": None,
                "nan": float("nan"),
                "empty": np.zeros((0, 3), np.int8),
                "brain": np.arange(4).astype(ml_dtypes.bfloat16),
                "nested": [{"flags": np.array([True, False])}, "text", 1, 1.5, [np.int64(3)]],
                "strided": np.arange(12.0).reshape(3, 4).T,
            }

        def load_state_dict(self, state):
            pass

    state = capture({**objects(), "odd": Odd()}, **CLOCK)
    path = written(tmp_path, state)
    loaded = from_file(path)
    assert digest(loaded) == digest(state)
    assert loaded["odd"]["scalar"].shape == ()
    assert loaded["odd"]["strided"].tolist() == np.arange(12.0).reshape(3, 4).T.tolist()
    assert to_bytes(loaded) == path.read_bytes() == to_bytes(state)


def test_a_file_holds_json_and_arrays_only(tmp_path):
    """So that reading one executes nothing."""
    content = written(tmp_path, capture(objects(), **CLOCK)).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    plain = json.loads(header["__metadata__"]["checkpoint"])
    assert plain["state"]["step"] == 3
    assert set(header) == {"__metadata__", *load(content)}


@pytest.mark.parametrize("place", [0, 9, 200, -1])
def test_a_changed_byte_is_noticed(tmp_path, place):
    """In the header or in an array."""
    path = written(tmp_path, capture(objects(), **CLOCK))
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is not a whole checkpoint|was changed after"):
        from_file(path)


def test_a_truncated_file_is_refused(tmp_path):
    """At any length."""
    path = written(tmp_path, capture(objects(), **CLOCK))
    content = path.read_bytes()
    for length in (0, 7, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="is not a whole checkpoint"):
            from_file(path)


def test_what_is_restored_is_what_was_saved():
    """Weights, statistics and every variable of the optimizer; training goes on from there."""
    saved, live = objects(), objects()
    state = capture(saved, **CLOCK)
    for variable in [*live["model"].weights, *live["optimizer"].variables]:
        variable.assign(np.zeros(variable.shape, variable.dtype))
    restore(state, live)
    assert digest(capture(live)) == digest(capture(saved))


def test_a_saved_state_does_not_change_with_training():
    """It is written by another thread, later."""
    live = objects()
    state = capture(live, **CLOCK)
    before = digest(state)
    for variable in [*live["model"].weights, *live["optimizer"].variables]:
        variable.assign(variable + 1)
    assert digest(state) == before


def test_the_counters_of_layers_are_not_state():
    """They are functions of the step; a batch that was drawn changes no checkpoint."""
    live = objects()
    before = digest(capture(live))
    live["model"](np.ones((2, 3), np.float32), training=False)
    counters = [v for v in live["model"].variables if v.name == "seed_generator_state"]
    counters[0].assign(counters[0] + 1)
    assert digest(capture(live)) == before


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"width": 5}, r"dense/kernel was float32 \[3, 4\], is float32 \[3, 5\]"),
        ({"name": "other"}, r"dense/kernel was float32 \[3, 4\], is not there"),
        ({"kind": keras.optimizers.SGD}, "the optimizer was AdamW, is SGD"),
    ],
)
def test_a_state_of_other_objects_is_refused_and_nothing_is_loaded(other, told):
    """By the first name that does not fit."""
    state, live = capture(objects(), **CLOCK), objects(**other)
    before = digest(capture(live))
    with pytest.raises(ValueError, match=told):
        restore(state, live)
    assert digest(capture(live)) == before
    with pytest.raises(ValueError, match="it holds model, optimizer; this run has model"):
        restore(state, {"model": objects()["model"]})


def test_a_state_that_does_not_arrive_is_refused(monkeypatch):
    """Somebody's variable that ignores what it is assigned."""
    saved, live = objects(), objects()
    live["model"].weights[0].assign(live["model"].weights[0] + 1)
    state = capture(saved, **CLOCK)
    monkeypatch.setattr(keras.Variable, "assign", lambda self, value: None)
    with pytest.raises(ValueError, match="the state of step 3 did not survive loading"):
        restore(state, live)


def test_what_could_not_be_resumed_is_refused_before_the_first_step():
    """An optimizer that is not built, a state that JSON does not hold."""

    class Bytes:
        def state_dict(self):
            return {"key": b"x"}

        def load_state_dict(self, state):
            pass

    states.check_ready(objects())
    odd = {
        "has no variables yet; build it before run.start": keras.optimizers.SGD(momentum=0.9),
        "the state of it cannot be saved: .*bytes": Bytes(),
    }
    for told, each in odd.items():
        with pytest.raises(ValueError, match=told):
            states.check_ready({"it": each})


def test_two_variables_of_one_name_are_refused():
    """Saved by name, one would overwrite the other."""
    live = objects()
    first, second = live["model"].weights[:2]
    second._path = first.path
    with pytest.raises(ValueError, match=r"two variables are called .*; give every layer a name"):
        capture(live)


def test_what_has_no_state_is_no_state():
    """Arrays and lists are none, whatever else they have."""
    assert isinstance(objects()["model"], states.Stateful)
    assert not isinstance(np.zeros(3), states.Stateful)
    assert not isinstance([1], states.Stateful)


def test_the_final_weights_are_those_of_the_model():
    """By the names of the variables; of several models, with the name of each before them."""
    live = objects()
    weights = load(weights_file(live))
    assert weights.keys() == {variable.path for variable in live["model"].weights}
    assert np.array_equal(weights["dense/kernel"], live["model"].get_layer("dense").kernel.numpy())
    several = load(weights_file({"a": live["model"], "b": objects()["model"]}))
    assert {name.partition(".")[0] for name in several} == {"a", "b"}
