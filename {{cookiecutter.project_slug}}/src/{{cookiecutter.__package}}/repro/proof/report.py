"""`compare`: two runs side by side, where they part and why, a verdict; and a page to pass on."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..files import STEPS
from ..run.listing import Summary, align, clock, number, printable, summarize
from ..run.logs import Step, read_steps
from ..run.manifest import num_ranks, read_manifest
from .compare import Comparison, Divergence, compare_runs, explain
from .html import write_html

MAX_ROWS = 12
"""Differing keys of the configuration that the table shows; the causes below it list all."""


def compare(
    run_a: Path, run_b: Path, *, inert: tuple[str, ...], as_json: bool, html: Path | None = None
) -> int:
    """Print the comparison of two runs, and write it as a page to `html`; return 0 if they are the
    same, 1 if they differ.

    Raises:
        ValueError: one of them is not a run directory, or its files are damaged.
    """
    result = compare_runs(run_a, run_b, inert)
    if html is not None:
        write_report(html, run_a, run_b, result)
    if as_json:
        divergence = result.divergence
        summary = {
            "identical": result.identical,
            "first_divergence": divergence.to_json() if divergence else None,
            "causes": [asdict(cause) for cause in result.causes],
        }
        print(json.dumps(summary))
    else:
        print("\n".join(side_by_side(run_a, run_b, result)), end="\n\n")
        for run_dir in result.incomplete:
            print(f"{run_dir} is not complete; as far as both go:")
        alike = result.divergence is None
        print("\n".join(explain(result.divergence, result.causes, identical=alike)))
        print("IDENTICAL" if result.identical else "DIFFERENT")
    return 0 if result.identical else 1


def side_by_side(run_a: Path, run_b: Path, result: Comparison) -> Iterator[str]:
    """A table with a line for each fact: name, state, metrics, time, seed, commit, config."""
    return align([["", "A", "B"], *rows(run_a, run_b, result)])


def rows(run_a: Path, run_b: Path, result: Comparison) -> list[list[str]]:
    """The cells of that table: a fact, its value in A and in B."""
    a, b = summarize(run_a), summarize(run_b)
    table = [
        _row("run", printable(a.run), printable(b.run)),
        _row("state", a.state, b.state),
        *(
            _row(name, number(a.metrics.get(name)), number(b.metrics.get(name)))
            for name in dict.fromkeys([*a.metrics, *b.metrics])
        ),
        _row("steps", a.steps, b.steps),
        _row("time", clock(a.seconds), clock(b.seconds)),
        _row("seed", a.seed, b.seed),
        _row("commit", a.commit, b.commit),
        _row("config", _name(a), _name(b)),
    ]
    ranks = [_ranks(read_manifest(run_dir)) for run_dir in (run_a, run_b)]
    if ranks != ["1", "1"]:
        table.append(_row("ranks", *ranks))
    changed = [cause for cause in result.causes if cause.layer == "config"]
    table += [_row(cause.key, cause.a, cause.b) for cause in changed[:MAX_ROWS]]
    if len(changed) > MAX_ROWS:
        table.append(_row(f"and {len(changed) - MAX_ROWS} keys more", "", ""))
    return table


def sentence(divergence: Divergence | None, *, num_steps: int, subject: str = "Run B") -> str:
    """In one sentence, what a comparison found."""
    if divergence is None:
        return f"{subject} has the same bits in all of {num_steps} steps and in every result."
    if divergence.quantity in ("weights", "state") or divergence.note:
        return (
            f"{subject} has the same steps, and differs after step {divergence.step} in "
            f"{divergence.quantity}."
        )
    return (
        f"{subject} first differs at step {divergence.step}, in {divergence.quantity}: "
        f"{divergence.a!r} against {divergence.b!r}."
    )


def drawing(
    a: Sequence[Step], b: Sequence[Step], divergence: Divergence | None, names: tuple[str, str]
) -> dict[str, Any]:
    """The curves of a page: of the quantity that differs first, or of the first that was logged."""
    logged = next((step.numbers for step in [*a, *b] if step.numbers), {})
    quantity = next(iter(logged), "loss")
    if divergence and divergence.quantity in logged:
        quantity = divergence.quantity
    curves = {
        name: [(step.step, step.numbers[quantity]) for step in steps if quantity in step.numbers]
        for name, steps in zip(names, (a, b), strict=True)
    }
    return {
        "curves": curves,
        "quantity": quantity,
        "parts_at": divergence.step if divergence else None,
    }


def write_report(path: Path, run_a: Path, run_b: Path, result: Comparison) -> None:
    """Write a page about two runs."""
    steps = [read_steps(run_dir / STEPS, partial=True) for run_dir in (run_a, run_b)]
    found = sentence(result.divergence, num_steps=min(map(len, steps)))
    if result.incomplete:
        found = f"Not both are complete. As far as both go: {found}"
    write_html(
        path,
        title=f"{run_a.name} and {run_b.name}",
        verdict="IDENTICAL" if result.identical else "DIFFERENT",
        sentence=found,
        **drawing(*steps, result.divergence, names=("A", "B")),
        facts=[["", "A", "B"], *rows(run_a, run_b, result)],
        differences=[(f"{c.layer}: {c.key}", c.a, c.b) for c in result.causes],
    )


def _ranks(manifest: Mapping[str, Any]) -> str:
    """How many processes a run had, from its beginning through its resumes."""
    starts = [manifest, *manifest.get("resumes", [])]
    numbers = [str(num_ranks({**each, "resumes": []})) for each in starts]
    return ", then ".join(
        n for n, before in zip(numbers, ["", *numbers], strict=False) if n != before
    )


def _row(name: str, a: Any, b: Any) -> list[str]:
    return [name, *("" if value is None else str(value) for value in (a, b))]


def _name(summary: Summary) -> str:
    return summary.config.partition(" ")[0]
