"""Write `docs/surroundings.md`, and its summary in the README: what `make test-surroundings` tries.

python tools/surroundings.py [--check]
"""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from surroundings_table import FAMILIES, REFUSED, ROWS, SAME, Row  # noqa: E402

from tools.written import write_or_check  # noqa: E402

README = ROOT / "README.md"
BEGIN, END = "<!-- written by tools/surroundings.py -->", "<!-- end of surroundings -->"
HEAD = """# Other people's surroundings

Written by `make surroundings` from `tests/surroundings_table.py`, `tests/test_places.py` and
`tests/test_proof_elsewhere.py`;
`make test-surroundings` runs the rows on a project that is really installed, and those with a star
by one row that sets all their variables at once; alone they are tried by `make test-slow`. A row's
shell proves that it was set up as the row says before the command starts, otherwise the row fails.

*Same bits, same record*: log, table and weights are byte for byte those of a run in a plain shell,
and `compare` finds no recorded fact that differs (except those that a row names). *One line*: the
command is refused or ended with one line that begins with `error: `, an exit code and no traceback.
"""


def page() -> str:
    """The text of the whole page."""
    shells = ["| surroundings | set up by | tried with | verdict |", "|---|---|---|---|"]
    shells += [_row(row) for row in ROWS]
    situations = ["| situation | what must come of it |", "|---|---|"]
    situations += [f"| {name} | {said} |" for name, said in _situations()]
    cells = sum(len(row.verbs) for row in ROWS)
    parts = [HEAD, f"## {len(ROWS)} shells, {cells} cells\n", *shells]
    parts += [f"\n## {len(situations) - 2} situations: copies, hooks, git, make, set-up, limits\n"]
    return "\n".join([*parts, *situations]) + "\n"


def readme() -> str:
    """The README with its summary regenerated."""
    lines = ["| surroundings | kinds | tried | must come of it |", "|---|---|---|---|"]
    for name, rows in FAMILIES.items():
        refused = sum(bool(row.refused) for row in rows)
        verdict = f"{SAME}; {refused} refused in one line" if refused else SAME
        lines.append(f"| {name} | {len(rows)} | {sum(len(r.verbs) for r in rows)} | {verdict} |")
    number = len(_situations())
    what = "copies, links, worktrees, hooks, git states, make's variables, limits, signals"
    lines.append(f"| {what} | {number} | {number} tests | [each says](docs/surroundings.md) |")
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    return "\n".join([before + BEGIN, *lines, END + rest.split(END)[1]])


def _row(row: Row) -> str:
    variables = [f"`{name}`" for name in row.env]
    lines = [f"`{part.strip()}`" for part in (row.before, row.around) if _says_something(part)]
    shown = ", ".join([*variables, *lines]).replace("|", "\\|")
    verdict = REFUSED if row.refused else SAME
    named = f"; recorded: {', '.join(row.recorded)}" if row.recorded else ""
    star = " *" if row.joined else ""
    return f"| {row.name}{star} | {shown} | {', '.join(row.verbs)} | {verdict}{named} |"


def _says_something(text: str) -> bool:
    return text not in ("", "{command}")


def _situations() -> list[tuple[str, str]]:
    files = (ROOT / "tests" / name for name in ("test_places.py", "test_proof_elsewhere.py"))
    nodes = [node for path in files for node in ast.parse(path.read_text(encoding="utf-8")).body]
    tests = (n for n in nodes if isinstance(n, ast.FunctionDef) and n.name.startswith("test_"))
    return [
        (
            test.name.removeprefix("test_").replace("_", " "),
            re.sub(r"\s+", " ", ast.get_docstring(test)).replace("|", "\\|"),
        )
        for test in tests
    ]


def main() -> int:
    """Write both files, or with `--check` say which one is stale."""
    texts = {"docs/surroundings.md": page(), "README.md": readme()}
    return write_or_check(texts, "the tests", "make surroundings")


if __name__ == "__main__":
    sys.exit(main())
