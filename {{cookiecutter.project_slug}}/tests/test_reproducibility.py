"""The proof for this project's task: what must not matter does not change a bit.

`repro/testing/` makes the runs; all it needs from here is a configuration that takes seconds.
"""

from pathlib import Path

import pytest

from {{ cookiecutter.__package }}.repro.testing import SCENARIOS, Proof

SMOKE = Path(__file__).resolve().parents[1] / "configs" / "smoke.yaml"


@pytest.fixture(scope="module")
def proof(tmp_path_factory):
    """All runs are queued at once, two at a time; each test waits for the run it needs."""
    with Proof(SMOKE, tmp_path_factory.mktemp("proof")) as proof:
        yield proof


def test_verify_says_identical(proof):
    """Executing a run again from its manifest gives the same bits and exit code 0."""
    done = proof.verify("elsewhere")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "IDENTICAL"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_it_does_not_matter(proof, scenario):
    """Steps, metrics, weights and state equal those of a plain run, byte for byte."""
    assert proof.bits(scenario) == proof.bits("plain")


def test_the_seed_matters(proof):
    """Seed 0 is a seed like any other: its run differs from seed 1 from the first step on."""
    assert proof.first_step("plain") != proof.first_step("seed 1")
