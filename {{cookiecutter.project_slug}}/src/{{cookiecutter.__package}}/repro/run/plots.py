"""`curves.png`: every column of a run's table, grouped by quantity."""

import logging
from pathlib import Path
from typing import Any

from ..files import CURVES, METRICS
from .logs import COUNTERS, read_metrics, to_float

_log = logging.getLogger(__name__)

MAX_AXES = 6
wanted = True
"""Whether runs of this process draw their curves: nobody looks at those of `train --scratch`."""


def try_to_plot(run_dir: Path) -> None:
    """Draw the curves; failure is only a warning, since the results are already final."""
    if not wanted:
        return
    try:
        plot_curves(run_dir)
    except Exception as error:  # library settings, fonts, a full disk: nothing that affects the run
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        _log.warning("warning: no %s: %s; the results are complete", run_dir / CURVES, reason)


def plot_curves(run_dir: Path) -> None:
    """Draw the table of a run over its steps into `curves.png`, unless it has no rows."""
    rows = read_metrics(run_dir / METRICS)
    if not rows:
        return
    # Imported here: matplotlib takes a second, and `compare` needs only the logs.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # ignore the user's matplotlibrc
        groups = list(quantities(rows[0]).items())[:MAX_AXES]
        height = 3.5 * ((len(groups) + 1) // 2)
        figure = Figure(figsize=(9, height))
        # In inches, for labels of any length: a layout engine takes as long as all the drawing.
        figure.subplots_adjust(left=0.8 / 9, right=8.8 / 9, top=1 - 0.35 / height)
        figure.subplots_adjust(bottom=0.55 / height, wspace=0.25, hspace=0.35)
        _draw(figure, groups, rows)
        partial = run_dir / f"{CURVES}.partial"
        figure.savefig(partial, format="png", dpi=120, metadata={"Software": None})
        partial.replace(run_dir / CURVES)


def quantities(row: dict[str, str]) -> dict[str, list[str]]:
    """Group the columns of a table by quantity: `train_loss` and `val_loss` are both `loss`.

    Quantities with several columns come first.
    """
    groups: dict[str, list[str]] = {}
    for column in row:
        if column not in COUNTERS:
            prefix, _, rest = column.partition("_")
            name = rest if prefix in ("train", "val", "test") and rest else column
            groups.setdefault(name, []).append(column)
    return dict(sorted(groups.items(), key=lambda group: -len(group[1])))


def _draw(figure: Any, groups: list[tuple[str, list[str]]], rows: list[dict[str, str]]) -> None:
    steps = [int(row["step"]) for row in rows]
    columns = min(2, len(groups))
    grid = figure.subplots((len(groups) + columns - 1) // columns, columns, squeeze=False)
    for axes in grid.flat[len(groups) :]:
        axes.set_axis_off()
    for axes, (name, members) in zip(grid.flat, groups, strict=False):
        for column in members:
            axes.plot(steps, [to_float(row[column]) for row in rows], label=column)
        axes.set_xlabel("step")
        axes.set_title(name)
        axes.legend()
        axes.grid(alpha=0.3)
