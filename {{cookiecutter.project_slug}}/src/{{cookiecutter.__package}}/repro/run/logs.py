"""The files of a run directory: `steps.jsonl` and `metrics.csv` as they grow, curves, weights.

Nothing here imports torch.
"""

import csv
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

_log = logging.getLogger(__name__)

STEPS = "steps.jsonl"
METRICS = "metrics.csv"
CURVES = "curves.png"
WEIGHTS = "model.safetensors"
COLUMNS = ("epoch", "step", "learning_rate", "train_loss", "val_loss", "val_accuracy")


@dataclass(frozen=True)
class Step:
    """One optimizer step; `loss` and `grad_norm` are exact (`float.hex`)."""

    step: int
    epoch: int
    loss: float
    grad_norm: float

    def to_json(self) -> str:
        # Written out: `json.dumps` costs ten times as much, at every step.
        exact = f'"loss": "{self.loss.hex()}", "grad_norm": "{self.grad_norm.hex()}"'
        return f'{{"step": {self.step}, "epoch": {self.epoch}, {exact}}}'


class Recorder:
    """Appends to the logs of a run; after a resume, what lies beyond the checkpoint is cut off."""

    def __init__(self, run_dir: Path, *, resume_step: int = 0) -> None:
        self._metrics_path = run_dir / METRICS
        texts = logs_until(run_dir, resume_step)
        for name, text in texts.items():
            _replace(run_dir / name, text)
        self._digests = {name: hashlib.sha256(text.encode()) for name, text in texts.items()}
        self._losses = {step.step: step.loss for step in read_steps(run_dir / STEPS)}
        self._file: IO[bytes] = (run_dir / STEPS).open("ab")

    def step(self, step: Step) -> None:
        """Append one line; flushed to the operating system, so that a kill loses none."""
        line = f"{step.to_json()}\n".encode()
        self._file.write(line)
        self._file.flush()
        self._digests[STEPS].update(line)
        self._losses[step.step] = step.loss

    def epoch(
        self, *, epoch: int, step: int, num_steps: int, metrics: dict[str, float]
    ) -> dict[str, float]:
        """Append the epoch whose last step is `step`; its training loss is the steps' mean."""
        losses = [self._losses.pop(number) for number in range(step - num_steps + 1, step + 1)]
        row = {"epoch": epoch, "step": step, "train_loss": sum(losses) / num_steps, **metrics}
        line = ",".join(str(row[column]) for column in COLUMNS) + "\n"
        with self._metrics_path.open("a", newline="", encoding="utf-8") as file:
            file.write(line)
        self._digests[METRICS].update(line.encode())
        return row

    def sync(self) -> dict[str, str]:
        """Bring both logs to the disk, where they must not end before the checkpoint that follows;
        their sha256 by name, which that checkpoint keeps."""
        os.fsync(self._file.fileno())
        with self._metrics_path.open("rb") as file:
            os.fsync(file.fileno())
        return {name: digest.hexdigest() for name, digest in self._digests.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


def logs_until(run_dir: Path, step: int, logs: Mapping[str, str] | None = None) -> dict[str, str]:
    """The text of both logs up to `step`, by name.

    Raises:
        ValueError: that text does not have the sha256 that `logs` names.
    """
    steps = read_steps(run_dir / STEPS, partial=True)
    rows = [row for row in read_metrics(run_dir / METRICS) if int(row["step"]) <= step]
    texts = {
        STEPS: "".join(f"{entry.to_json()}\n" for entry in steps if entry.step <= step),
        METRICS: _csv_text(rows),
    }
    for name, text in texts.items():
        if logs is not None and hashlib.sha256(text.encode()).hexdigest() != logs.get(name):
            raise ValueError(f"{run_dir / name} is not what the run wrote up to step {step}")
    return texts


def read_steps(path: Path, *, partial: bool = False) -> list[Step]:
    """The steps of a run; `partial` forgives a last line that a kill cut short.

    Raises:
        ValueError: a line is not one of ours; the message names it.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    steps = []
    for number, line in enumerate(lines, start=1):
        try:
            fields = json.loads(line)
            loss, grad_norm = float.fromhex(fields["loss"]), float.fromhex(fields["grad_norm"])
            step = Step(int(fields["step"]), int(fields["epoch"]), loss, grad_norm)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            if partial and number == len(lines):
                break
            raise ValueError(f"{path}, line {number}: not a step: {line[:80]!r}") from None
        if step.step != number:
            raise ValueError(f"{path}, line {number}: step {number} expected, got {step.step}")
        steps.append(step)
    return steps


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of `metrics.csv` as text; a last row that a kill cut short is left out."""
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1].splitlines()
        rows = [row for row in csv.DictReader(whole) if all(row.get(c) for c in COLUMNS)]
        for row in rows:
            int(row["step"])
        return rows
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{path} is not a table of epochs: {error}") from None


def weights_file_sha256(path: Path) -> str:
    """`weights_sha256` of a safetensors file: its tensors' bytes in the order of their names.

    The format (https://huggingface.co/docs/safetensors): length of the header, header, bytes.

    Raises:
        ValueError: the file is missing or not safetensors.
    """
    try:
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        header.pop("__metadata__", None)
        total = hashlib.sha256()
        for name in sorted(header):
            begin, end = header[name]["data_offsets"]
            total.update(content[8 + length + begin : 8 + length + end])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from None
    return total.hexdigest()


def try_to_plot(run_dir: Path) -> None:
    """Draw the curves; a picture that fails is one warning, for the results are final before it."""
    try:
        plot_curves(run_dir)
    except Exception as error:  # a library's settings, fonts, a full disk: none concerns the run
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        _log.warning("warning: no %s: %s; the results are complete", run_dir / CURVES, reason)


def plot_curves(run_dir: Path) -> None:
    """Draw loss and accuracy over the epochs of a run into `curves.png`."""
    # Imported here: matplotlib costs a second, and `compare` needs only the logs.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's matplotlibrc is for other pictures
        _draw(Figure(figsize=(9, 3.5), layout="constrained"), run_dir)


def _draw(figure: Any, run_dir: Path) -> None:
    rows = read_metrics(run_dir / METRICS)
    epochs = [int(row["epoch"]) + 1 for row in rows]
    losses, accuracy = figure.subplots(1, 2)
    for column in ("train_loss", "val_loss"):
        losses.plot(epochs, [float(row[column]) for row in rows], label=column)
    accuracy.plot(epochs, [float(row["val_accuracy"]) for row in rows], label="val_accuracy")
    for axes in (losses, accuracy):
        axes.set_xlabel("epoch")
        axes.legend()
        axes.grid(alpha=0.3)
    partial = run_dir / f"{CURVES}.partial"
    figure.savefig(partial, format="png", dpi=120, metadata={"Software": None})
    partial.replace(run_dir / CURVES)


def _csv_text(rows: list[dict[str, str]]) -> str:
    lines = [",".join(COLUMNS), *(",".join(row[c] for c in COLUMNS) for row in rows)]
    return "".join(f"{line}\n" for line in lines)


def _replace(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
