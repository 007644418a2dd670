"""`runs` shows every run of a folder, whatever its state, and says what it cannot read."""

import csv
import io
import json
import os
import shutil
import threading

import pytest
from conftest import edit_manifest, run
from real.repro import cli as command_line
from real.repro.run.listing import clock, list_runs
from real.repro.run.lock import locked
from real.repro.run.names import ADJECTIVES, NOUNS, words_for


@pytest.fixture
def folder(smoke_run, tmp_path):
    """A folder with a complete run, one that was stopped, and one that is damaged."""
    for name in ("20260101-120000-a", "20260102-120000-b", "20260103-120000-c"):
        shutil.copytree(smoke_run, tmp_path / name)
    edit_manifest(tmp_path / "20260102-120000-b", results={"completed": False, "metrics": {}})
    (tmp_path / "20260103-120000-c" / "manifest.json").write_text("{")
    (tmp_path / "notes").mkdir()
    return tmp_path


def table(*arguments):
    """The lines that `runs` prints."""
    done = run("runs", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_each_run_is_a_line_and_the_newest_is_last(folder):
    """Name, state, commit, seed, config, metrics, steps and time; a damaged record says why."""
    header, complete, stopped, damaged = table(folder)
    for column in ("run", "state", "commit", "seed", "config", "test_accuracy", "steps", "time"):
        assert column in header.split()
    assert complete.split()[:2] == ["20260101-120000-a", "completed"]
    assert " smoke " in complete
    assert stopped.split()[:2] == ["20260102-120000-b", "stopped"]
    assert damaged.split()[:2] == ["20260103-120000-c", "damaged"]
    assert "is not valid JSON" in damaged


def test_a_run_in_training_is_running(folder):
    """A training holds the lock of its directory; looking at it takes nothing away."""
    with locked(folder / "20260102-120000-b"):
        assert " running " in table(folder)[2]
    assert " stopped " in table(folder)[2]


def test_a_run_is_verified_once_all_of_it_was_executed_again(folder):
    """Segments are not all of it, another verdict is none, and a later resume voids it."""
    run_dir = folder / "20260101-120000-a"
    steps = json.loads((run_dir / "manifest.json").read_text())["results"]["num_steps"]
    whole = {"start": 0, "end": steps, "identical": True}
    for segments, identical, state in (
        ([{**whole, "end": 9}], True, "completed"),
        ([whole], False, "completed"),
        ([whole], True, "verified"),
    ):
        report = {"identical": identical, "segments": segments}
        (run_dir / "verify.json").write_text(json.dumps(report))
        assert list_runs(folder)[0].state == state
    os.utime(run_dir / "verify.json", (0, 0))
    assert list_runs(folder)[0].state == "completed"


def test_the_command_lines_changes_are_shown(folder):
    """The file's name and each key that was overridden, the last one where two are given."""
    command = "python train.py --config configs/base.yaml --seed 3 a.b=1 c=[1,2] a.b=2"
    edit_manifest(folder / "20260101-120000-a", command=command)
    assert list_runs(folder)[0].config == "base a.b=2 c=[1,2]"


def test_it_is_sorted_by_any_column(folder):
    """Missing values come first, since the end of a table is what is seen."""
    shutil.copytree(folder / "20260101-120000-a", folder / "20250101-120000-d")
    edit_manifest(folder / "20250101-120000-d", results={"metrics": {"test_loss": 1e9}})
    assert table(folder)[1].startswith("20250101-120000-d")
    assert table(folder, "--sort", "test_loss")[-1].startswith("20250101-120000-d")
    assert table(folder, "--sort", "state")[-1].split()[1] == "stopped"
    done = run("runs", folder, "--sort", "beauty")
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no column 'beauty' to sort by, only run, state")


def test_other_programs_read_it(folder):
    """JSON and CSV hold the same runs, with numbers as they are."""
    found = json.loads("\n".join(table(folder, "--json")))
    assert [each["state"] for each in found] == ["completed", "stopped", "damaged"]
    rows = list(csv.DictReader(io.StringIO("\n".join(table(folder, "--csv")))))
    assert float(rows[0]["test_loss"]) == found[0]["metrics"]["test_loss"]
    assert rows[0]["started"] == "2026-01-01T12:00:00+00:00"


def test_without_a_run_it_says_so(tmp_path):
    """An empty folder, and one that does not exist, are no errors."""
    for empty in (tmp_path, tmp_path / "gone"):
        assert table(empty) == [f"no run in {empty} yet: make train"]
        assert table(empty, "--json") == ["[]"]


def test_a_duration_is_read_at_a_glance():
    """In the unit that fits."""
    shown = [clock(seconds) for seconds in (None, 8.2, 720, 12_600)]
    assert shown == ["", "8 s", "12 min", "3.5 h"]


def test_every_instant_has_two_words():
    """A hundred of each, none of them twice, for all microseconds of a second."""
    assert len(set(ADJECTIVES)) == len(set(NOUNS)) == 100
    assert words_for(0) == "able-acorn"
    assert words_for(999_999) == "young-wren"
    assert len({words_for(n) for n in range(0, 1_000_000, 100)}) == 10_000


@pytest.mark.parametrize(
    "damage",
    [
        {"results": {"metrics": {"test_loss": 10**400}}},
        {"results": {"metrics": {"test_loss": [1]}}},
        {"results": {"metrics": {"test_loss": "high"}}},
        {"results": {"num_steps": "many"}},
        {"seed": [1]},
        {"command": 3},
    ],
)
@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"], ["--sort", "seed"]])
def test_one_damaged_record_hides_no_other(folder, damage, form):
    """It is marked in every form, and the complete run beside it is still there."""
    run_dir = folder / "20260103-120000-c"
    shutil.copy(folder / "20260101-120000-a" / "manifest.json", run_dir)
    edit_manifest(run_dir, **damage)
    said = "\n".join(table(folder, *form))
    assert "damaged" in said
    assert "completed" in said


def test_odd_names_and_reports_do_no_harm(folder):
    """Names that no terminal can show, and a report that no parser survives."""
    run_dir = folder / "20260101-120000-a"
    edit_manifest(run_dir, results={"metrics": {"\ud800": 1.0, "a\nb": 2.0}})
    (run_dir / "verify.json").write_text("[" * 100_000)
    shutil.copytree(run_dir, folder / "esc\x1b[2Japed")
    for form in ([], ["--json"], ["--csv"]):
        said = run("runs", folder, *form)
        assert said.returncode == 0, said.stderr
        assert "\x1b" not in said.stdout
    assert len(table(folder)) == 5


def test_a_stopped_run_shows_the_steps_that_were_done(folder):
    """Not those that it was to do."""
    steps = (folder / "20260102-120000-b" / "steps.jsonl").read_text().splitlines()[:7]
    (folder / "20260102-120000-b" / "steps.jsonl").write_text("\n".join(steps) + '\n{"step": 8, "e')
    assert [run.steps for run in list_runs(folder)][1] == 7


def test_what_is_no_folder_of_runs_is_refused(folder, tmp_path):
    """A run's own directory, and a file."""
    (tmp_path / "file").write_text("")
    for odd, reason in (
        (folder / "20260101-120000-a", "is a run; name the folder that it is in"),
        (tmp_path / "file", "is not a folder that can be read"),
    ):
        done = run("runs", odd)
        assert (done.returncode, done.stderr) == (2, f"error: {odd} {reason}\n")


def test_many_may_look_at_once_and_a_training_waits_for_them(folder):
    """Whoever lists runs holds up nobody: only a training keeps a lock."""
    run_dir = folder / "20260102-120000-b"
    with locked(run_dir, only_look=True), locked(run_dir, only_look=True):
        assert " stopped " in table(folder)[2]
    released = threading.Timer(
        0.1, (looking := locked(run_dir, only_look=True)).__exit__, [None] * 3
    )
    looking.__enter__()
    released.start()
    with locked(run_dir):
        pass


def test_a_run_from_the_future_is_not_the_newest(folder, monkeypatch):
    """A clock was wrong; `make verify` would execute that run forever after."""
    os.utime(folder / "20260102-120000-b" / "manifest.json", (4e9, 4e9))
    monkeypatch.setenv("OUTPUT_DIR", str(folder))
    monkeypatch.delenv("LAST_RUN_FILE", raising=False)
    assert command_line._newest_run().name == "20260103-120000-c"
