"""Measure the expected results in a project and copy them to its starter in the template.

python tools/expected.py [PROJECT]    (`make expected`; `make demo` makes the default one)
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "build" / "demo" / "demo-project"
STARTERS = ROOT / "{{cookiecutter.project_slug}}" / "_overlays" / "starter"
BEGIN, END = "<!-- expected results: make expected -->\n", "<!-- end of expected results -->"


def main(demo: Path = DEMO) -> int:
    """Train, then copy `docs/expected.json` and the README's table; the exit code is make's."""
    done = subprocess.run(["make", "expected", "ACCELERATOR=cpu"], cwd=demo)
    if done.returncode:
        return done.returncode
    answers = json.loads((demo / ".template.json").read_text(encoding="utf-8"))["cookiecutter"]
    starter = STARTERS / answers["starter"]
    text = (demo / "docs" / "expected.json").read_text(encoding="utf-8")
    json.loads(text)
    (starter / "docs" / "expected.json").write_text(text, encoding="utf-8")
    table = (demo / "README.md").read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    readme = (starter / "README.md").read_text(encoding="utf-8")
    head, rest = readme.split(BEGIN)
    text = head + BEGIN + table + END + rest.split(END, 1)[1]
    (starter / "README.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
