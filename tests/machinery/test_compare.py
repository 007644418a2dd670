"""Two runs are compared bit for bit, and what differs is named by its layer."""

import hashlib
import json
import shutil

import pytest
from conftest import edit_manifest, run, train
from real.config import Config
from real.repro.config.base import inert_keys
from real.repro.config.load import flatten
from real.repro.proof.compare import compare_runs, first_divergence
from real.repro.run.logs import Step
from real.repro.run.manifest import sha256


@pytest.fixture
def copy(smoke_run, tmp_path):
    return shutil.copytree(smoke_run, tmp_path / "copy")


def test_a_run_is_identical_to_its_copy(smoke_run, copy):
    """No step differs, no fact differs, exit code 0."""
    done = run("compare", smoke_run, copy, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"identical": True, "first_divergence": None, "causes": []}


def test_another_seed_is_named_as_the_cause(smoke_run, tmp_path):
    """The first step differs, and the seed is the layer that explains it."""
    other = train(tmp_path / "other", "--seed", 5)
    done = run("compare", smoke_run, other, "--json")
    result = json.loads(done.stdout)
    assert done.returncode == 1
    assert result["identical"] is False
    assert result["first_divergence"]["step"] == 1
    assert {"layer": "seed", "key": "seed", "a": 0, "b": 5} in result["causes"]
    assert "config" not in {cause["layer"] for cause in result["causes"]}


@pytest.mark.parametrize(
    ("layer", "change"),
    [
        ("code", {"commit": "0" * 40}),
        ("code", {"template": "0.0.1"}),
        ("config", {"training": {"learning_rate": 9.0}}),
        ("data", {"files": {"digits.csv.gz": "0" * 64}}),
        ("environment", {"packages": {"numpy": "0.1"}}),
        ("hardware", {"cpu": "abacus"}),
        ("determinism", {"num_threads": 64}),
    ],
)
def test_every_layer_is_compared(smoke_run, copy, layer, change):
    """A fact that differs is reported under its layer, by its key, with both values."""
    edit_manifest(copy, **{layer: change})
    key, value = next(iter(flatten(change).items()))
    causes = compare_runs(smoke_run, copy).causes
    assert {cause.layer for cause in causes} == {layer}
    assert value in [cause.b for cause in causes if cause.key == key]


@pytest.mark.parametrize("name", ["model.safetensors", "steps.jsonl", "metrics.csv"])
@pytest.mark.parametrize("damage", ["lost", "edited"])
def test_a_file_that_is_not_its_manifests_is_refused(smoke_run, copy, name, damage):
    """A missing file, a flipped bit, one digit of one loss: exit code 2, never IDENTICAL."""
    if damage == "lost":
        (copy / name).unlink()
    else:
        content = bytearray((copy / name).read_bytes())
        place = content.rindex(b"0x1.") + 4 if name == "steps.jsonl" else len(content) - 2
        content[place] ^= 1
        (copy / name).write_bytes(content)
    for arguments in (("compare", smoke_run, copy), ("compare", copy, copy), ("verify", copy)):
        done = run(*arguments)
        assert done.returncode == 2
        assert name in done.stderr


def test_runs_that_are_not_complete_are_not_identical(smoke_run, copy):
    """Equal as far as they go is not the same as equal."""
    edit_manifest(copy, results={"completed": False})
    assert not compare_runs(copy, copy).identical
    assert not compare_runs(smoke_run, copy).identical


def test_keys_that_cannot_matter_are_no_cause(smoke_run, copy):
    """The number of workers and the paths change no bit, so they explain nothing."""
    config = json.loads((copy / "manifest.json").read_text())["config"]
    config["data"]["num_workers"] = 9
    config["paths"]["data_dir"] = "/elsewhere"
    edit_manifest(copy, config=config)
    inert = tuple(inert_keys(Config))
    assert compare_runs(smoke_run, copy, inert).causes == []


def differ(run_dir):
    """Make the last step of a recorded run another one, so that only the record is whole."""
    log = run_dir / "steps.jsonl"
    entry = json.loads(log.read_text().splitlines()[-1])
    loss = (2 * float.fromhex(entry["loss"])).hex()
    log.write_text(log.read_text().replace(entry["loss"], loss))
    logs = json.loads((run_dir / "manifest.json").read_text())["results"]["logs"]
    digest = hashlib.sha256(log.read_bytes()).hexdigest()
    edit_manifest(run_dir, results={"logs": {**logs, "steps.jsonl": digest}})


def test_without_a_recorded_cause_the_known_ones_are_listed(smoke_run, copy):
    """Threads, GPU models and paths inside BLAS: what makes runs differ whose records agree."""
    differ(copy)
    done = run("compare", smoke_run, copy)
    assert done.returncode == 1
    assert "first differs at step 18, in loss" in done.stdout
    assert "no recorded fact differs" in done.stdout
    for word in ("threads", "GPU", "BLAS"):
        assert word in done.stdout.partition("known to cause that")[2]
    assert done.stdout.splitlines()[-1] == "DIFFERENT"


def test_another_processor_is_answered_with_the_portable_profile(smoke_run, copy):
    """Where only the machine differs, the way to equal bits is named."""
    differ(copy)
    edit_manifest(copy, hardware={"cpu": "abacus"}, determinism={"cpu_capability": "AVX2"})
    done = run("compare", smoke_run, copy)
    assert "hardware: cpu was" in done.stdout
    assert "determinism.profile=portable" in done.stdout


def test_a_resume_on_another_machine_is_named(smoke_run, copy):
    """A run resumed elsewhere says so: what had changed, and at which step."""
    here = json.loads((copy / "manifest.json").read_text())
    moved = {**here["hardware"], "cpu": "abacus"}
    edit_manifest(copy, resumes=[{**here, "step": 9, "hardware": moved}])
    (cause,) = compare_runs(smoke_run, copy).causes
    assert (cause.layer, cause.b) == ("hardware", "abacus")
    assert cause.key == "cpu (run B, resumed at step 9)"


@pytest.mark.parametrize("quantity", ["weights", "val_loss", "test_accuracy"])
def test_what_differs_after_equal_steps_is_named(smoke_run, copy, quantity):
    """Weights, a cell of the table, a result: the step and the quantity, never a bare verdict."""
    results = json.loads((copy / "manifest.json").read_text())["results"]
    if quantity == "weights":
        content = bytearray((copy / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (copy / "model.safetensors").write_bytes(content)
        results["weights_sha256"] = sha256((copy / "model.safetensors").read_bytes())
    elif quantity == "val_loss":
        table = copy / "metrics.csv"
        value = table.read_text().splitlines()[-1].split(",")[5]
        table.write_text(table.read_text().replace(value, "0.5"))
        results["logs"]["metrics.csv"] = hashlib.sha256(table.read_bytes()).hexdigest()
    else:
        results["metrics"]["test_accuracy"] = 0.5
    edit_manifest(copy, results=results)
    done = run("compare", smoke_run, copy, "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["identical"] is False
    assert (found["first_divergence"]["step"], found["first_divergence"]["quantity"]) == (
        18,
        quantity,
    )


def test_a_record_damaged_in_another_way_is_bad_input(smoke_run, copy):
    """Values of other types than a run writes: one line and exit code 2, never "different"."""
    for changes in (
        {"results": {"logs": [1]}},
        {"resumes": "many"},
        {"resumes": [1]},
        {"results": {"metrics": 7}},
    ):
        damaged = shutil.copytree(smoke_run, copy.parent / "damaged", dirs_exist_ok=True)
        edit_manifest(damaged, **changes)
        done = run("compare", damaged, smoke_run)
        assert done.returncode == 2, changes
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1


def steps(*losses):
    return [
        Step(number, 0, {"loss": loss, "grad_norm": 1.0})
        for number, loss in enumerate(losses, start=1)
    ]


def test_the_first_difference_is_exact():
    """One unit in the last place counts, NaN equals NaN, a shorter log differs at its end."""
    assert first_divergence(steps(1.0, float("nan")), steps(1.0, float("nan"))) is None
    found = first_divergence(steps(1.0, 2.0), steps(1.0, 2.0000000000000004))
    assert (found.step, found.quantity) == (2, "loss")
    found = first_divergence(steps(1.0), steps(1.0, 2.0))
    assert (found.step, found.quantity) == (2, "num_steps")


def test_a_run_from_before_an_upgrade_is_read_and_the_upgrade_is_named(smoke_run, copy):
    """Records of schema 2 knew no version of the template; the upgrade comes before its files."""
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["schema"] = 2
    del manifest["code"]["template"]
    for name in manifest["code"]["files"]:
        manifest["code"]["files"][name] = "0" * 64
    path.write_text(json.dumps(manifest))
    first, *_ = compare_runs(copy, smoke_run).causes
    assert (first.layer, first.key, first.a) == ("code", "template", None)
    told = run("compare", copy, smoke_run).stdout
    assert "the project was upgraded between them: template one before 0.2.0, then" in told
