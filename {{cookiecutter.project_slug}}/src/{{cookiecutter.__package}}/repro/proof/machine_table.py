"""The same configuration on several machines: which pairs gave the same bits, and if not, why.

CI trains on each of its machines and publishes the table printed here.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

from ..files import MANIFEST
from ..run.manifest import read_manifest
from .compare import Comparison, compare_runs

SAME, DIFFERENT = 0, 1


def machines(folder: Path, inert: tuple[str, ...] = ()) -> int:
    """Print a Markdown table of every pair of runs in `folder/<machine>/…`.

    Returns 1 if two runs differ although all their recorded facts agree: that is a bug. Differences
    between kinds of machines return 0.

    Raises:
        ValueError: there are fewer than two runs, or one of them is damaged.
    """
    runs = dict(sorted(_runs(folder)))
    if len(runs) < 2:
        raise ValueError(f"{folder} holds {len(runs)} runs of machines; two are needed to compare")
    print("| machine | processor | system | final weights |")
    print("|---|---|---|---|")
    for name, run_dir in runs.items():
        manifest = read_manifest(run_dir)
        weights = f"`{str(manifest['results']['weights_sha256'])[:12]}`"
        facts = (manifest["hardware"]["cpu"], manifest["environment"]["platform"])
        print(_row(name, *map(str, facts), weights))
    print("\n| machines | result | recorded differences |")
    print("|---|---|---|")
    unexplained = False
    for (name_a, run_a), (name_b, run_b) in itertools.combinations(runs.items(), 2):
        result = compare_runs(run_a, run_b, inert)
        unexplained |= not result.identical and not result.causes
        print(_row(f"{name_a}, {name_b}", _verdict(result), _differences(result)))
    return DIFFERENT if unexplained else SAME


def _runs(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.glob(f"*/**/{MANIFEST}"):
        yield path.relative_to(folder).parts[0], path.parent


def _verdict(result: Comparison) -> str:
    if result.identical:
        return "identical"
    if result.divergence:
        return f"first differs at step {result.divergence.step}, in {result.divergence.quantity}"
    return "not complete" if result.incomplete else "same steps, other results"


def _differences(result: Comparison) -> str:
    layers: dict[str, list[str]] = {}
    for cause in result.causes:
        layers.setdefault(cause.layer, []).append(cause.key)
    return "; ".join(
        f"{layer}: {', '.join(keys[:4])}{f' and {len(keys) - 4} more' if len(keys) > 4 else ''}"
        for layer, keys in layers.items()
    )


def _row(*cells: str) -> str:
    # A vertical bar or a line break would break the table.
    return f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in cells)} |"
