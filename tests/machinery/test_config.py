"""A configuration is typed, frozen, and names every mistake by its key."""

from typing import Annotated, Literal, Self

import pytest
from conftest import ROOT
from pydantic import Field, field_validator, model_validator
from real.config import Config, Data, load_config
from real.repro import Inert, RunConfig, Section
from real.repro.config.base import MAX_SEED, inert_keys, is_inert
from real.repro.config.load import config_from_dict, to_dict, to_yaml


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_config_loads_and_survives_a_round_trip(path, tmp_path):
    """What `to_yaml` writes is what `load_config` reads."""
    config = load_config(path)
    copy = tmp_path / "copy.yaml"
    copy.write_text(to_yaml(to_dict(config)))
    assert load_config(copy) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 0\nmodle: {}", "unknown key 'modle'; did you mean 'model'?"),
        ("seed: 0\ndata: {num_worker: 1}", "unknown key 'data.num_worker'; did you mean"),
        ("seed: 0\ndata: {num_workers: -1}", "data.num_workers must be at least 0 and at most"),
        ("seed: 0\ndata: {num_workers: 1.5}", "data.num_workers must be a whole number, got float"),
        ("seed: 0\ndata: {num_workers: true}", "data.num_workers must be a whole number, got bool"),
        ("seed: 0\ndata: 3", "data must be a section of keys"),
        ("seed: 0\nmodel: {name: vgg}", "model.name must be one of small_cnn, resnet18; got 'vgg'"),
        (
            "seed: 0\ntraining: {learning_rate: 0}",
            "training.learning_rate must be above 0 and at most 1000000.0, got 0",
        ),
        ("seed: 0\ntraining: {learning_rate: .nan}", "must be a finite number, got nan"),
        ("seed: 0\ntraining: {learning_rate: fast}", "training.learning_rate must be a number"),
        ("seed: -1", "seed must be at least 0 and at most 4294967295, got -1"),
        (f"seed: {MAX_SEED + 1}", "seed must be at least 0 and at most 4294967295"),
        ("data: {}", "missing key 'seed'"),
        ("seed: 0\nexperiment_name: ../x", "experiment_name must be letters, digits"),
        ("seed: 0\nseed: 1", "key 'seed' stands twice"),
        ("a: &a [x]\nb: *a", "aliases (*name) are not allowed"),
        ("[1, 2]", "must be a mapping of keys"),
        ("seed: [", "is not valid YAML"),
    ],
)
def test_a_mistake_is_refused_in_one_line_with_its_key(tmp_path, text, message):
    """The message names the key, what was given and what is allowed."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as refusal:
        load_config(path)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


class Schedule(Section):
    name: Annotated[str, Field(pattern="^[a-z]+$")] = "cosine"
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = (10, 20)
    warmup: Annotated[float, Field(ge=0)] | None = None
    power: Literal[1, 2] = 1

    @field_validator("milestones")
    @classmethod
    def rises(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError("must rise")
        return value


class Task(Section):
    schedule: Schedule = Schedule()
    heads: Annotated[list[str], Field(min_length=1, default=["main"])]
    weights: Annotated[dict[str, float], Field(default={})]
    num_workers_eval: int = 0

    @model_validator(mode="after")
    def weighs_its_heads(self) -> Self:
        if other := sorted(self.weights.keys() - set(self.heads)):
            raise ValueError(f"must weigh its heads only, not {other[0]}")
        return self


class Own(RunConfig):
    """A user's configuration, with keys of every kind."""

    task: Task = Task()
    num_copies: Annotated[int, Inert] = 1


@pytest.mark.parametrize(
    "text",
    [
        "seed: 0",
        "seed: 0\ntask: {heads: [a, b], weights: {a: 0.5}}",
        "seed: 0\ntask: {schedule: {milestones: [1, 2, 30], warmup: null, power: 2}}",
        "seed: 0\ntask: {schedule: {milestones: [], warmup: 0.5}}",
    ],
)
def test_a_users_own_keys_survive_a_round_trip(tmp_path, text):
    """Lists, optionals, numeric choices, mappings and nested sections, from YAML and back."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    config = Own.load(path)
    path.write_text(to_yaml(to_dict(config)))
    assert Own.load(path) == config


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("{schedule: {milestones: 3}}", "task.schedule.milestones must be a list, got int '3'"),
        ("{schedule: {milestones: [0]}}", "task.schedule.milestones.0 must be at least 1, got 0"),
        ("{schedule: {milestones: [3, 2]}}", "task.schedule.milestones must rise, got [3, 2]"),
        ("{schedule: {milestones: [1.5]}}", "task.schedule.milestones.0 must be a whole number"),
        ("{schedule: {warmup: -1}}", "task.schedule.warmup must be at least 0"),
        ("{schedule: {power: 3}}", "task.schedule.power must be one of 1, 2; got 3"),
        ("{schedule: {name: A}}", "task.schedule.name must match pattern '^[a-z]+$', got str 'A'"),
        ("{schedule: {mile: 3}}", "unknown key 'task.schedule.mile'; did you mean"),
        ("{heads: []}", "task.heads must have at least 1 item"),
        ("{heads: [1]}", "task.heads.0 must be text, got int '1'"),
        ("{weights: {a: x}}", "task.weights.a must be a number, got str 'x'"),
        ("{weights: {a: 1}}", "task must weigh its heads only, not a"),
    ],
)
def test_a_users_own_mistake_is_one_line_too(tmp_path, task, message):
    """With the path of the key, what is allowed and what was given."""
    path = tmp_path / "config.yaml"
    path.write_text(f"seed: 0\ntask: {task}")
    with pytest.raises(ValueError) as refusal:
        Own.load(path)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_key_is_inert_by_its_mark_and_not_by_its_name():
    """`num_workers_eval` begins like one that is inert, and is not."""
    inert = tuple(inert_keys(Own))
    assert "num_copies" in inert
    assert is_inert("paths.data_dir", inert)
    assert not is_inert("task.num_workers_eval", inert)
    assert not is_inert("num_copies_of", inert)
    assert not is_inert("data.num_workers_eval", tuple(inert_keys(Config)))


def test_a_missing_file_is_named(tmp_path):
    """A path that does not exist is refused with the path."""
    with pytest.raises(ValueError, match=r"cannot read config .*none\.yaml"):
        load_config(tmp_path / "none.yaml")


def test_overrides_apply_in_order_and_the_seed_last():
    """`section.key=value` is read as YAML; an explicit seed wins over the file's."""
    overrides = ["data.num_workers=3", "training.learning_rate=1e-3", "data.num_workers=2"]
    config = load_config(ROOT / "configs" / "smoke.yaml", overrides, seed=7)
    assert (config.data.num_workers, config.training.learning_rate, config.seed) == (2, 1e-3, 7)


def test_an_override_has_no_comments():
    """A shell has taken them away already, so what is left is a value."""
    overrides = ["paths.data_dir=run #3", "paths.output_dir='a #b'"]
    config = load_config(ROOT / "configs" / "smoke.yaml", overrides)
    assert (config.paths.data_dir, config.paths.output_dir) == ("run #3", "a #b")
    with pytest.raises(ValueError, match="'3 # or 4'"):
        load_config(ROOT / "configs" / "smoke.yaml", ["data.num_workers=3 # or 4"])


@pytest.mark.parametrize(
    "override",
    [
        *("data.num_workers", "=1", "seed.x=1", "data.none=1", "seed=" + "[" * 9999),
        *(f"experiment_name=!!{kind}" for kind in ("set {a}", "binary aGk=", "omap [a: 1]")),
        "experiment_name=!!timestamp 2020-01-01",
    ],
)
def test_a_bad_override_is_refused(override):
    """No equals sign, no key, a value used as a section, an unknown key, a kind of YAML's own."""
    with pytest.raises(ValueError):
        load_config(ROOT / "configs" / "smoke.yaml", [override])


def test_a_config_is_frozen_and_checked_however_it_is_built():
    """Nobody changes a value behind the run's back, and no constructor skips the check."""
    config = config_from_dict(Config, {"seed": 0})
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1
    with pytest.raises(ValueError, match="num_workers"):
        Data(num_workers=-1)


def test_every_key_has_a_default_but_the_seed():
    """The seed is a decision; nothing else has to be given."""
    assert to_dict(config_from_dict(Config, {"seed": 3}))["seed"] == 3
