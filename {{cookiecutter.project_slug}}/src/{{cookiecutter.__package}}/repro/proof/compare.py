"""Where two runs diverge, and which layer differs: code, config, data, seed, environment, hardware.

Reads run directories only; nothing here imports a framework.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backend import facts
from ..config.base import is_inert
from ..config.load import flatten
from ..config.run_config import complete
from ..files import METRICS, STEPS, WEIGHTS
from ..run.logs import Step, read_metrics, read_steps
from ..run.manifest import is_ordered, read_manifest, sha256

KNOWN_CAUSES = (
    "threads that add in the order in which they finish: more than one thread, or code that starts"
    " its own",
    "another path inside BLAS, oneDNN or cuDNN for the same version: memory alignment, a timed"
    " choice, a processor that a virtual machine shows under the same name",
    "a GPU of the same name with another number of multiprocessors, or a driver that schedules"
    " otherwise",
    "code or data that no manifest sees: files outside the package and the data set",
    *facts.KNOWN_CAUSES,
)
"""Known reasons why runs with identical records differ."""

LAYERS = ("seed", "code", "config", "data", "environment", "hardware", "determinism")

FEW = 3
"""If more packages, files or keys differ, they are summarized in a line; `--json` lists all."""


@dataclass(frozen=True)
class Divergence:
    """The first step (counted from 1) and quantity that differ, with both values."""

    step: int
    quantity: str
    a: Any
    b: Any
    note: str = ""
    """Additional explanation for the reader."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, with numbers as text that can be read back exactly."""
        return {"step": self.step, "quantity": self.quantity, "a": repr(self.a), "b": repr(self.b)}


@dataclass(frozen=True)
class Cause:
    """A recorded fact that differs between two runs."""

    layer: str
    key: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Comparison:
    """The result of comparing two runs."""

    divergence: Divergence | None
    incomplete: list[Path]
    causes: list[Cause]

    @property
    def identical(self) -> bool:
        """Whether both runs are complete and no bit differs."""
        return self.divergence is None and not self.incomplete


def compare_runs(run_a: Path, run_b: Path, inert: tuple[str, ...] = ()) -> Comparison:
    """Compare two run directories bit for bit, ignoring the configuration keys in `inert`.

    Raises:
        ValueError: one of them is not a run directory, or its files are damaged.
    """
    a, b = read_manifest(run_a), read_manifest(run_b)
    runs = ((run_a, a), (run_b, b))
    weights_a, weights_b = (_weights(run_dir, manifest) for run_dir, manifest in runs)
    steps_a, steps_b = (_steps(run_dir, manifest) for run_dir, manifest in runs)
    return Comparison(
        first_divergence(steps_a, steps_b) or _later_divergence(runs, weights_a, weights_b),
        [run_dir for run_dir, manifest in runs if not manifest["results"].get("completed")],
        list(causes(a, b, inert)),
    )


def _later_divergence(
    runs: tuple[tuple[Path, Mapping[str, Any]], ...], weights_a: str | None, weights_b: str | None
) -> Divergence | None:
    """The first difference between runs with equal steps: in a row of the table, or a result.

    What only one run has does not count: rows, because the other run may be incomplete; columns,
    because another version of the code may have written them.
    """
    (run_a, a), (run_b, b) = runs
    tables = (read_metrics(run_dir / METRICS) for run_dir in (run_a, run_b))
    for row_a, row_b in zip(*tables, strict=False):
        for column in (name for name in row_a if name in row_b):
            if row_a[column] != row_b[column]:
                return Divergence(int(row_a["step"]), column, row_a[column], row_b[column])
    if not (a["results"]["completed"] and b["results"]["completed"]):
        return None
    num_steps = a["results"]["num_steps"]
    if weights_a != weights_b:
        return Divergence(num_steps, "weights", weights_a, weights_b)
    for name, value in a["results"]["metrics"].items():
        if value != b["results"]["metrics"].get(name):
            note = (
                "all steps and weights are equal: the number was edited in a manifest, or the "
                "evaluation differs"
            )
            return Divergence(num_steps, name, value, b["results"]["metrics"].get(name), note)
    return None


def _weights(run_dir: Path, manifest: Mapping[str, Any]) -> str | None:
    """A digest of the tensors, since other versions of the format or writer give other files."""
    recorded = manifest["results"].get("weights_sha256")
    if not recorded:
        return None
    content, tensors = read_weights(run_dir / WEIGHTS)
    if recorded not in (sha256(content), tensors):  # before schema 4: of the tensors only
        raise ValueError(f"{run_dir / WEIGHTS} does not hold the weights that the manifest names")
    return tensors


def read_weights(path: Path) -> tuple[bytes, str]:
    """Read a safetensors file; also return the sha256 of its tensors' bytes, ordered by name.

    The format (https://huggingface.co/docs/safetensors): length of the header, header, bytes.

    Raises:
        ValueError: the file is missing or not in safetensors format.
    """
    try:
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        header.pop("__metadata__", None)
        total = hashlib.sha256()
        for name in sorted(header):
            begin, end = header[name]["data_offsets"]
            total.update(content[8 + length + begin : 8 + length + end])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from None
    return content, total.hexdigest()


def _steps(run_dir: Path, manifest: Mapping[str, Any]) -> list[Step]:
    completed, expected = (manifest["results"][key] for key in ("completed", "num_steps"))
    steps = read_steps(run_dir / STEPS, partial=not completed)
    if completed and len(steps) != expected:
        raise ValueError(f"{run_dir / STEPS} holds {len(steps)} of the {expected} steps of its run")
    for name, digest in (manifest["results"]["logs"] or {}).items():
        if completed and hashlib.sha256((run_dir / name).read_bytes()).hexdigest() != digest:
            raise ValueError(f"{run_dir / name} was changed after the run wrote it")
    return steps


def first_divergence(a: list[Step], b: list[Step]) -> Divergence | None:
    """The first difference between two step logs; if one is shorter, it differs at its end."""
    for step_a, step_b in zip(a, b, strict=False):
        facts_a, facts_b = ({"epoch": s.epoch, **s.numbers} for s in (step_a, step_b))
        for quantity in dict.fromkeys([*facts_a, *facts_b]):
            value_a, value_b = facts_a.get(quantity), facts_b.get(quantity)
            # As text, so that two NaNs are equal and 0.0 is not -0.0.
            if repr(value_a) != repr(value_b):
                return Divergence(step_a.step, quantity, value_a, value_b)
    if len(a) != len(b):
        return Divergence(min(len(a), len(b)) + 1, "num_steps", len(a), len(b))
    return None


def causes(
    a: Mapping[str, Any], b: Mapping[str, Any], inert: tuple[str, ...] = ()
) -> Iterator[Cause]:
    """Every recorded fact that differs, layer by layer, except those that cannot matter."""
    for layer in LAYERS:
        facts_a, facts_b = (_flat(_facts(manifest, layer), layer) for manifest in (a, b))
        # An upgrade of the template is listed before the files that it changed.
        names = sorted(facts_a.keys() | facts_b.keys(), key=lambda key: (key != "template", key))
        for key in names:
            # The seed is a layer of its own.
            left_out = layer == "config" and (key == "seed" or is_inert(key, inert))
            if not left_out and facts_a.get(key) != facts_b.get(key):
                yield Cause(layer, key, facts_a.get(key), facts_b.get(key))
    for name, manifest in (("A", a), ("B", b)):
        yield from _resumed_elsewhere(name, manifest)


def _facts(manifest: Mapping[str, Any], layer: str) -> Any:
    """What a manifest says of a layer, as one of the present version would."""
    facts = manifest[layer]
    if layer == "config":
        return complete(facts)
    if layer == "hardware" and not is_ordered(manifest):
        # How many processes shared the pieces, and how these travelled, changes no bit.
        return {name: fact for name, fact in facts.items() if name != "ranks"}
    return facts


def _resumed_elsewhere(name: str, manifest: Mapping[str, Any]) -> Iterator[Cause]:
    """What had changed between the start of a run and its resumes."""
    for resume in manifest.get("resumes") or []:
        for layer in ("environment", "hardware", "determinism"):
            then = {**manifest, layer: resume.get(layer) or {}}
            before, now = (flatten(_facts(each, layer)) for each in (manifest, then))
            for key in sorted(now):
                if now[key] != before.get(key):
                    where = f"{key} (run {name}, resumed at step {resume.get('step')})"
                    yield Cause(layer, where, before.get(key), now[key])


def explain(divergence: Divergence | None, found: list[Cause], *, identical: bool) -> Iterator[str]:
    """Describe line by line where two runs diverge and what differs between them."""
    if divergence:
        yield (
            f"first differs at step {divergence.step}, in {divergence.quantity}: "
            f"{divergence.a!r} against {divergence.b!r}"
        )
        if divergence.note:
            yield divergence.note
    grouped: list[Cause] = []
    for prefix, what in (("packages.", "packages"), ("files.", "files"), ("", "keys")):
        layer = {"packages.": "environment", "files.": "code", "": "config"}[prefix]
        group = [c for c in found if c.layer == layer and c.key.startswith(prefix)]
        if len(group) > FEW:
            yield from _summary(group, prefix, what)
            grouped += group
    for cause in found:
        if cause in grouped:
            continue
        if (cause.layer, cause.key) == ("code", "template"):
            before, after = (value or "one before 0.2.0" for value in (cause.a, cause.b))
            yield f"code: the project was upgraded between them: template {before}, then {after}"
            continue
        yield f"{cause.layer}: {cause.key} was {cause.a!r}, is {cause.b!r}"
    if not found:
        yield "no recorded fact differs"
    if identical:
        return
    if not found:
        yield "known to cause that:"
        yield from (f"  - {cause}" for cause in KNOWN_CAUSES)
    elif {cause.layer for cause in found} <= {"hardware", "environment", "determinism"} and any(
        cause.key in ("cpu", "isa", "cpu_capability") for cause in found
    ):
        yield "another processor takes other instructions; determinism.profile=portable does not"


def _summary(found: list[Cause], prefix: str, what: str) -> Iterator[str]:
    """Summarize many differences with a single cause, such as the packages of the notebook."""
    for verb, chosen in (
        ("were added", [c for c in found if c.a is None]),
        ("were removed", [c for c in found if c.b is None]),
        ("changed", [c for c in found if None not in (c.a, c.b)]),
    ):
        if not chosen:
            continue
        shown = [cause.key.removeprefix(prefix) for cause in chosen[:FEW]]
        if what != "files":  # of a file, the values are digests
            values = [[str(v) for v in (c.a, c.b) if v is not None] for c in chosen[:FEW]]
            shown = [f"{name} {' to '.join(v)}" for name, v in zip(shown, values, strict=True)]
        more = f" and {len(chosen) - FEW} more" if len(chosen) > FEW else ""
        yield f"{chosen[0].layer}: {len(chosen)} {what} {verb}: {', '.join(shown)}{more}"


def _flat(facts: Any, name: str) -> dict[str, Any]:
    return flatten(facts) if isinstance(facts, Mapping) else {name: facts}
