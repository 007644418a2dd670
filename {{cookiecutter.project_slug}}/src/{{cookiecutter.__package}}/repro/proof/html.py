"""A page without scripts or downloads: two curves overlaid, and a list of differences."""

from collections.abc import Mapping, Sequence
from html import escape
from math import isfinite
from pathlib import Path
from typing import Any

_WIDTH, _HEIGHT, _POINTS = 720, 280, 1000
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse } td, th { text-align: left; padding: .2rem .8rem .2rem 0 }
td { font-family: ui-monospace, monospace; font-size: 13px; vertical-align: top }
svg { width: 100%; height: auto; border: 1px solid #ccc }
.a { stroke: #1769aa; stroke-width: 3; opacity: .5 } .b { stroke: #c0392b; stroke-width: 1 }
"""


def write_html(
    path: Path,
    *,
    title: str,
    verdict: str,
    curves: Mapping[str, Sequence[tuple[int, float]]],
    facts: Mapping[str, Any],
    differences: Sequence[tuple[str, Any, Any]],
) -> None:
    """Write the page; `curves` are (step, loss) by name, drawn in the order given."""
    rows = "".join(f"<tr><th>{_text(k)}</th><td>{_text(v)}</td></tr>" for k, v in facts.items())
    differing = "".join(
        f"<tr><th>{_text(key)}</th><td>{_text(a)}</td><td>{_text(b)}</td></tr>"
        for key, a, b in differences
    )
    legend = ", ".join(map(_text, curves))
    page = (
        "<!DOCTYPE html>\n"
        f'<html lang="en"><meta charset="utf-8"><title>{_text(title)}</title>'
        f"<style>{_STYLE}</style>\n"
        f"<h1>{_text(verdict)}</h1>\n<p>{_text(title)}</p>\n<table>{rows}</table>\n"
        f"<h2>Loss of each step: {legend}</h2>\n{_svg(list(curves.values()))}\n"
        "<h2>What differs</h2>\n"
        + (f"<table>{differing}</table>" if differing else "<p>No recorded fact differs.</p>")
        + "\n</html>\n"
    )
    path.write_text(page, encoding="utf-8")


def _svg(curves: list[Sequence[tuple[int, float]]]) -> str:
    points = [point for curve in curves for point in curve if isfinite(point[1])]
    if not points:
        return "<p>No step to draw.</p>"
    xs, ys = [x for x, _ in points], [y for _, y in points]
    left, width = min(xs), max(max(xs) - min(xs), 1)
    low, height = min(ys), max(ys) - min(ys) or 1.0
    lines = []
    for name, curve in zip("ab", curves, strict=True):
        stride = max(1, len(curve) // _POINTS)
        drawn = " ".join(
            f"{(x - left) / width * _WIDTH:.1f},{(1 - (y - low) / height) * _HEIGHT:.1f}"
            for x, y in curve[::stride]
            if isfinite(y)
        )
        lines.append(f'<polyline class="{name}" fill="none" points="{drawn}"/>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}">{"".join(lines)}</svg>'


def _text(value: Any) -> str:
    return escape(str(value))
