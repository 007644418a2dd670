"""What `compare` shows first: both runs side by side, a sentence, a page with both curves."""

import json
import re
import shutil
from xml.etree import ElementTree

import pytest
from conftest import edit_manifest, run, train
from real.repro.proof.compare import Cause, Divergence, explain
from real.repro.proof.html import ticks, write_html
from real.repro.proof.report import sentence


def test_the_results_stand_side_by_side(smoke_run, tmp_path):
    """Before any divergence: metrics, steps, time, seed, commit, and what differs in the config."""
    other = train(tmp_path / "other", "--seed", 5, "training.learning_rate=0.5")
    lines = run("compare", smoke_run, other).stdout.splitlines()
    head, table = lines[0], lines[: lines.index("")]
    cells = {line[: head.index("A")].strip(): line[head.index("A") :].split() for line in table}
    assert cells["run"] == [smoke_run.name, "other"]
    assert cells["seed"] == ["0", "5"]
    assert cells["training.learning_rate"] == ["0.01", "0.5"]
    assert {"test_loss", "test_accuracy", "steps", "time", "commit"} <= cells.keys()
    assert "first differs at step 1" in lines[len(table) + 1]


def test_runs_of_different_tasks_are_compared(smoke_run, tmp_path):
    """Metrics that only one has are empty for the other; the configuration says what differs."""
    other = shutil.copytree(smoke_run, tmp_path / "other")
    config = json.loads((other / "manifest.json").read_text())["config"]
    edit_manifest(other, config={**config, "model": {"hidden": [8]}})
    results = json.loads((other / "manifest.json").read_text())["results"]
    edit_manifest(other, results={**results, "metrics": {"test_mae": 3.0}})
    done = run("compare", smoke_run, other)
    assert done.returncode == 1, done.stderr
    assert "test_mae" in done.stdout
    assert re.search(r"model.hidden +\[8\]", done.stdout)


def test_many_differences_of_one_kind_are_one_line():
    """Packages, files and keys; what is alone keeps its own line."""
    found = [Cause("code", f"files.src/m{n}.py", "a", "b") for n in range(9)]
    found += [Cause("config", f"model.k{n}", n, n + 1) for n in range(5)]
    found += [Cause("environment", f"packages.p{n}", None, "1") for n in range(67)]
    found += [Cause("seed", "seed", 0, 1)]
    lines = list(explain(Divergence(1, "loss", 1.0, 2.0), found, identical=False))
    assert lines[1:] == [
        "environment: 67 packages were added: p0 1, p1 1, p2 1 and 64 more",
        "code: 9 files changed: src/m0.py, src/m1.py, src/m2.py and 6 more",
        "config: 5 keys changed: model.k0 0 to 1, model.k1 1 to 2, model.k2 2 to 3 and 2 more",
        "seed: seed was 0, is 1",
    ]


@pytest.mark.parametrize(
    ("divergence", "expected"),
    [
        (None, "Run B has the same bits in all of 9 steps and in every result."),
        (Divergence(3, "loss", 1.0, 2.0), "first differs at step 3, in loss: 1.0 against 2.0."),
        (Divergence(9, "weights", "a", "b"), "the same steps, and differs after step 9 in weights"),
    ],
)
def test_one_sentence_says_what_was_found(divergence, expected):
    """For the top of a page."""
    assert expected in sentence(divergence, num_steps=9)


def test_the_page_shows_where_the_curves_part(smoke_run, tmp_path):
    """Axes with numbers, both curves, and a circle at the step; no script, nothing fetched."""
    other = train(tmp_path / "other", "training.label_smoothing=0.1")
    page = tmp_path / "page.html"
    done = run("compare", smoke_run, other, "--html", page)
    assert done.returncode == 1
    assert f"page: {page}" in done.stderr
    text = page.read_text(encoding="utf-8")
    drawing = ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    names = [node.tag for node in drawing]
    assert names.count("polyline") == 2
    assert names.count("circle") == 1
    words = [node.text for node in drawing if node.tag == "text"]
    assert "optimizer step" in words
    assert "they part at step 1" in words
    assert sum(bool(re.fullmatch(r"[\d.]+", word)) for word in words) >= 6
    for foreign in ("<script", "http:", "https:", "@import"):
        assert foreign not in text


def test_a_page_that_cannot_be_written_is_refused_first(smoke_run, tmp_path):
    """One line, before anything is compared."""
    for place in (tmp_path, tmp_path / "gone" / "page.html"):
        done = run("compare", smoke_run, smoke_run, "--html", place)
        assert done.returncode == 2
        assert done.stderr.startswith("error: --html takes a file in a folder that exists")


@pytest.mark.parametrize(
    "curve",
    [
        [],
        [(1, float("nan"))],
        [(1, 2.0)],
        [(1, 0.0), (2, 0.0)],
        [(1, -1.7e308), (2, 1.7e308)],
        [(1, 1.0), (2, float("inf"))],
        [(n, 1e-320 * n) for n in range(5)],
    ],
)
def test_any_curve_can_be_drawn(curve, tmp_path):
    """Nothing, one step, a constant, a diverged or huge loss."""
    curves = {"A": curve, "B": curve}
    path = tmp_path / "page.html"
    write_html(path, title="t", verdict="v", sentence="s", curves=curves, parts_at=1)
    assert "nan" not in path.read_text(encoding="utf-8").partition("<svg")[2]


def test_ticks_are_round_numbers_within_the_range():
    """Five or so, a power of ten times 1, 2 or 5 apart."""
    assert ticks(0, 570) == [0, 200, 400]
    assert ticks(0.1, 2.3) == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert ticks(3, 3) == [3]


def test_a_page_replaces_only_a_page(smoke_run, tmp_path):
    """A record that is named by mistake stays as it is."""
    copy = shutil.copytree(smoke_run, tmp_path / "copy")
    before = (copy / "manifest.json").read_bytes()
    done = run("compare", smoke_run, copy, "--html", copy / "manifest.json")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {copy / 'manifest.json'} is there and is no such page")
    assert (copy / "manifest.json").read_bytes() == before
    for _ in range(2):
        assert run("compare", smoke_run, copy, "--html", tmp_path / "page.html").returncode == 0
