"""`verify` really executes the run again, and believes what comes of it."""

import json
import shutil

import pytest
from conftest import edit_manifest, run
from real.repro.config.load import config_sha256
from real.repro.run.manifest import read_manifest


@pytest.mark.parametrize("how", [(), ("--segments", "2")])
def test_a_run_that_does_not_repeat_is_different(smoke_run, tmp_path, how):
    """A record that is whole and names another seed than the run had: other bits from its first
    step on, an exit code of their own, and the same verdict for programs."""
    run_dir = shutil.copytree(smoke_run, tmp_path / "run")
    config = {**read_manifest(run_dir)["config"], "seed": 5}
    edit_manifest(run_dir, seed=5, config=config, config_sha256=config_sha256(config))
    text = (run_dir / "config.yaml").read_text()
    assert "seed: 0\n" in text
    (run_dir / "config.yaml").write_text(text.replace("seed: 0\n", "seed: 5\n"))
    done = run("verify", run_dir, *how)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1] == "DIFFERENT"
    found = json.loads((run_dir / "verify.json").read_text())
    assert found["identical"] is False
    assert found["first_divergence"]["step"] == found["segments"][0]["start"] + 1
