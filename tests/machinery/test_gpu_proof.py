"""`gpu-proof`, but for the device: what it compares, what it writes, what it refuses."""

import json

import pytest
from conftest import SMOKE, run
from real.config import Config
from real.repro.testing import gpu_proof as module
from real.repro.testing.gpu_proof import BEGIN, END, gpu_proof, into_readme
from real.repro.testing.probe import PROBES, probed

ROW = "| NVIDIA H100 | 580.1 | 13.0 | 2.13.0 | 23 of 23 | 0.99 | 0.97 |"


@pytest.fixture
def shorter(monkeypatch, tmp_path):
    """Two scenarios in place of all, and a project that takes the report."""
    wanted = ("1 worker", "killed in the middle of training")
    choose(monkeypatch, {name: module.SCENARIOS[name] for name in wanted})
    monkeypatch.setattr(module, "TWICE", {n: module.TWICE[n] for n in [*module.TWICE][-1:]})
    written = []
    monkeypatch.setattr(module, "write_whole", lambda path, text: written.append(json.loads(text)))
    return written


def choose(monkeypatch, scenarios):
    monkeypatch.setattr(module, "SCENARIOS", scenarios)
    monkeypatch.setattr("real.repro.testing.proof.SCENARIOS", scenarios)


def rehearse():
    how = {"config": SMOKE, "speed_config": SMOKE, "device": "cpu", "pairs": 1}
    return gpu_proof(Config, **how)


def test_a_rehearsal_on_the_cpu_runs_everything_but_the_device(shorter, capsys):
    """Verdicts, ratios, facts, how the environment differs from the lock; no row in the README."""
    assert rehearse() == 0
    (report,) = shorter
    assert {name: each["ok"] for name, each in report["verdicts"].items()} == {
        "1 worker": True,
        "killed in the middle of training": True,
        "another seed": True,
        "verify": True,
        "bfloat16 autocast, twice": True,
    }
    assert all(0 < value < 3 for values in report["ratios"].values() for value in values)
    assert report["row"].startswith("| none: ")
    assert isinstance(report["differs_from_lock"], list)
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == ["written: gpu-proof.json", "PROVED"]


def test_what_is_not_equal_is_said_and_the_rest_is_tried_all_the_same(shorter, monkeypatch, capsys):
    """A scenario that gives other bits, and one that cannot run."""
    scenarios = {
        "another learning rate": lambda proof, run_dir: proof.train(
            run_dir, "training.learning_rate=0.5"
        ),
        "a key that is not there": lambda proof, run_dir: proof.train(run_dir, "training.no=1"),
    }
    choose(monkeypatch, scenarios)
    monkeypatch.setattr(module, "TWICE", {})
    monkeypatch.setattr(module, "_ratios", lambda *_: {})
    assert rehearse() == 1
    verdicts = shorter[0]["verdicts"]
    assert [name for name, each in verdicts.items() if each["ok"]] == [
        *("another seed", "verify"),
    ]
    assert "training.no" in verdicts["a key that is not there"]["reason"]
    assert "NOT PROVED: another learning rate, a key" in capsys.readouterr().out


def test_without_a_gpu_it_is_one_line():
    """With what to do, and nothing is trained or written."""
    done = run("gpu-proof")
    assert done.returncode == 2
    assert done.stderr.startswith("error: this Python sees no GPU")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_a_row_is_added_once_for_each_gpu_driver_and_pytorch(tmp_path):
    """A second proof of the same replaces the first; a README without the place is left alone."""
    readme = tmp_path / "README.md"
    readme.write_text(f"# x\n\n{BEGIN}\n{END}\n\nlast\n")
    other = ROW.replace("H100", "L4")
    for line in (ROW, other, ROW.replace("23 of 23", "22 of 23")):
        assert into_readme(readme, line)
    lines = readme.read_text().splitlines()
    assert lines[2] == BEGIN
    assert lines[3].startswith("| GPU | driver |")
    assert lines[5:8] == [other, ROW.replace("23 of 23", "22 of 23"), END]
    assert lines[-1] == "last"
    readme.write_text("mine\n")
    assert not into_readme(readme, ROW)
    assert readme.read_text() == "mine\n"


def test_a_probe_needs_the_tasks_own_run(monkeypatch):
    """A `train.py` that names it otherwise is told so."""
    import real.train

    monkeypatch.delattr(real.train, "Run")
    with pytest.raises(ValueError, match="imports no Run"):
        probed(real.train.train_model, PROBES[0])
