"""Progress to suit the reader: a bar in a terminal or notebook, one line per row in a log."""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self

from tqdm.auto import tqdm

from .logs import COUNTERS

_log = logging.getLogger(__name__)


class Progress:
    """Shows how far a run has got, if `shown`; `row` reports a row of its table."""

    def __init__(self, num_steps: int, *, start: int = 0, shown: bool = True) -> None:
        self._total = num_steps
        in_notebook = "ipykernel" in sys.modules
        # In a log file a bar would leave a line for each refresh.
        self._shown = shown and (in_notebook or sys.stderr.isatty())
        self._bar = tqdm(
            total=num_steps, initial=start, unit="step", disable=not self._shown, dynamic_ncols=True
        )

    def step(self) -> None:
        if self._shown:
            with self._unless_closed():
                self._bar.update()

    def row(self, row: Mapping[str, float]) -> None:
        """Show a row of the table."""
        numbers = (f"{name} {value:.4g}" for name, value in row.items() if name not in COUNTERS)
        text = f"epoch {row['epoch'] + 1}  step {row['step']}/{self._total}  {'  '.join(numbers)}"
        if self._shown:
            with self._unless_closed():
                self._bar.write(text, file=sys.stderr)
        else:
            _log.info(text)

    @contextmanager
    def _unless_closed(self) -> Iterator[None]:
        try:
            yield
        except OSError:  # the terminal is gone; a signal may stop the run, or it continues
            self._bar.disable, self._shown = True, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._unless_closed():
            self._bar.close()
