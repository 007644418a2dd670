"""The expected results are those of this code: equal bits on the same class of machine."""

import json
from pathlib import Path

import pytest
from conftest import ROOT, launcher

from {{ cookiecutter.__package }}.config import config_from_dict, load_config, to_dict
from {{ cookiecutter.__package }}.data import load_data
from {{ cookiecutter.__package }}.environment import PORTABLE
from {{ cookiecutter.__package }}.expected import (
    CONFIG,
    differing_keys,
    expected_path,
    machine_class,
    readme_table,
    table,
)
from {{ cookiecutter.__package }}.manifest import read_manifest

EXPECTED = json.loads(expected_path(ROOT).read_text(encoding="utf-8"))


def test_they_are_of_this_configuration_and_these_data(tmp_path):
    """Another key or another bit of the data is named; `make expected` measures again."""
    config = load_config(ROOT / CONFIG)
    assert list(differing_keys(EXPECTED["config"], to_dict(config))) == []
    assert load_data(config.data, tmp_path).describe()["sha256"] == EXPECTED["data_sha256"]


def test_the_defaults_are_those_of_the_last_measurement():
    """A default that changes gives another meaning to every config that does not name its key."""
    defaults = to_dict(config_from_dict({"seed": 0}))
    assert list(differing_keys(EXPECTED["defaults"], defaults)) == []


def test_the_readme_shows_them():
    """The table between the markers is the file's, to the last digit."""
    assert readme_table((ROOT / "README.md").read_text(encoding="utf-8")) == table(EXPECTED)


def test_each_names_its_seed_and_its_machine():
    """A figure without its seed and machine cannot be compared with anything."""
    assert type(EXPECTED["config"]["seed"]) is int
    assert EXPECTED["runs"]
    for run in EXPECTED["runs"]:
        assert run["machine_class"]["cpu"]
        assert run["machine_class"]["torch"]
        assert 0 < run["metrics"]["test_accuracy"] <= 1


@pytest.fixture(scope="module")
def fresh(smoke_run, tmp_path_factory) -> tuple[dict, dict]:
    """The baseline, trained now in the profile that says most here: (expected run, manifest)."""
    here = read_manifest(smoke_run)
    portable = {**here, "determinism": {**here["determinism"], "cpu_capability": "AVX2"}}
    classes = {"fast": machine_class(here, "fast")}
    if "avx2" in here["hardware"]["isa"]:
        classes["portable"] = machine_class(portable, "portable")
    alike = [r for r in EXPECTED["runs"] if r["machine_class"] == classes.get(r["profile"])]
    run = (alike or EXPECTED["runs"])[0]
    return run, train_baseline(run["profile"] if alike else "fast", tmp_path_factory)


def train_baseline(profile: str, tmp_path_factory) -> dict:
    run_dir: Path = tmp_path_factory.mktemp("baseline") / "run"
    arguments = ("train", "--config", ROOT / CONFIG, "--run-dir", run_dir)
    environ = PORTABLE if profile == "portable" else {}
    done = launcher().run(*arguments, f"determinism.profile={profile}", environ=environ)
    assert done.returncode == 0, done.stderr
    return read_manifest(run_dir)


def test_a_fresh_run_comes_to_them(fresh):
    """Bit for bit on the same class of machine, within the stated tolerance elsewhere."""
    run, manifest = fresh
    results = manifest["results"]
    if machine_class(manifest, run["profile"]) == run["machine_class"]:
        assert results["weights_sha256"] == run["weights_sha256"]
        assert results["metrics"] == run["metrics"]
        assert results["num_steps"] == run["num_steps"]
    for name, tolerance in EXPECTED["tolerance"].items():
        assert results["metrics"][name] == pytest.approx(run["metrics"][name], abs=tolerance)
