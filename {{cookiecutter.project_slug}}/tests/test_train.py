"""Evaluation looks and does not touch; the best epoch is the first of the best."""

import json
import shutil

import matplotlib
import numpy as np
import pytest
import torch
from conftest import SMOKE

from {{ cookiecutter.__package }} import record, train_model
from {{ cookiecutter.__package }}.config import Model, load_config
from {{ cookiecutter.__package }}.data import Split
from {{ cookiecutter.__package }}.model import build_model
from {{ cookiecutter.__package }}.record import plot_curves
from {{ cookiecutter.__package }}.train import evaluate

CPU = torch.device("cpu")


@pytest.fixture
def split():
    random = np.random.default_rng(0)
    images = random.integers(0, 17, (50, 1, 8, 8), np.uint8)
    return Split(images, random.integers(0, 10, 50))


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = Model(width=8, dropout=0.5)
    return build_model(config, num_classes=10, mean=[5.0], std=[6.0]).train()


def test_evaluation_is_repeatable_and_has_no_dropout(model, split):
    """The same numbers each time, and those of the model without its dropout."""
    first = evaluate(model, split, 16, CPU)
    assert evaluate(model, split, 16, CPU) == first
    for layer in model:
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    assert evaluate(model, split, 16, CPU) == first


def test_evaluation_leaves_no_trace(model, split):
    """Weights, batch statistics, the training mode and torch's generator stay as they were."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    evaluate(model, split, 16, CPU)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), generator)
    assert model.training


def test_evaluation_counts_every_sample_once(model, split):
    """The last, smaller batch has its share: as one batch, up to rounding."""
    loss, accuracy = evaluate(model, split, 16, CPU)
    whole_loss, whole_accuracy = evaluate(model, split, 50, CPU)
    assert loss == pytest.approx(whole_loss)
    assert accuracy == whole_accuracy


def test_on_a_tie_the_earlier_epoch_is_the_best(tmp_path):
    """With a learning rate of nothing both epochs score the same; the first one stays."""
    still = ["training.learning_rate=1e-30", "model.width=2"]
    run_dir = train_model(load_config(SMOKE, still), run_dir=tmp_path / "run").run_dir
    rows = (run_dir / "metrics.csv").read_text().splitlines()[1:]
    assert len({row.split(",")[-1] for row in rows}) == 1, "the epochs do not tie"
    best = json.loads((run_dir / "manifest.json").read_text())["results"]["best"]
    assert best["step"] == int(rows[0].split(",")[1])


def test_a_picture_that_fails_spoils_no_result(tmp_path, monkeypatch, caplog):
    """The manifest is final before the curves are drawn; what goes wrong there is one warning."""

    def fails(run_dir):
        assert json.loads((run_dir / "manifest.json").read_text())["results"]["completed"]
        raise RuntimeError("no font\nof that name")

    monkeypatch.setattr(record, "plot_curves", fails)
    result = train_model(load_config(SMOKE, ["training.num_epochs=1"]), run_dir=tmp_path / "run")
    assert json.loads((result.run_dir / "manifest.json").read_text())["results"]["completed"]
    (warning,) = [r.getMessage() for r in caplog.records if "curves.png" in r.getMessage()]
    assert "RuntimeError: no font of that name; the results are complete" in warning


def test_a_users_matplotlibrc_draws_other_pictures(smoke_run, tmp_path, monkeypatch):
    """Its settings do not reach the curves: the same bytes with and without."""
    run_dir = shutil.copytree(smoke_run, tmp_path / "run")
    plot_curves(run_dir)
    before = (run_dir / "curves.png").read_bytes()
    settings = {"text.usetex": True, "figure.facecolor": "red", "savefig.format": "pdf"}
    for name, value in settings.items():
        monkeypatch.setitem(matplotlib.rcParams, name, value)
    plot_curves(run_dir)
    assert (run_dir / "curves.png").read_bytes() == before
