"""The proof for any task: what must not matter to a run does not change a bit of it.

A project's `tests/test_reproducibility.py` and `tests/test_quality.py` name a configuration and
the training function; this folder starts the runs, disturbs and watches them.
"""

from .proof import SCENARIOS, Proof
from .watch import Observed, watch

__all__ = ["SCENARIOS", "Observed", "Proof", "watch"]
