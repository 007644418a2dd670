"""`runs`: a table of the runs in a folder. Reads manifests only, without a framework."""

import csv
import datetime
import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import CONFIG, MANIFEST, STEPS
from .lock import locked
from .manifest import read_manifest

RUNNING, STOPPED, COMPLETED, VERIFIED, DAMAGED = (
    *("running", "stopped", "completed", "verified", "damaged"),
)
_OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*=.*", re.DOTALL)
DAMAGE = (ValueError, TypeError, AttributeError, OSError, RecursionError)
"""What reading a damaged record raises, beside an absent key."""
_TAIL = 4096
"""Bytes in which the last line of a log is found."""
_STAMP = re.compile(r"(\d{8}-\d{6})-")


@dataclass(frozen=True)
class Summary:
    """What a table says of a run."""

    run: str
    """Name of its directory."""
    state: str
    started: float
    """Seconds since 1970: by the name of the run, or else by its files."""
    commit: str = ""
    """The first digits; `*` behind them: the tree had changes."""
    seed: int | None = None
    config: str = ""
    """The configuration's name, and what the command line changed in it."""
    steps: int | None = None
    seconds: float | None = None
    """From the start, or the last resume, to the results; by the times of the files."""
    metrics: dict[str, float | None] = field(default_factory=dict)
    error: str = ""
    """Why the record of a damaged run cannot be read."""


FIELDS = ("run", "state", "started", "commit", "seed", "config", "steps", "seconds", "error")
SHOWN = ("run", "state", "commit", "seed", "config", "steps", "time")


def list_runs(folder: Path) -> list[Summary]:
    """The runs in `folder`, oldest first. Folders without a manifest are no runs."""
    found = [summarize(path.parent) for path in folder.glob(f"*/{MANIFEST}")]
    return sorted(found, key=lambda summary: (summary.started, summary.run))


def summarize(run_dir: Path) -> Summary:
    """The facts about one run, whatever its state."""
    started = _started(run_dir)
    try:
        manifest = read_manifest(run_dir)
        return Summary(
            run=run_dir.name,
            state=_state(run_dir, manifest),
            started=started,
            commit=commit_of(manifest),
            seed=_whole(manifest["seed"]),
            config=_config_of(manifest),
            steps=_steps(run_dir, manifest),
            seconds=_seconds(run_dir, manifest),
            metrics=_metrics(manifest),
        )
    except (LookupError, ArithmeticError, *DAMAGE) as error:
        return Summary(run_dir.name, DAMAGED, started, error=" ".join(str(error).split())[:200])


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{str(value)[:40]!r} is not a whole number")
    return value


def _metrics(manifest: Mapping[str, Any]) -> dict[str, float | None]:
    metrics = dict(manifest["results"]["metrics"] or {})
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise TypeError(f"metric {name} is {str(value)[:40]!r}")
        float(value or 0)  # a number of any size fits into JSON
    return metrics


def _steps(run_dir: Path, manifest: Mapping[str, Any]) -> int:
    """The steps that were done: of a run that is not complete, by the last line of its log."""
    if manifest["results"]["completed"]:
        return _whole(manifest["results"]["num_steps"])
    try:
        with (run_dir / STEPS).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            *_, line, _unfinished = file.read().split(b"\n")
        return _whole(json.loads(line)["step"])
    except (OSError, *DAMAGE, LookupError):
        return 0


def print_runs(folder: Path, *, sort: str = "", as_json: bool = False, as_csv: bool = False) -> int:
    """Print a table of the runs in `folder`, newest last, or sorted by a column.

    Raises:
        ValueError: `sort` names no column.
    """
    if (folder / MANIFEST).exists():
        raise ValueError(f"{folder} is a run; name the folder that it is in")
    if folder.exists() and not (folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)):
        raise ValueError(f"{folder} is not a folder that can be read")
    runs = list_runs(folder)
    names = list(dict.fromkeys(name for run in runs for name in run.metrics))
    if sort:
        runs = sorted(runs, key=lambda run: _sort_key(_value(run, sort, names)))
    if as_json:
        # In ASCII, since a folder may have any bytes as its name.
        print(json.dumps([_plain(run) for run in runs], indent=2))
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow([*FIELDS, *map(printable, names)])
        for run in runs:
            facts = _plain(run)
            cells = (facts[name] for name in FIELDS)
            cells = [printable(cell) if isinstance(cell, str) else cell for cell in cells]
            writer.writerow(cells + [run.metrics.get(name) for name in names])
    elif not runs:
        print(f"no run in {folder} yet: make train")
    else:
        header = [*SHOWN[:-2], *map(printable, names), *SHOWN[-2:]]
        print("\n".join(align([header, *(_row(run, names) for run in runs)])))
    return 0


def align(rows: list[list[str]]) -> Iterator[str]:
    """Rows of cells as lines, in columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def commit_of(manifest: Mapping[str, Any]) -> str:
    """The first digits of a run's commit, with `*` if the tree had changes."""
    code = manifest["code"]
    return f"{(code['commit'] or 'none')[:8]}{'*' if code['dirty'] else ''}"


def clock(seconds: float | None) -> str:
    """A duration for people: `8 s`, `12 min`, `3.5 h`."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def number(value: Any) -> str:
    """A metric for people; a diverged one is null in the record."""
    return f"{value:.6g}" if isinstance(value, int | float) else "" if value is None else str(value)


def _row(run: Summary, names: Iterable[str]) -> list[str]:
    if run.state == DAMAGED:
        said = printable(run.error)
        return [printable(run.run), DAMAGED, "", "", said, *("" for _ in names), "", ""]
    facts = [printable(run.run), run.state, run.commit, str(run.seed), printable(run.config)]
    return [
        *facts,
        *(number(run.metrics.get(name)) for name in names),
        "" if run.steps is None else str(run.steps),
        clock(run.seconds),
    ]


def printable(text: str) -> str:
    """A text without line breaks and terminal codes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _plain(run: Summary) -> dict[str, Any]:
    started = datetime.datetime.fromtimestamp(run.started, datetime.UTC)
    facts = {name: getattr(run, name) for name in FIELDS}
    return {**facts, "started": started.isoformat(timespec="seconds"), "metrics": run.metrics}


def _value(run: Summary, column: str, names: Iterable[str]) -> Any:
    if column in names:
        return run.metrics.get(column)
    column = {"time": "seconds"}.get(column, column)
    if column not in FIELDS:
        known = ", ".join([*FIELDS, "time", *names])
        raise ValueError(f"there is no column {column!r} to sort by, only {known}")
    return getattr(run, column)


def _sort_key(value: Any) -> tuple[bool, bool, Any]:
    """Numbers before text, and what is missing first: the end of the table is what is seen."""
    text = isinstance(value, str)
    return (value is not None, text, value if value is not None else 0)


def _state(run_dir: Path, manifest: Mapping[str, Any]) -> str:
    if manifest["results"]["completed"]:
        return VERIFIED if _is_verified(run_dir, manifest) else COMPLETED
    try:
        with locked(run_dir, only_look=True):
            return STOPPED
    except ValueError:
        return RUNNING


def _is_verified(run_dir: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether the last `verify` executed all of the run, after its end, and said IDENTICAL."""
    path = run_dir / "verify.json"
    try:
        if path.stat().st_mtime_ns < (run_dir / MANIFEST).stat().st_mtime_ns:
            return False
        found = json.loads(path.read_text(encoding="utf-8"))
        whole = {"start": 0, "end": manifest["results"]["num_steps"], "identical": True}
        return found["identical"] is True and found["segments"] == [whole]
    except (LookupError, *DAMAGE):
        return False


def _config_of(manifest: Mapping[str, Any]) -> str:
    """The name of the configuration's file, or of the experiment, and the overrides."""
    command = manifest["command"]
    # `shlex` takes a third of the time of a long list; most commands have nothing to unquote.
    quoted = any(mark in command for mark in "'\"\\")
    try:
        words = shlex.split(command) if quoted else command.split()
    except ValueError:
        words = []
    name = str(manifest["config"].get("experiment_name", ""))
    if "--config" in words[:-1]:
        name = Path(words[words.index("--config") + 1]).stem
    overrides = {word.partition("=")[0]: word for word in words if _OVERRIDE.fullmatch(word)}
    return " ".join([name, *overrides.values()])


def _started(run_dir: Path) -> float:
    if stamp := _STAMP.match(run_dir.name):
        try:
            day, _, clock_time = stamp[1].partition("-")
            return datetime.datetime.fromisoformat(f"{day}T{clock_time}Z").timestamp()
        except ValueError:
            pass  # digits that are no date
    for name in (CONFIG, MANIFEST):
        try:
            return (run_dir / name).stat().st_mtime
        except OSError:
            continue
    return 0.0


def _seconds(run_dir: Path, manifest: Mapping[str, Any]) -> float | None:
    if not manifest["results"]["completed"]:
        return None
    try:
        begun, ended = ((run_dir / name).stat().st_mtime for name in (CONFIG, MANIFEST))
    except OSError:
        return None
    return ended - begun if ended >= begun else None
