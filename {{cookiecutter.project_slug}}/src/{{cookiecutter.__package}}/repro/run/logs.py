"""The logs of a run, `steps.jsonl` and `metrics.csv`: exact records of a task's own numbers.

Nothing here imports a framework.
"""

import csv
import hashlib
import json
import math
import os
import re
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import IO, Any, Self

from ..files import METRICS, STEPS, write_whole

COUNTERS = ("epoch", "step")
"""The columns every row begins with; tasks cannot use these names."""
MEAN = "train_"
"""Prefix in the table for the mean of a step's number since the last row."""
WRITE_EVERY = 0.1
"""Seconds between two writes of steps: one for each would be the dearest part of the record."""

Number = float | int
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]{0,63}")


class Later:
    """A number that a device still computes."""

    def ready(self) -> bool:
        """Whether it is there."""
        raise NotImplementedError

    def number(self) -> Number:
        """Wait for it, and return it."""
        raise NotImplementedError


@dataclass(frozen=True)
class Step:
    """One optimizer step, counted from 1, and the numbers logged for it."""

    step: int
    epoch: int
    numbers: dict[str, Number] = field(default_factory=dict)

    def to_json(self) -> str:
        """The step as a line of JSON; floats are written exactly (`float.hex`), as text."""
        # Formatted by hand: `json.dumps` would take ten times as long, at every step.
        exact = "".join(
            f', "{name}": "{value.hex()}"' if type(value) is float else f', "{name}": {value}'
            for name, value in self.numbers.items()
        )
        return f'{{"step": {self.step}, "epoch": {self.epoch}{exact}}}'


class Recorder:
    """Appends to the logs of a run; on resume, lines after the checkpoint are cut off.

    With `writes=False` it only keeps the same account, as the ranks do that write no record.
    """

    def __init__(self, run_dir: Path, *, resume_step: int = 0, writes: bool = True) -> None:
        self._metrics_path = run_dir / METRICS if writes else None
        texts = logs_until(run_dir, resume_step)
        for name, text in texts.items() if writes else ():
            write_whole(run_dir / name, text)
        self._digests = {name: hashlib.sha256(text.encode()) for name, text in texts.items()}
        # Of the files as they were cut: another rank may still see what they held before.
        steps = [s for s in read_steps(run_dir / STEPS, partial=True) if s.step <= resume_step]
        rows = [r for r in read_metrics(run_dir / METRICS) if int(r["step"]) <= resume_step]
        self._names = tuple(steps[0].numbers) if steps else ()
        self._columns = tuple(rows[0]) if rows else ()
        seen = int(rows[-1]["step"]) if rows else 0
        self._since_row = [step.numbers for step in steps[seen:]]
        self._no_row = not texts[METRICS]
        self._file: IO[bytes] | None = (run_dir / STEPS).open("ab") if writes else None
        self._waiting: deque[Step] = deque()
        self._next_write = 0.0

    def step(self, step: Step) -> None:
        """Append one line, with those of the steps before it, every `WRITE_EVERY` seconds; numbers
        that a GPU still computes are not waited for. A kill loses no more than that, all of it
        after the last checkpoint: `digests` writes whatever there is.

        Raises:
            ValueError: a value is not a number, or the names differ from those of the first step.
        """
        numbers = step.numbers
        if tuple(numbers) != self._names or any(type(n) is not float for n in numbers.values()):
            numbers = plain(numbers, known=self._names)
            self._names = _same_names(self._names, numbers, f"step {step.step}")
            step = Step(step.step, step.epoch, {name: numbers[name] for name in self._names})
        self._waiting.append(step)
        if time.monotonic() >= self._next_write:
            self._write_steps(wait=False)

    def _write_steps(self, *, wait: bool) -> None:
        lines = []
        try:
            while self._waiting and (step := self._complete(self._waiting[0], wait=wait)):
                self._waiting.popleft()
                self._since_row.append(step.numbers)
                lines.append(f"{step.to_json()}\n")
        finally:  # a device that failed raises
            text = "".join(lines).encode()
            if self._file:
                self._file.write(text)
                self._file.flush()
            self._digests[STEPS].update(text)
            self._next_write = time.monotonic() + WRITE_EVERY

    def _complete(self, step: Step, *, wait: bool) -> Step | None:
        late = {name: each for name, each in step.numbers.items() if isinstance(each, Later)}
        if not late:
            return step
        if not wait and not all(each.ready() for each in late.values()):
            return None
        there = plain({name: each.number() for name, each in late.items()}, known=self._names)
        return Step(step.step, step.epoch, {**step.numbers, **there})

    def row(self, epoch: int, step: int, metrics: Mapping[str, Number]) -> dict[str, Number]:
        """Append a row after `step`: means of the steps' numbers since the last row, and `metrics`.

        Raises:
            ValueError: a value is not a number, names differ from those of the first row or clash
                with a mean, or no step was logged since the last row.
        """
        self._write_steps(wait=True)
        if not self._since_row:
            raise ValueError(f"the row after step {step} needs a step since the row before it")
        means = {
            f"{MEAN}{name}": sum(each[name] for each in self._since_row) / len(self._since_row)
            for name in self._names
            # The table of a run started by an older version may lack some of them.
            if not self._columns or f"{MEAN}{name}" in self._columns
        }
        if taken := sorted(means.keys() & metrics.keys()):
            raise ValueError(f"{taken[0]} is the mean of the steps' numbers; take another name")
        row = {"epoch": epoch, "step": step, **means, **plain(metrics)}
        self._columns = _same_names(self._columns, row, f"the row after step {step}")
        lines = [",".join(self._columns)] if self._no_row else []
        lines.append(",".join(repr(row[column]) for column in self._columns))
        text = "".join(f"{line}\n" for line in lines)
        self._no_row = False
        if self._metrics_path:
            with self._metrics_path.open("a", newline="", encoding="utf-8") as file:
                file.write(text)
        self._digests[METRICS].update(text.encode())
        self._since_row = []
        return row

    def digests(self) -> dict[str, str]:
        """The sha256 of each log by its name, after the steps so far."""
        self._write_steps(wait=True)
        return {name: digest.hexdigest() for name, digest in self._digests.items()}

    def to_disk(self) -> None:
        """Flush both logs to disk. Call this before a checkpoint is written: a log must never end
        before the step that its checkpoint claims."""
        if self._file:
            os.fsync(self._file.fileno())
            with self._metrics_path.open("rb") as file:
                os.fsync(file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        # What was to come from a rank that is lost never comes.
        wait = getattr(kind, "__name__", "") != "RankError"
        with suppress(RuntimeError):  # a device that failed gives no number any more
            self._write_steps(wait=wait)
        if self._file:
            self._file.close()


def plain(numbers: Mapping[str, Any], *, known: tuple[str, ...] = ()) -> dict[str, Number]:
    """Convert to plain Python numbers, but for those that come later; NumPy's are formatted
    differently and cannot be read back.

    Names in `known` are not checked again.

    Raises:
        ValueError: a value is not a number, or its name is not allowed.
    """
    for name in numbers:
        if name in COUNTERS:
            raise ValueError(f"{name} is a column of every log; take another name")
        # Accepted by MLflow, and never quoted in a CSV file.
        if name not in known and not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a number; use letters, digits, _ . / -")
    return {name: _plain(name, value) for name, value in numbers.items()}


def _plain(name: str, value: Any) -> Number | Later:
    if type(value) is float or isinstance(value, Later):
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        kind = type(value).__name__
        raise ValueError(f"{name} must be a number, got {kind} {str(value)[:40]!r}")
    return int(value) if isinstance(value, Integral) else float(value)


def _same_names(names: tuple[str, ...], given: Iterable[str], where: str) -> tuple[str, ...]:
    given = tuple(given)
    if names and set(given) != set(names):
        missing, further = sorted(set(names) - set(given)), sorted(set(given) - set(names))
        odd = [f"lacks {', '.join(missing)}"] if missing else []
        odd += [f"has {', '.join(further)} as well"] if further else []
        raise ValueError(f"{where} {' and '.join(odd)}; log the same names every time")
    return names or given


def logs_until(run_dir: Path, step: int, logs: Mapping[str, str] | None = None) -> dict[str, str]:
    """The text of both logs up to `step`, by name.

    Raises:
        ValueError: that text does not match its sha256 in `logs`.
    """
    steps = read_steps(run_dir / STEPS, partial=True)
    rows = [row for row in read_metrics(run_dir / METRICS) if int(row["step"]) <= step]
    texts = {
        STEPS: "".join(f"{entry.to_json()}\n" for entry in steps if entry.step <= step),
        METRICS: _csv_text(rows),
    }
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    if not rows and logs is not None and logs.get(METRICS) != digests[METRICS]:
        # Before version 0.3.0 of the template the header was written before the first row.
        digests[METRICS] = hashlib.sha256(_header(run_dir / METRICS)).hexdigest()
    for name, digest in digests.items():
        if logs is not None and digest != logs.get(name):
            raise ValueError(f"{run_dir / name} is not what the run wrote up to step {step}")
    return texts


def read_steps(path: Path, *, partial: bool = False) -> list[Step]:
    """Read the steps of a run; `partial` tolerates a last line truncated by a kill.

    Raises:
        ValueError: a line is not in the format of this log; the message names it.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    steps: list[Step] = []
    for number, line in enumerate(lines, start=1):
        try:
            fields = json.loads(line)
            counters = int(fields.pop("step")), int(fields.pop("epoch"))
            step = Step(*counters, {name: _number(value) for name, value in fields.items()})
            if steps and step.numbers.keys() != steps[0].numbers.keys():
                raise ValueError("other names")
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError, AttributeError):
            if partial and number == len(lines):
                break
            raise ValueError(f"{path}, line {number}: not a step: {line[:80]!r}") from None
        if step.step != number:
            raise ValueError(f"{path}, line {number}: step {number} expected, got {step.step}")
        steps.append(step)
    return steps


def _number(value: object) -> Number:
    if isinstance(value, str):
        return float.fromhex(value)
    if type(value) is int:
        return value
    raise TypeError(value)


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of `metrics.csv` as text, without a last row truncated by a kill."""
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1].splitlines()
        reader = csv.DictReader(whole)
        rows = [row for row in reader if all(row.get(name) for name in reader.fieldnames or [])]
        for row in rows:
            if None in row:
                raise ValueError(f"a row of more cells than columns: {row[None]}")
            int(row["step"]), int(row["epoch"])
        return rows
    except (csv.Error, ValueError, KeyError) as error:
        raise ValueError(f"{path} is not a table of metrics: {error}") from None


def to_float(text: str) -> float:
    """A cell of the table as a number, or NaN if it is not one."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _header(path: Path) -> bytes:
    return path.read_bytes().partition(b"\n")[0] + b"\n" if path.exists() else b""


def _csv_text(rows: list[dict[str, str]]) -> str:
    if not rows:
        return ""
    columns = list(rows[0])
    lines = [",".join(columns), *(",".join(row[c] for c in columns) for row in rows)]
    return "".join(f"{line}\n" for line in lines)
