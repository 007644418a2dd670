"""Write the menus of `cookiecutter.json` and the README's table of stacks from `data/`.

python tools/menu.py [--check]
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import template_logic as logic  # noqa: E402  (the template's root is not a package)
from tools.written import write_or_check  # noqa: E402

BEGIN, END = "<!-- stacks: written by tools/menu.py -->", "<!-- end of stacks -->"


def menu() -> str:
    """`cookiecutter.json` with the rows of `data/` as the answers of two questions."""
    path = ROOT / "cookiecutter.json"
    questions = json.loads(path.read_text(encoding="utf-8"))
    stacks = [name for name, (release, _) in logic.stack_names().items()]
    managers = json.loads((ROOT / "data" / "managers.json").read_text(encoding="utf-8"))["managers"]
    licenses = json.loads((ROOT / "data" / "licenses.json").read_text(encoding="utf-8"))["licenses"]
    questions["stack"] = stacks
    questions["license"] = list(licenses)
    questions["dependency_manager"] = list(managers)
    prompts = questions["__prompts__"]
    prompts["stack"] = {
        "__prompt__": prompts["stack"]["__prompt__"],
        **{name: logic.stack_label(name) for name in stacks},
    }
    prompts["dependency_manager"] = {
        "__prompt__": prompts["dependency_manager"]["__prompt__"],
        **{name: row["label"] for name, row in managers.items()},
    }
    prompts["license"] = {
        "__prompt__": prompts["license"]["__prompt__"],
        **{name: row["label"] for name, row in licenses.items()},
    }
    starters = json.loads((ROOT / "data" / "starters.json").read_text(encoding="utf-8"))["starters"]
    questions["starter"] = list(starters)
    prompts["starter"] = {
        "__prompt__": prompts["starter"]["__prompt__"],
        **{name: row["label"] for name, row in starters.items()},
    }
    prompts["python_version"] = {
        "__prompt__": prompts["python_version"]["__prompt__"],
        **{version: _python_label(version) for version in questions["python_version"]},
    }
    return json.dumps(questions, indent=2, ensure_ascii=False) + "\n"


def _python_label(version: str) -> str:
    releases = {logic.release_title(row): row for row, _ in logic.stack_names().values()}
    without = [title for title, row in releases.items() if version not in row["python"]]
    return f"{version}: not for {', '.join(without)}" if without else version


def readme() -> str:
    """The README with its table of stacks regenerated."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = ["| `stack` | GPUs | driver | Python | status |", "|---|---|---|---|---|"]
    for name, (release, _) in logic.stack_names().items():
        row = logic.stack(name)
        driver = f"{row['min_driver']} or newer" if row["min_driver"] else "none"
        pythons = ", ".join(release["python"])
        generations = row["generations"] if row["min_driver"] else "none"
        lines.append(f"| `{name}` | {generations} | {driver} | {pythons} | {release['status']} |")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return "\n".join([before + BEGIN, *lines, END + after])


def main() -> int:
    """Write both files, or with `--check` say which one is stale."""
    texts = {"cookiecutter.json": menu(), "README.md": readme()}
    return write_or_check(texts, "data/", "python tools/menu.py")


if __name__ == "__main__":
    sys.exit(main())
