"""The proof for any task: what must not matter to a run does not change a bit of it.

A project's `tests/test_reproducibility.py` names a configuration; the runs are made here.
"""

from .proof import SCENARIOS, Proof

__all__ = ["SCENARIOS", "Proof"]
