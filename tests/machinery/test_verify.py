"""`verify` really executes the run again, and believes what comes of it."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, edit_manifest, run
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


ALONE = """
import sys
from pathlib import Path
from real.config import Config
from real.repro.proof.verify import verify

code = verify(Path(sys.argv[1]), Config)
print(*({"torch", "tensorflow"} & sys.modules.keys()))
sys.exit(code)
"""


def test_the_framework_is_loaded_only_where_checkpoints_differ(smoke_run, tmp_path):
    """It takes seconds, and equal files hold equal states; others are read before it is said that
    the runs differ."""
    for name, differs in (("same", False), ("other", True)):
        run_dir = shutil.copytree(smoke_run, tmp_path / name)
        if differs:
            newest = max((run_dir / "checkpoints").iterdir())
            shutil.copy(min((run_dir / "checkpoints").iterdir()), newest)
        command = [sys.executable, "-c", ALONE, run_dir]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == differs, done.stderr
        *_, verdict, loaded = done.stdout.splitlines()
        assert (verdict, bool(loaded)) == ("DIFFERENT" if differs else "IDENTICAL", differs)
