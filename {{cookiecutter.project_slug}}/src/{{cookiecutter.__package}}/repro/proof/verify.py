"""Execute a run again, or random segments of it, in fresh processes and compare every bit."""

import filecmp
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..backend import facts
from ..config.base import inert_keys
from ..config.load import config_from_dict, config_sha256, flatten, load_config, to_yaml
from ..config.run_config import RunConfig
from ..entry import for_children
from ..files import (
    CHECKPOINTS,
    CONFIG,
    MANIFEST,
    METRICS,
    PROJECT,
    STEPS,
    checkpoint_path,
    checkpoint_step,
    find_project_root,
    list_checkpoints,
)
from ..git import git
from ..run.dvc import changed_data
from ..run.logs import Step, logs_until, read_steps
from ..run.manifest import is_ordered, is_under_git, num_ranks, read_manifest
from .compare import Cause, Divergence, causes, compare_runs, explain, first_divergence
from .html import write_html
from .report import drawing, sentence

IDENTICAL, DIFFERS, BAD_INPUT = 0, 1, 2


@dataclass(frozen=True)
class Segment:
    """Steps `start + 1` to `end` of a run, executed again."""

    start: int
    end: int
    identical: bool
    divergence: Divergence | None
    recorded: list[Step]
    repeated: list[Step]


def verify(
    run_dir: Path,
    config_class: type[RunConfig],
    *,
    num_segments: int | None = None,
    seed: int = 0,
    ranks: int | None = None,
) -> int:
    """Print whether `run_dir` gives the same bits again, and write `verify.json` and `verify.html`.

    This executes the whole run, or `num_segments` segments between consecutive checkpoints, chosen
    by `seed`; segments cost the same however long the run was (Jia et al., "Proof-of-Learning",
    IEEE S&P 2021). `ranks` is the number of processes, by default that of the run. Returns 0 if
    everything is equal, else 1.

    Raises:
        ValueError: the run is damaged or incomplete, or could not be executed.
    """
    manifest = _checked_manifest(run_dir, config_class, whole=num_segments is None)
    inert = tuple(inert_keys(config_class))
    ranks = num_ranks(manifest) if ranks is None else ranks
    if ranks != 1 and not facts.RANKS:
        raise ValueError(f"--ranks is {ranks}, and a {facts.NAME} project trains in one process")
    if ranks < 1 or (ranks != num_ranks(manifest) and is_ordered(manifest)):
        had = f"the run had {num_ranks(manifest)}, and distributed.gradients is ordered"
        raise ValueError(f"verify with {ranks} ranks gives other bits: {had}")
    with tempfile.TemporaryDirectory(prefix="verify-") as scratch:
        if num_segments is None:
            segments, found = _whole(run_dir, manifest, Path(scratch), inert, ranks)
        else:
            how = {"num_segments": num_segments, "seed": seed, "inert": inert, "ranks": ranks}
            segments, found = _segments(run_dir, manifest, Path(scratch), **how)
    identical = all(segment.identical for segment in segments)
    for segment in segments:
        verdict = "equal" if segment.identical else "DIFFERENT"
        print(f"steps {segment.start + 1:>8} to {segment.end:>8}  {verdict}")
    divergence = next((s.divergence for s in segments if s.divergence), None)
    print("\n".join(explain(divergence, found, identical=identical)))
    try:
        _write(run_dir, manifest, segments, divergence, found, identical=identical)
    except Exception as error:  # the verdict is final, whether or not the page can be written
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        print(f"warning: the report could not be written: {reason}", file=sys.stderr)
    print("IDENTICAL" if identical else "DIFFERENT")
    return IDENTICAL if identical else DIFFERS


def _checked_manifest(
    run_dir: Path, config_class: type[RunConfig], *, whole: bool
) -> dict[str, Any]:
    manifest = read_manifest(run_dir)
    results = manifest["results"]
    if whole and not results.get("completed"):
        raise ValueError(f"{run_dir} is not complete; finish it with train --resume {run_dir}")
    if config_sha256(manifest["config"]) != manifest["config_sha256"]:
        raise ValueError(f"{run_dir}: the config in the manifest is not the one it was made with")
    named = config_from_dict(config_class, manifest["config"])
    if load_config(config_class, run_dir / CONFIG) != named:
        raise ValueError(f"{run_dir / CONFIG} is not the config that the manifest names")
    changed = [r["step"] for r in manifest.get("resumes") or [] if r.get("changes")]
    if changed:
        raise ValueError(
            f"{run_dir} was resumed with changes at step {changed[0]}; "
            "no single configuration repeats it"
        )
    if whole:
        compare_runs(run_dir, run_dir)  # its files must be consistent before it is executed again
    return manifest


def _announce(run_dir: Path, manifest: dict[str, Any]) -> None:
    """Announce the verification, after the last check that may fail: errors are one line."""
    if missing := _missing_commit(manifest):
        print(f"warning: {missing}", file=sys.stderr)
    _print_now(f"executing again: {run_dir}")


def _print_now(text: str) -> None:
    print(text)
    with suppress(OSError):  # its reader is gone; the verdict is in the report, too
        sys.stdout.flush()


def _missing_commit(manifest: dict[str, Any]) -> str:
    """Advice if the commit of a run is not available; empty if it is, or without git."""
    root, commit = find_project_root(), manifest["code"]["commit"]
    if not commit:
        return "the run names no commit: it is executed by the code that is here"
    if not is_under_git(root, or_named=True):
        return ""
    if git(root, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"):
        return ""
    return (
        f"commit {commit[:12]} of the run is not in this repository; git fetch --all may bring it, "
        "otherwise the run is executed by the code that is here"
    )


def _whole(
    run_dir: Path, manifest: dict[str, Any], scratch: Path, inert: tuple[str, ...], ranks: int
) -> tuple[list[Segment], list[Cause]]:
    config, again = scratch / CONFIG, scratch / "run"
    config.write_text(to_yaml(manifest["config"]), encoding="utf-8")
    _announce(run_dir, manifest)
    # Whoever recorded data other than git pins repeats the run with that data.
    allowed = ["--allow-changes"] if changed_data(manifest["data"].get("dvc", {})) else []
    _execute(ranks, "--config", config, "--run-dir", again, *allowed)
    result = compare_runs(run_dir, again, inert)
    print(f"metrics: {json.dumps(read_manifest(again)['results']['metrics'])}")
    recorded, repeated = read_steps(run_dir / STEPS), read_steps(again / STEPS)
    end = manifest["results"]["num_steps"]
    divergence = result.divergence or _state_divergence(run_dir, again, end)
    equal = result.identical and divergence is None
    return [Segment(0, end, equal, divergence, recorded, repeated)], result.causes


def _state_divergence(run_dir: Path, again: Path, step: int) -> Divergence | None:
    """Compare the state in the last checkpoints: no other file contains the optimizer."""
    paths = [checkpoint_path(folder / CHECKPOINTS, step) for folder in (run_dir, again)]
    if not all(path.exists() for path in paths):
        return None  # a run may have been shared without its checkpoints
    if filecmp.cmp(*paths, shallow=False):
        return None
    # Imported here: equal files need no framework, which takes seconds to load.
    from ..run.checkpoint import checkpoint_digest

    digests = [checkpoint_digest(path) for path in paths]
    return None if digests[0] == digests[1] else Divergence(step, "state", *digests)


def _segments(
    run_dir: Path,
    manifest: dict[str, Any],
    scratch: Path,
    *,
    num_segments: int,
    seed: int,
    inert: tuple[str, ...],
    ranks: int,
) -> tuple[list[Segment], list[Cause]]:
    # Imported here: verifying a whole run leaves the framework to the training process.
    from ..backend.state import from_file
    from ..run.checkpoint import checkpoint_digest

    if num_segments < 1:
        raise ValueError(f"--segments must be at least 1, got {num_segments}")
    folder = run_dir / CHECKPOINTS
    steps = [checkpoint_step(path) for path in list_checkpoints(folder)]
    config = flatten(manifest["config"])
    every = config.get("record.checkpoint_every") or config["training.checkpoint_every"]
    pairs = list(zip([0, *steps], steps, strict=False))
    pairs = [(start, end) for start, end in pairs if end - start <= every]
    if not pairs:
        raise ValueError(
            f"{run_dir} kept no two consecutive checkpoints; train with a larger "
            "record.keep_checkpoints to verify by segments"
        )
    chosen = sorted(random.Random(seed).sample(pairs, min(num_segments, len(pairs))))
    covered, total = sum(end - start for start, end in chosen), manifest["results"]["num_steps"]
    last = from_file(checkpoint_path(folder, steps[-1]))
    logs_until(run_dir, steps[-1], last["logs"])  # an edited log proves nothing
    recorded = read_steps(run_dir / STEPS, partial=True)
    _announce(run_dir, manifest)
    _print_now(
        f"{len(chosen)} of {num_segments} segments: {covered} of {total} steps are executed again"
    )
    segments, found = [], []
    for start, end in chosen:
        again = _prepare(run_dir, scratch / f"{start}-{end}", start)
        _execute(ranks, "--resume", again, "--allow-changes", "--stop-at", end)
        ours, theirs = recorded[start:end], read_steps(again / STEPS)[start:]
        divergence = first_divergence(ours, theirs)
        digests = [
            checkpoint_digest(checkpoint_path(f, end)) for f in (folder, again / folder.name)
        ]
        equal = divergence is None and digests[0] == digests[1]
        segments.append(Segment(start, end, equal, divergence, ours, theirs))
        found = list(causes(manifest, read_manifest(again), inert))
    return segments, found


def _prepare(run_dir: Path, again: Path, start: int) -> Path:
    """Create a run directory in the state in which `run_dir` was after step `start`."""
    again.mkdir()
    for name in (MANIFEST, CONFIG, STEPS, METRICS):
        shutil.copy(run_dir / name, again)
    if start:
        (again / CHECKPOINTS).mkdir()
        shutil.copy(checkpoint_path(run_dir / CHECKPOINTS, start), again / CHECKPOINTS)
    return again


def _execute(ranks: int, *arguments: object) -> None:
    command = [sys.executable, "-m", PROJECT, "train", "--scratch", *map(str, arguments)]
    environ = for_children()
    if ranks > 1:
        torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        command[1:1] = ["-m", *torchrun]
        environ |= {"OMP_NUM_THREADS": "1"}  # or torchrun says at length that it sets it
    # A verification is not an experiment, so it is not tracked.
    done = subprocess.run(
        [*command, "tracking.mlflow_uri="],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE if ranks > 1 else None,
        text=True,
    )
    if done.returncode == BAD_INPUT:
        raise SystemExit(BAD_INPUT)  # the process has already printed why, in one line
    if done.returncode:
        # torchrun adds pages of its own to the one line that counts.
        if ours := re.search("^error: (.+)", done.stderr or "", re.MULTILINE):
            raise ValueError(ours[1])
        sys.stderr.write(done.stderr or "")
        raise ValueError(f"the run could not be executed again: exit code {done.returncode}")


def _write(
    run_dir: Path,
    manifest: dict[str, Any],
    segments: list[Segment],
    divergence: Divergence | None,
    found: list[Cause],
    *,
    identical: bool,
) -> None:
    summary = {
        "identical": identical,
        "first_divergence": divergence.to_json() if divergence else None,
        "causes": [asdict(cause) for cause in found],
        "segments": [{"start": s.start, "end": s.end, "identical": s.identical} for s in segments],
    }
    text = json.dumps(summary, indent=2, ensure_ascii=False)
    (run_dir / "verify.json").write_text(text + "\n", encoding="utf-8")
    repeated = [step for segment in segments for step in segment.repeated]
    recorded = [step for segment in segments for step in segment.recorded]
    facts = {
        "commit": flatten(manifest).get("code.commit"),
        "seed": manifest["seed"],
        "config_sha256": manifest["config_sha256"],
        "data.sha256": manifest["data"]["sha256"],
    }
    write_html(
        run_dir / "verify.html",
        title=manifest["run_id"],
        verdict="IDENTICAL" if identical else "DIFFERENT",
        sentence=sentence(divergence, num_steps=len(repeated), subject="The run executed again"),
        **drawing(recorded, repeated, divergence, names=("recorded", "executed again")),
        facts=list(facts.items()),
        differences=[(f"{c.layer}: {c.key}", c.a, c.b) for c in found],
    )
