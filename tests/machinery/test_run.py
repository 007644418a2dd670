"""A run directory holds what a stranger needs, and refuses to become another run."""

import csv
import errno
import json
import pickle
import shutil

import pytest
from conftest import PACKAGE, ROOT, SMOKE, edit_manifest, run
from real.config import load_config
from real.repro.backend import facts
from real.repro.files import checkpoint_path
from real.repro.run.directory import only_writer
from real.repro.run.logs import read_steps
from real.repro.run.manifest import FIELDS, describe_code, read_manifest
from real.repro.signals import Interrupted
from real.train import train_model


def resume(run_dir, *overrides, allow_changes=False):
    """Resume in this process, which has torch loaded already."""
    config = load_config(run_dir / "config.yaml", overrides)
    return train_model(config, run_dir=run_dir, resume=True, allow_changes=allow_changes)


def test_the_run_directory_is_complete(smoke_run):
    """Every file of the contract is there, and the manifest has every field."""
    names = {path.name for path in smoke_run.iterdir()}
    assert names == {
        "manifest.json",
        "config.yaml",
        "steps.jsonl",
        "metrics.csv",
        "checkpoints",
        "model.safetensors",
        "curves.png",
    }
    manifest = read_manifest(smoke_run)
    assert set(FIELDS) == set(manifest)
    assert set(manifest["data"]["splits"]) == {"train", "val", "test"}
    assert "digits.csv.gz" in manifest["data"]["files"]
    assert f"src/{PACKAGE}/train.py" in manifest["code"]["files"]
    assert manifest["environment"]["packages"].keys() & {*facts.PACKAGES}
    assert manifest["results"]["completed"] is True


def test_every_step_and_epoch_is_recorded(smoke_run):
    """Steps count from 1 without a gap; an epoch's training loss is the mean of its steps."""
    steps = read_steps(smoke_run / "steps.jsonl")
    assert [step.step for step in steps] == list(range(1, len(steps) + 1))
    with (smoke_run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    first = [step.numbers["loss"] for step in steps if step.epoch == 0]
    assert float(rows[0]["train_loss"]) == sum(first) / len(first)


def test_a_run_without_its_last_checkpoint_has_no_results(tmp_path, monkeypatch):
    """It is written while the task evaluates; should the disk be full then, the run says so."""

    def full(folder, saved, *, keep):
        if saved["step"] == 18:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("real.repro.run.saver.save_checkpoint", full)
    with pytest.raises(OSError, match="No space left"):
        train_model(load_config(SMOKE), run_dir=tmp_path / "run")
    assert read_manifest(tmp_path / "run")["results"]["completed"] is False
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_the_resolved_config_starts_the_same_run(smoke_run, tmp_path):
    """`config.yaml` of a run is a configuration like any other."""
    done = run("train", "--config", smoke_run / "config.yaml", "--run-dir", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"run: {tmp_path / 'again'}"
    assert (tmp_path / "again" / "steps.jsonl").read_bytes() == (
        smoke_run / "steps.jsonl"
    ).read_bytes()


def test_a_run_that_is_refused_leaves_no_directory(tmp_path):
    """Even if it is refused only after loading the data, nothing is left behind."""
    run_dir = tmp_path / "run"
    with pytest.raises(ValueError, match="global_batch_size must be at least 1 and at most 1279"):
        train_model(load_config(SMOKE, ["training.global_batch_size=5000"]), run_dir=run_dir)
    assert not run_dir.exists()


def test_an_empty_directory_of_the_users_stays(tmp_path):
    """A refusal takes away only what the run made itself."""
    with pytest.raises(ValueError, match="global_batch_size"):
        train_model(load_config(SMOKE, ["training.global_batch_size=5000"]), run_dir=tmp_path)
    assert tmp_path.is_dir()


def test_the_loser_of_a_new_directory_leaves_the_winners(tmp_path):
    """Two runs start in one new directory: the second is refused and removes nothing."""
    run_dir = tmp_path / "run"
    with only_writer(run_dir):
        with pytest.raises(ValueError, match="another process"), only_writer(run_dir):
            pass
        assert run_dir.is_dir()


def test_two_processes_never_share_a_run(smoke_run, tmp_path):
    """While one holds the directory, another is refused in one line."""
    run_dir = shutil.copytree(smoke_run, tmp_path / "run")
    with only_writer(run_dir), pytest.raises(ValueError, match="another process is training"):
        resume(run_dir)


@pytest.mark.parametrize("name", ["steps.jsonl", "metrics.csv"])
def test_a_lost_log_is_noticed_when_resuming(smoke_run, tmp_path, name):
    """A run without the record of what came before the checkpoint is not resumed."""
    run_dir = shutil.copytree(smoke_run, tmp_path / "run")
    (run_dir / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is not what the run wrote up to step 18"):
        resume(run_dir)


def test_a_longer_run_after_a_change_is_consistent_and_not_called_repeatable(smoke_run, tmp_path):
    """Config, number of steps and seed follow the change; verify says why it cannot repeat it."""
    run_dir = shutil.copytree(smoke_run, tmp_path / "run")
    resume(run_dir, "training.num_epochs=3", allow_changes=True)
    manifest = read_manifest(run_dir)
    steps = read_steps(run_dir / "steps.jsonl")
    assert manifest["results"]["num_steps"] == len(steps) == 27
    assert manifest["resumes"][0]["changes"] == ["config training.num_epochs was 2, now 3"]
    assert load_config(run_dir / "config.yaml").training.num_epochs == 3
    refused = run("verify", run_dir)
    assert refused.returncode == 2
    assert "resumed with changes at step 18" in refused.stderr
    with pytest.raises(ValueError, match="past the 9 asked for now"):
        resume(run_dir, "training.num_epochs=1", allow_changes=True)


def test_another_model_is_refused_before_its_weights_are_touched(smoke_run):
    """Resuming with a wider network names the key, without a traceback."""
    with pytest.raises(ValueError, match=r"model\.width was 8, now 16"):
        resume(smoke_run, "model.width=16")


def test_an_edited_config_file_is_noticed(smoke_run, tmp_path):
    """`config.yaml` is part of the record: it must be the manifest's."""
    run_dir = shutil.copytree(smoke_run, tmp_path / "run")
    text = (run_dir / "config.yaml").read_text()
    (run_dir / "config.yaml").write_text(text.replace("num_epochs: 2", "num_epochs: 7"))
    done = run("verify", run_dir)
    assert done.returncode == 2
    assert "config.yaml is not the config" in done.stderr


def test_a_run_inside_the_checkout_is_not_code():
    """Files of a run that git does not ignore do not make the checkout dirty."""
    here = ROOT / "some-runs" / "x"
    here.mkdir(parents=True)
    (here / "steps.jsonl").write_text("{}")
    try:
        without = describe_code(ROOT, leave_out=here)
        shutil.rmtree(here.parent)
        assert describe_code(ROOT, leave_out=here) == without
    finally:
        shutil.rmtree(here.parent, ignore_errors=True)


def test_a_refused_resume_changes_no_file(smoke_run, tmp_path):
    """Another model, an edited log, other data: the record is as it was, byte for byte."""
    run_dir = shutil.copytree(smoke_run, tmp_path / "run")
    checkpoint_path(run_dir / "checkpoints", 18).unlink()
    log = run_dir / "steps.jsonl"
    for change in ("model", "log"):
        if change == "log":
            log.write_text(log.read_text().replace("0x1.", "0x1.0", 1))
        before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
        with pytest.raises(ValueError, match=r"another model|not what the run wrote"):
            resume(run_dir, *(["model.width=16"] if change == "model" else []), allow_changes=True)
        after = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
        assert after == before


def test_a_complete_run_without_checkpoints_does_not_start_again(smoke_run, tmp_path):
    """Its results are there; nothing of them is overwritten."""
    run_dir = shutil.copytree(smoke_run, tmp_path / "run")
    shutil.rmtree(run_dir / "checkpoints")
    with pytest.raises(ValueError, match="complete and has no checkpoint"):
        resume(run_dir)
    assert read_manifest(run_dir)["results"]["completed"] is True


def test_a_run_resumed_from_before_its_end_is_not_complete(smoke_run, tmp_path):
    """The last checkpoint is damaged: until the end is reached again, there are no results."""
    run_dir = shutil.copytree(smoke_run, tmp_path / "run")
    last = checkpoint_path(run_dir / "checkpoints", 18)
    last.write_bytes(b"damaged")
    with pytest.raises(Interrupted):
        train_model(load_config(run_dir / "config.yaml"), run_dir=run_dir, resume=True, stop_at=17)
    assert read_manifest(run_dir)["results"]["completed"] is False
    assert last.with_suffix(".damaged").exists()
    resume(run_dir)
    assert (run_dir / "steps.jsonl").read_bytes() == (smoke_run / "steps.jsonl").read_bytes()


def test_a_used_run_directory_is_not_overwritten(smoke_run):
    """A new run does not start in the directory of another."""
    before = (smoke_run / "manifest.json").read_bytes()
    done = run("train", "--config", SMOKE, "--run-dir", smoke_run)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not empty" in done.stderr
    assert (smoke_run / "manifest.json").read_bytes() == before


def test_resuming_with_another_config_is_refused_with_the_difference(smoke_run):
    """The keys that changed are named with both values."""
    done = run("train", "--resume", smoke_run, "training.learning_rate=0.5")
    assert done.returncode == 2
    assert "config training.learning_rate was 0.01, now 0.5" in done.stderr


@pytest.mark.parametrize(
    ("layer", "change"), [("code", {"commit": "0" * 40}), ("data", {"sha256": "0" * 64})]
)
def test_resuming_on_other_code_or_data_is_refused(smoke_run, tmp_path, layer, change):
    """The difference is named; a flag allows it, and the manifest says so."""
    run_dir = shutil.copytree(smoke_run, tmp_path / "run")
    edit_manifest(run_dir, **{layer: change})
    with pytest.raises(ValueError, match=f"began with something else: {layer}"):
        resume(run_dir)


DAMAGES = {
    "other schema": lambda m: m.update(schema=99),
    "other project": lambda m: m.update(project="somebody_elses"),
    "null": lambda m: m.update(results=None),
    "field missing": lambda m: m.pop("results"),
    "field unknown": lambda m: m.update(mood="good"),
    "inner field missing": lambda m: m["data"].pop("sha256"),
    "inner field unknown": lambda m: m["code"].update(mood="good"),
}


@pytest.mark.parametrize("command", ["verify", "compare"])
@pytest.mark.parametrize("damage", ["missing", "not json", *DAMAGES])
def test_what_is_not_a_run_is_refused(smoke_run, tmp_path, command, damage):
    """One line on stderr, exit code 2, no traceback."""
    damaged = tmp_path / "run"
    shutil.copytree(smoke_run, damaged)
    path = damaged / "manifest.json"
    if damage == "missing":
        path.unlink()
    elif damage == "not json":
        path.write_text("{")
    else:
        manifest = json.loads(path.read_text())
        DAMAGES[damage](manifest)
        path.write_text(json.dumps(manifest))
    done = run(command, damaged, *([smoke_run] if command == "compare" else []))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_checkpoint_that_would_execute_code_is_refused(smoke_run, tmp_path):
    """Resuming from nothing but pickle bombs: one line that names the file, nothing executed."""
    run_dir = shutil.copytree(smoke_run, tmp_path / "run")
    marker = tmp_path / "executed"

    class Bomb:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    for path in (run_dir / "checkpoints").iterdir():
        path.write_bytes(pickle.dumps(Bomb()))
    last = checkpoint_path(run_dir / "checkpoints", 18).name
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    for arguments in (["train", "--resume", run_dir], ["verify", run_dir, "--segments", 1]):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{last} is not a whole checkpoint" in done.stderr
        assert done.stderr.count("\n") == 1
    assert not marker.exists()
    assert {path: path.read_bytes() for path in before} == before


def test_the_record_names_no_secret_and_no_path_of_this_machine(smoke_run):
    """Environment variables stay references, so that a record can be shared."""
    text = (smoke_run / "config.yaml").read_text()
    assert "${DATA_DIR:-data}" in text
    assert str(ROOT) not in text
