"""Measure the expected results in the demo's project and copy them to the template.

python tools/expected.py           (`make expected`; `make demo` makes the project)
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "build" / "demo" / "demo-project"
PROJECT = ROOT / "{{cookiecutter.project_slug}}"
BEGIN, END = "<!-- expected results: make expected -->\n", "<!-- end of expected results -->"


def main(demo: Path = DEMO) -> int:
    """Train, then copy `docs/expected.json` and the README's table; the exit code is make's."""
    done = subprocess.run(["make", "expected", "ACCELERATOR=cpu"], cwd=demo)
    if done.returncode:
        return done.returncode
    text = (demo / "docs" / "expected.json").read_text(encoding="utf-8")
    json.loads(text)
    (PROJECT / "docs" / "expected.json").write_text(text, encoding="utf-8")
    table = (demo / "README.md").read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    head, rest = readme.split(BEGIN)
    text = head + BEGIN + table + END + rest.split(END, 1)[1]
    (PROJECT / "README.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
