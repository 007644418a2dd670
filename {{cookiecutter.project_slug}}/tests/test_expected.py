"""The expected results match this code: equal bits on the same class of machine."""

import json
from pathlib import Path

import pytest

from {{ cookiecutter.__package }}.config import Config, load_config
from {{ cookiecutter.__package }}.data import load_data
from {{ cookiecutter.__package }}.repro.config.base import inert_keys
from {{ cookiecutter.__package }}.repro.config.load import config_from_dict, to_dict
from {{ cookiecutter.__package }}.repro.proof.baseline import (
    CONFIG,
    differing_keys,
    expected_path,
    machine_class,
    profiles,
    readme_table,
    run_baseline,
    table,
)

ROOT = Path(__file__).resolve().parents[1]
EXPECTED = json.loads(expected_path(ROOT).read_text(encoding="utf-8"))
INERT = tuple(inert_keys(Config))


def test_they_are_of_this_configuration_and_these_data(tmp_path):
    """A changed key or a changed bit of the data is named; `make expected` measures again."""
    config = load_config(ROOT / CONFIG)
    assert list(differing_keys(EXPECTED["config"], to_dict(config), INERT)) == []
    assert load_data(config.data, tmp_path).describe()["sha256"] == EXPECTED["data_sha256"]


def test_the_defaults_are_those_of_the_last_measurement():
    """Changing a default changes the meaning of every config that does not set its key."""
    defaults = to_dict(config_from_dict(Config, {"seed": 0}))
    assert list(differing_keys(EXPECTED["defaults"], defaults, INERT)) == []


def test_the_readme_shows_them():
    """The table between the markers matches the file, to the last digit."""
    assert readme_table((ROOT / "README.md").read_text(encoding="utf-8")) == table(EXPECTED)


def test_a_fresh_run_comes_to_them():
    """Bit for bit on the same class of machine, within the stated tolerance elsewhere."""
    profile = profiles()[-1]  # the one that says most here
    _, manifest = run_baseline(ROOT, profile)
    found, here = manifest["results"], machine_class(manifest, profile)
    alike = [run for run in EXPECTED["runs"] if run["machine_class"] == here]
    run = (alike or EXPECTED["runs"])[0]
    if alike:
        for name in ("weights_sha256", "metrics", "num_steps"):
            assert found[name] == run[name], name
    for name, tolerance in EXPECTED["tolerance"].items():
        assert found["metrics"][name] == pytest.approx(run["metrics"][name], abs=tolerance)
