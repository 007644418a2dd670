"""Files generated from others: write them, or with `--check` report stale ones."""

import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def write_or_check(texts: Mapping[str, str], source: str, command: str) -> int:
    """Write `texts`, by their names in the repository; with `--check` on the command line, report
    which one differs from `source`, and that `command` writes it. Return 1 if one does, else 0.
    """
    check, stale = "--check" in sys.argv, 0
    for name, text in texts.items():
        path = ROOT / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if check:
            print(f"error: {name} differs from {source}; run {command}")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {name}")
    return 1 if stale and check else 0
