"""A task's own training, measured or under mixed precision, whatever the task is.

`probed` puts another class in the place of `Run` in the task's `train.py`; nothing of the task is
changed.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from ..backend.device import mixed_precision, move, wait_for_device
from ..backend.gradients import gradients_for
from ..backend.loader import Batches
from ..backend.seeding import set_seed
from ..files import PROJECT
from ..run.lifecycle import Result, Run

WARM_UP = 5
"""Steps that are not measured: kernels are chosen, memory is allocated."""
SPEED = "steps per second: "


class Timed(Run):
    """A run that prints the speed of its loop, evaluations included."""

    def steps(self, batches: Batches) -> Iterator[tuple[int, Any]]:
        started = time.perf_counter()
        warm_up = min(WARM_UP, batches.num_steps - 1)
        for step, batch in super().steps(batches):
            if step == warm_up:
                wait_for_device()
                started = time.perf_counter()
            yield step, batch
        wait_for_device()
        seconds = time.perf_counter() - started
        print(f"{SPEED}{(batches.num_steps - warm_up) / seconds}")


class Unrecorded(Run):
    """The same computation and nothing else: no logs, checkpoints, signals, manifest."""

    def __enter__(self) -> Self:
        self.dir.mkdir(parents=True, exist_ok=True)  # the task may write files of its own there
        set_seed(self.config.seed, self.config.determinism)
        return self

    def start(self, data: Mapping[str, Any], **objects: Any) -> None:
        self._gradients = gradients_for(self._num_pieces, self._batches.accumulate, self._ranks)
        for module in self._placed:
            self._gradients.place(module)

    def steps(self, batches: Batches) -> Iterator[tuple[int, Any]]:
        parts = iter(batches)
        for step in range(batches.num_steps):
            batch = [move(next(parts), self._device) for _ in range(batches.accumulate)]
            self._open_step, self._loops = step, 0
            yield step, batch if batches.accumulate > 1 else batch[0]

    def log_step(self, **numbers: Any) -> None:
        """Nothing is recorded."""

    log_metrics = log_step

    def keep_best(self, name: str, *, higher: bool) -> None:
        """Nothing is kept."""

    def write_file(self, name: str, content: str | bytes) -> Path:
        return self.dir / name

    def finish(self, metrics: Mapping[str, Any], *, weights: Any = None) -> Result:
        return Result({name: float(value) for name, value in metrics.items()}, "", self.dir)


class TimedUnrecorded(Timed, Unrecorded):
    """What the record costs is what `Timed` needs more than this."""


RUNS = {"timed": Timed, "unrecorded": TimedUnrecorded}
PROBES = (*RUNS, "mixed-precision")


def probed(train_model: Callable[..., Any], probe: str) -> Callable[..., Any]:
    """`train_model` with another `Run`, or under bfloat16 autocast.

    Raises:
        ValueError: the task's `train.py` has no `Run`.
    """
    if probe not in RUNS:

        def under_autocast(*arguments: Any, **how: Any) -> Any:
            with mixed_precision():
                return train_model(*arguments, **how)

        return under_autocast
    task = import_module(f"{PROJECT}.train")
    if not hasattr(task, "Run"):
        raise ValueError(f"{task.__file__} imports no Run, so its loop cannot be measured")
    task.Run = RUNS[probe]
    print(f"measuring: {probe}", file=sys.stderr)
    return train_model
