"""Results are final before plots are drawn, and plots are the same for everybody."""

import json
import shutil

import matplotlib
from conftest import SMOKE
from real.config import load_config
from real.repro.run import plots
from real.repro.run.plots import plot_curves
from real.train import train_model


def test_a_picture_that_fails_spoils_no_result(tmp_path, monkeypatch, caplog):
    """The manifest is final before the curves are drawn; an error there is only a warning."""

    def fails(run_dir):
        assert json.loads((run_dir / "manifest.json").read_text())["results"]["completed"]
        raise RuntimeError("no font\nof that name")

    monkeypatch.setattr(plots, "plot_curves", fails)
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
