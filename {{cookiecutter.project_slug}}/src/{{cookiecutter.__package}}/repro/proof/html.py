"""A page without scripts or downloads: a verdict, two curves, and tables of what differs."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import floor, isfinite, log10
from pathlib import Path
from typing import Any

Curve = Sequence[tuple[int, float]]
"""(step, value) of each step."""

_WIDTH, _HEIGHT, _POINTS = 760, 320, 1000
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 15, 38, 45
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; display: block; overflow-x: auto }
td, th { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top }
td { font-family: ui-monospace, monospace; font-size: 13px }
svg { width: 100%; height: auto } svg text { font: 12px system-ui, sans-serif; fill: #444 }
.grid { stroke: #e4e4e4 } .axis { stroke: #888 } .part { stroke: #c0392b; stroke-dasharray: 4 3 }
.a { stroke: #1769aa; stroke-width: 3; opacity: .5 } .b { stroke: #c0392b; stroke-width: 1 }
.dot { fill: none; stroke: #c0392b; stroke-width: 2 }
svg .key { font-weight: 600; paint-order: stroke; stroke: #fff; stroke-width: 4 }
"""


def is_page(path: Path) -> bool:
    """Whether a file may be replaced by a page: it is one, or empty."""
    with path.open("rb") as file:
        return file.read(15) in (b"", b"<!DOCTYPE html>")


def write_html(
    path: Path,
    *,
    title: str,
    verdict: str,
    sentence: str,
    curves: Mapping[str, Curve],
    quantity: str = "loss",
    parts_at: int | None = None,
    facts: Sequence[Sequence[Any]] = (),
    differences: Sequence[tuple[str, Any, Any]] = (),
) -> None:
    """Write the page.

    `sentence` says what was found; `curves` are two, by name, of the logged `quantity`, which part
    at the step `parts_at`; `facts` are the rows of a table whose first cells are headings.
    """
    differing = [(key, *values) for key, *values in differences]
    page = (
        "<!DOCTYPE html>\n"
        f'<html lang="en"><meta charset="utf-8"><title>{_text(title)}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style>\n"
        f"<h1>{_text(verdict)}</h1>\n<p>{_text(sentence)}</p>\n<p>{_text(title)}</p>\n"
        f"{_table(facts)}\n"
        f"<h2>{_text(quantity)} of each step</h2>\n{_svg(curves, quantity, parts_at)}\n"
        "<h2>What differs</h2>\n"
        + (_table(differing) if differing else "<p>No recorded fact differs.</p>")
        + "\n</html>\n"
    )
    path.write_bytes(page.encode("utf-8", "backslashreplace"))


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from `low` to `high`: 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / count
    if not (isfinite(rough) and rough > 0):
        return [low]
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.9)
    if not step or low + step == low:
        return [low]
    first = -floor(-low / step)
    return [n * step for n in range(first, floor(high / step + 1e-9) + 1)]


def _svg(curves: Mapping[str, Curve], quantity: str, parts_at: int | None) -> str:
    points = [point for curve in curves.values() for point in curve if isfinite(point[1])]
    if not points:
        return "<p>No step to draw.</p>"
    xs, ys = [x for x, _ in points], [y for _, y in points]
    left, right = min(xs), max(max(xs), min(xs) + 1)
    low, high = min(ys), max(ys)
    high = high if high > low else low + (abs(low) or 1.0)
    inner = (_WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM)

    def at(x: float, y: float) -> tuple[float, float]:
        # Halved: the range of huge losses would overflow.
        share = (y / 2 - low / 2) / (high / 2 - low / 2)
        return _LEFT + (x - left) / (right - left) * inner[0], _TOP + (1 - share) * inner[1]

    drawn = [*_axes(at, (left, right), (low, high), quantity)]
    for name, (label, curve) in zip("ab", curves.items(), strict=True):
        stride = max(1, len(curve) // _POINTS)
        places = [at(x, y) for x, y in curve[::stride] if isfinite(y)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn.append(f'<polyline class="{name}" fill="none" points="{line}"/>')
        x = _LEFT + 12 + 190 * "ab".index(name)
        drawn.append(f'<line class="{name}" x1="{x}" x2="{x + 24}" y1="16" y2="16"/>')
        drawn.append(f'<text x="{x + 30}" y="20">{_text(label[:24])}</text>')
    if parts_at is not None:
        drawn += _parting(at, curves, parts_at, (left, right), low)
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(drawn)}</svg>'


def _axes(
    at: Any, steps: tuple[int, int], values: tuple[float, float], quantity: str
) -> Iterator[str]:
    floor_y, ceiling_y = at(steps[0], values[0])[1], at(steps[0], values[1])[1]
    for value in ticks(*values):
        y = at(steps[0], value)[1]
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>'
    for step in ticks(*steps):
        x = at(step, values[0])[0]
        yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{floor_y}" y2="{floor_y + 5}"/>'
        yield f'<text x="{x:.1f}" y="{floor_y + 18}" text-anchor="middle">{step:.6g}</text>'
    yield f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{floor_y}" y2="{floor_y}"/>'
    yield f'<line class="axis" x1="{_LEFT}" x2="{_LEFT}" y1="{ceiling_y}" y2="{floor_y}"/>'
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    yield f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">optimizer step</text>'
    place = (ceiling_y + floor_y) / 2
    turn = f'transform="rotate(-90 14 {place})" text-anchor="middle"'
    yield f'<text x="14" y="{place}" {turn}>{_text(quantity)}</text>'


def _parting(
    at: Any, curves: Mapping[str, Curve], step: int, steps: tuple[int, int], low: float
) -> Iterator[str]:
    """A line at the step where the curves part, and a circle around the first curve there."""
    x, floor_y = at(min(max(step, steps[0]), steps[1]), low)
    side = -6 if x > _WIDTH / 2 else 6
    anchor = "end" if side < 0 else "start"
    yield f'<line class="part" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{floor_y:.1f}"/>'
    yield (
        f'<text class="key" x="{x + side:.1f}" y="{_TOP + 12}" text-anchor="{anchor}">'
        f"they part at step {step}</text>"
    )
    for curve in curves.values():
        for place, value in curve:
            if place == step and isfinite(value):
                x, y = at(place, value)
                yield f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="6"/>'
                return


def _table(rows: Sequence[Sequence[Any]]) -> str:
    lines = (
        f"<tr><th>{_text(head)}</th>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>"
        for head, *cells in rows
    )
    return f"<table>{''.join(lines)}</table>"


def _text(value: Any) -> str:
    return escape(str(value))
