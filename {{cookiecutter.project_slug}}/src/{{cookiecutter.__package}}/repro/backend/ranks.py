"""The processes that train together: here just one. Callers need not know how many there are."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OneProcess:
    """A training in a single process."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the record."""
        return self.rank == 0
