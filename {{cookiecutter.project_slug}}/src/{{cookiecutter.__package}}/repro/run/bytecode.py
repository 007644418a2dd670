"""Whether Python executes the source that is recorded, or an older compilation of it."""

import importlib.util
import marshal
from pathlib import Path

_HEADER = 16
"""Bytes before the code: magic number, flags, time and size of the source (PEP 552)."""


def is_outdated(path: Path) -> bool:
    """Whether the compiled form in `__pycache__` would be executed, and is of another source.

    Python compares only the time, in seconds, and the size of a source. Tools that keep or set
    times (`rsync -t`, archives, package stores) can change a file and leave both as they were.
    """
    source = path.read_bytes()
    try:
        compiled = Path(importlib.util.cache_from_source(str(path))).read_bytes()
    except (OSError, NotImplementedError):
        return False  # compiled at each start
    stat = path.stat()
    facts = (0, int(stat.st_mtime), stat.st_size)
    header = b"".join((fact & 0xFFFFFFFF).to_bytes(4, "little") for fact in facts)
    if compiled[:_HEADER] != importlib.util.MAGIC_NUMBER + header:
        return False  # compiled again at the next start
    executed = marshal.loads(compiled[_HEADER:])
    return executed != compile(source, str(path), "exec", dont_inherit=True)
