"""Draw the README's pictures from real runs: terminals as SVG, and the chart of a comparison.

python tools/pictures.py [PROJECT]    (`make pictures`; `make demo` makes the default one)

One run is killed in the middle and resumed, one is left alone, one has another learning rate. What
stands in the pictures is what the commands printed.
"""

import html
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools import demo  # noqa: E402  (the template's root is not a package)

PROJECT = ROOT / "build" / "demo" / "demo-project"
PICTURES = ROOT / "docs" / "pictures"
TRAIN = "python train.py --config configs/baseline.yaml"
KILL_AFTER = 250
"""Steps after which the run is killed; the last checkpoint is some steps older."""
SIZE, LINE, WIDTH = 13, 19, 130
COLOURS = {"$": "#9cdcfe", "IDENTICAL": "#6fcf7c", "DIFFERENT": "#f0766b", "Killed": "#f0766b"}


def main(project: Path = PROJECT) -> int:
    """Train, kill, resume and compare in the project; write the pictures."""
    for name in ("killed", "whole", "other"):
        shutil.rmtree(project / "outputs" / name, ignore_errors=True)
    PICTURES.mkdir(exist_ok=True)
    killed = [f"$ {TRAIN} --run-dir outputs/killed", *kill(project)]
    resumed = run(project, "python train.py --resume outputs/killed")
    whole = run(project, f"{TRAIN} --run-dir outputs/whole")
    module = next(path.parent.name for path in project.glob("src/*/train.py"))
    same = run(project, f"python -m {module} compare outputs/killed outputs/whole")
    lines = [*killed, *shortened(resumed), *shortened(whole), *same]
    (PICTURES / "resume.svg").write_text(terminal(lines), encoding="utf-8")

    run(project, f"{TRAIN} --run-dir outputs/other training.learning_rate=3.9e-3")
    page = project / "outputs" / "page.html"
    compare = f"python -m {module} compare outputs/whole outputs/other"
    run(project, f"{compare} --html {page.relative_to(project)}")
    (PICTURES / "compare.svg").write_text(terminal(run(project, compare)), encoding="utf-8")
    (PICTURES / "chart.svg").write_text(chart(page.read_text(encoding="utf-8")), encoding="utf-8")
    print(*(path.relative_to(ROOT) for path in sorted(PICTURES.iterdir())), sep="\n")
    return 0


def start(project: Path, command: str) -> subprocess.Popen[str]:
    """Start a command of the project's environment, as its owner would."""
    words = [str(project / ".venv" / "bin" / "python"), *command.split()[1:]]
    environ = {**demo.environment(), "PYTHONPATH": str(project / "src")}
    return subprocess.Popen(
        words,
        cwd=project,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(project: Path, command: str) -> list[str]:
    """A prompt with the command, and what it prints."""
    said, _ = start(project, command).communicate()
    return [f"$ {command}", *said.splitlines()]


def kill(project: Path) -> list[str]:
    """Start a training and kill it after some steps; what it printed until then."""
    training = start(project, f"{TRAIN} --run-dir outputs/killed")
    log = project / "outputs" / "killed" / "steps.jsonl"
    while not (log.exists() and log.read_text().count("\n") > KILL_AFTER):
        if training.poll() is not None:
            raise SystemExit("error: the training ended before it was killed")
        time.sleep(0.02)
    training.send_signal(signal.SIGKILL)
    said, _ = training.communicate()
    return ["…", *said.splitlines()[-2:], "Killed"]


def shortened(lines: list[str]) -> list[str]:
    """The command, the end of the training, and nothing of what lies between."""
    rows = [line for line in lines if line.startswith(("epoch", "test_"))]
    return [lines[0], rows[0], "…", *rows[-2:]]


def terminal(lines: list[str]) -> str:
    """Lines of text as a picture of a terminal."""
    lines = [part for line in lines for part in wrapped(line)]
    height = LINE * len(lines) + 50
    width = round(WIDTH * SIZE * 0.602) + 32
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="{SIZE}">',
        f'<rect width="{width}" height="{height}" rx="8" fill="#1e1f24"/>',
    ]
    for number, colour in enumerate(("#ff5f57", "#febc2e", "#28c840")):
        drawn.append(f'<circle cx="{20 + 18 * number}" cy="18" r="6" fill="{colour}"/>')
    for number, line in enumerate(lines):
        colour = next((c for mark, c in COLOURS.items() if line.startswith(mark)), "#d7d9dc")
        drawn.append(
            f'<text x="16" y="{50 + LINE * number}" fill="{colour}" xml:space="preserve">'
            f"{html.escape(line)}</text>"
        )
    return "\n".join([*drawn, "</svg>", ""])


def wrapped(line: str) -> list[str]:
    """A line in pieces that fit, as a terminal breaks it."""
    return [line[at : at + WIDTH] for at in range(0, len(line), WIDTH)] or [""]


def chart(page: str) -> str:
    """The chart of a page as a picture of its own."""
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    (drawing,) = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    rules = "\n".join(line for line in style.splitlines() if not line.startswith(("body", "t")))
    head = '<svg xmlns="http://www.w3.org/2000/svg" width="760" '
    drawing = drawing.replace("<svg ", head, 1)
    return drawing.replace(">", f"><style>{rules}</style>\n", 1).replace("><", ">\n<") + "\n"


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
