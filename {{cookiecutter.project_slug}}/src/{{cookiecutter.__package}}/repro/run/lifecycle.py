"""`Run`: one run from seeding to results; the training loop itself belongs to the task.

A dozen methods cover everything but the mathematics: the run directory and its lock, seeds,
batches in a fixed order, state that is saved, restored and hashed, logs, periodic checkpoints,
stop signals, tracking, progress, and the manifest. Where torchrun started several processes, each
has a `Run` of its own: all compute, the first keeps the record, and the methods are the same.
"""

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from ..backend.device import CPU, move, place, resolve_device
from ..backend.gradients import WholeBatch, gradients_for, num_pieces
from ..backend.loader import Batches
from ..backend.numbers import to_number
from ..backend.patience import take
from ..backend.pieces import share
from ..backend.ranks import connect
from ..backend.seeding import seed_stream, set_seed
from ..backend.state import (
    CLOCK,
    STATE,
    Stateful,
    capture,
    check_ready,
    digest,
    from_file,
    restore,
    weights_file,
)
from ..config.base import inert_keys
from ..config.load import as_config, to_yaml
from ..config.run_config import RunConfig
from ..env import resolve
from ..files import CHECKPOINTS, CONFIG, MANIFEST, WEIGHTS, checkpoint_path, write_whole
from ..random.sampler import BatchSampler
from ..random.streams import SampleStreams
from ..signals import CTRL_C, Interrupted, StopRequest
from ..tracking.tracker import NullTracker, build_tracker
from .checkpoint import load_latest
from .description import describe_run, seen_by_all
from .directory import check_run_dir, new_run_id, only_writer
from .logs import Later, Number, Recorder, Step, logs_until, plain
from .manifest import sha256, write_manifest
from .plots import try_to_plot
from .progress import Progress
from .saver import Saver

_log = logging.getLogger(__name__)

C = TypeVar("C", bound=RunConfig)
_SHARED_NUMBERS = "log what all ranks have: run.loss, and what run.spread returns"

M = TypeVar("M")
Item = TypeVar("Item")
T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """The results of a finished run. Each metric is also an attribute, with or without `test_`:
    `result.accuracy` is `result.metrics["test_accuracy"]`."""

    metrics: dict[str, float]
    weights_sha256: str
    run_dir: Path

    def __getattr__(self, name: str) -> float:
        metrics = self.__dict__.get("metrics", {})
        for key in (name, f"test_{name}"):
            if key in metrics:
                return metrics[key]
        raise AttributeError(f"no metric {name}; there are {', '.join(metrics) or 'none'}")


class Run(Generic[C]):
    """A run of the configuration class `config_class`; use it as a context manager.

    `config` may be a configuration, nested mappings, or the path of a YAML file. `run_dir` is the
    run's directory, which must be new or empty; with `resume`, the run in it continues from its
    last checkpoint. `allow_changes` permits resuming with changed code, data or configuration.
    `stop_at` stops the run after that step, as SIGTERM would.

    Entering the context locks the directory, sets every determinism switch and seeds all libraries.

    Raises:
        ValueError: the configuration or the run directory cannot be used, or there are more
            processes than pieces of a batch.
        RankError: another process ended, or is not there.
    """

    def __init__(
        self,
        config_class: type[C],
        config: C | Mapping[str, Any] | str | Path,
        *,
        run_dir: str | Path | None = None,
        resume: bool = False,
        allow_changes: bool = False,
        stop_at: int | None = None,
    ) -> None:
        self.config: C = as_config(config_class, config)
        paths, tracking = resolve(self.config, os.environ)
        self.data_dir = Path(paths.data_dir)
        self._inert = tuple(inert_keys(config_class))
        self._resume, self._allow_changes, self._stop_at = resume, allow_changes, stop_at
        self._ranks = connect()
        self._num_pieces = num_pieces(self.config.distributed, self._ranks)

        def claim() -> Path:
            folder = Path(run_dir or Path(paths.output_dir) / new_run_id(self.config))
            check_run_dir(folder, resume=resume)
            return folder

        self.dir = self._ranks.first(claim)
        self._tracker = NullTracker()
        if self._ranks.is_first:
            self._tracker = build_tracker(tracking.mlflow_uri, self.dir)
        self._open = ExitStack()
        self._device = CPU
        self._batches: Batches | None = None
        self._gradients: WholeBatch | None = None
        self._placed: list[Any] = []
        self._stream: tuple[str | int, ...] = ()
        """Purpose and coordinates of the last `seed` in this step; pieces derive theirs from it."""
        self._piece: tuple[int, ...] = ()
        self._objects: dict[str, Stateful] = {}
        self._recorder: Recorder | None = None
        self._saver: Saver | None = None
        self._manifest: dict[str, Any] = {}
        self._state: dict[str, Any] | None = None
        self._best: dict[str, Any] = {"step": 0}
        self._best_state: dict[str, Any] | None = None
        """Not written yet: it waits for the next checkpoint that is due."""
        self._row: dict[str, Number] = {}
        self._done = self._loops = 0
        self._stepping = False
        self._open_step: int | None = None
        """The step of the current loop iteration, counted from 0."""
        self._logged = self._is_best = False

    def __enter__(self) -> Self:
        CTRL_C.heed()  # pressed while the task's libraries were imported, which may swallow it
        with ExitStack() as opened:
            self._ranks.first(lambda: opened.enter_context(only_writer(self.dir)))
            opened.enter_context(self._tracker)
            set_seed(self.config.seed, self.config.determinism)
            CTRL_C.heed()  # this imports parts of the framework
            self._state = self._load() if self._resume else None
            if self._state:
                self._done, self._best = self._state["step"], self._state["best"]
            self._open = opened.pop_all()
        return self

    def __exit__(self, *exception: Any) -> bool | None:
        return self._open.__exit__(*exception)

    def _load(self) -> dict[str, Any] | None:
        found: list[dict[str, Any]] = []

        def load() -> int | None:
            found.extend(filter(None, [load_latest(self.dir / CHECKPOINTS)]))
            return found[0]["step"] if found else None

        step = self._ranks.first(load)
        if step is None or found:
            return found[0] if found else None
        return from_file(checkpoint_path(self.dir / CHECKPOINTS, step))

    # --- before the start ---------------------------------------------------------------------

    def use(self, device: str) -> Any:
        """Select the device by name (`auto`: the first GPU, if any); batches are moved there.

        Raises:
            ValueError: `cuda` was requested but is not available.
        """
        self._device = resolve_device(device, self._ranks.local_rank)
        self._ranks.use(self._device, self.config.distributed)
        return self._device

    def place(self, module: M) -> M:
        """Move a module to the device; its gradients are those of the whole batch (`pieces`)."""
        if self._recorder is not None:
            raise ValueError("run.place comes before run.start")
        self._placed.append(place(module, self._device))
        return module

    def seed(self, purpose: str, *coordinates: str | int) -> None:
        """Reseed the global random generators: the numbers drawn next depend on the seed, `purpose`
        and `coordinates` only, not on what was drawn before. In a step, each piece of the batch
        draws from a stream of its own, derived from this one.
        """
        self._stream = (purpose, *coordinates)
        seed_stream(self.config.seed, *self._stream, *self._piece)

    def streams(self, purpose: str) -> SampleStreams:
        """Generators for each (epoch, index) of a data set: `streams("augment")(epoch, index)`."""
        return SampleStreams(self.config.seed, purpose)

    def batches(
        self,
        dataset: Any,
        *,
        global_batch_size: int,
        num_epochs: int | None = None,
        num_steps: int | None = None,
        accumulate: int = 1,
        num_workers: int = 0,
        prefetch_factor: int = 2,
    ) -> Batches:
        """Batches of a map-style data set, which is indexed by `(epoch, index)`.

        A step is an optimizer step; with `accumulate=k` its batch comes in k parts. Set the length
        of the training by either `num_epochs` or `num_steps`.

        Raises:
            ValueError: the data cannot fill a batch, shared memory is too small for the loader
                processes, or this is a second data set.
        """
        if self._batches is not None:
            raise ValueError("run.batches was called twice; join the data sets in one")
        length = {"num_epochs": num_epochs, "num_steps": num_steps}
        how = {"seed": self.config.seed, "start": self._done, "accumulate": accumulate}
        mine = share(self._num_pieces, self._ranks.rank, self._ranks.size)
        pieces = {"pieces": mine, "num_pieces": self._num_pieces}
        sampler = BatchSampler(len(dataset), global_batch_size, **length, **how, **pieces)
        self._batches = Batches(dataset, sampler, num_workers, prefetch_factor)
        return self._batches

    def start(self, data: Mapping[str, Any], **objects: Stateful) -> None:
        """Start or resume the run: everything in `objects` is saved, restored and hashed.

        `data` describes the training data: at least `name`, `num_samples` and `sha256`.
        `model.safetensors` will contain the object named `model`, or else every module.

        Raises:
            ValueError: an object has no state, or `describe_run` or `restore` raised it.
        """
        if self._recorder is not None:
            raise ValueError("run.start was called twice; name all objects in one call")
        if self._batches is None:
            raise ValueError("run.start needs the number of steps; call run.batches first")
        CTRL_C.heed()  # the task may have imported more with its data
        _check_objects(objects)
        check_ready(objects)
        if missing := sorted({"name", "num_samples", "sha256"} - data.keys()):
            raise ValueError(f"the description of the data lacks {', '.join(missing)}")
        if "dvc" in data:
            raise ValueError("the description of the data has a dvc; that name is the record's own")
        self._objects = objects
        self._gradients = gradients_for(self._num_pieces, self._batches.accumulate, self._ranks)
        for module in self._placed:
            self._gradients.place(module)
        ranks = {**self._ranks.describe(), "num_pieces": self._num_pieces}
        if self._ranks.size > 1:
            self._ranks.same(seen_by_all(self.dir, self.config, data))
        self._manifest = self._ranks.first(
            lambda: describe_run(
                self.dir,
                self.config,
                data,
                ranks,
                inert=self._inert,
                start=self._done,
                num_steps=self._batches.num_steps,
                allow_changes=self._allow_changes,
            )
        )
        if self._state:
            restore(self._state, objects)
        if self._ranks.size > 1:
            self._ranks.same({"state": digest(capture(objects))}, "the initial ")
        self._ranks.first(self._start_record)
        self._ranks.all_see(self.dir / MANIFEST)
        if self._recorder is None:
            self._recorder = Recorder(self.dir, resume_step=self._done, writes=False)
        self._tracker.start()
        progress = Progress(self._batches.num_steps, start=self._done, shown=self._ranks.is_first)
        self._progress = self._open.enter_context(progress)

    def _start_record(self) -> None:
        if self._state:
            logs_until(self.dir, self._done, self._state["logs"])  # the last check that may fail
        write_whole(self.dir / CONFIG, to_yaml(self._manifest["config"]))
        write_manifest(self.dir, self._manifest)
        self._recorder = self._open.enter_context(Recorder(self.dir, resume_step=self._done))
        keep = self.config.record.keep_checkpoints
        self._saver = self._open.enter_context(Saver(self.dir / CHECKPOINTS, keep=keep))

    # --- the loop -----------------------------------------------------------------------------

    def steps(self, batches: Batches) -> Iterator[tuple[int, Any]]:
        """Yield `(step, batch)`, from the first step not yet done; steps count from 0.

        The batch is on the device; with `accumulate` it is a list of its parts. After each
        iteration a checkpoint is saved if one is due, and the run stops if asked to.

        Raises:
            ValueError: an iteration logged nothing, or `steps` was called twice.
            Interrupted: the run was asked to stop, or no batch arrived; a checkpoint of the last
                step has been saved.
        """
        if self._recorder is None or batches is not self._batches:
            raise ValueError("run.steps takes what run.batches gave, after run.start")
        if self._stepping:
            raise ValueError("run.steps was called twice; a run has one loop")
        self._stepping = True
        first = self._done
        with StopRequest() as stop:
            parts = take(batches, stop)
            for step in range(first, batches.num_steps):
                batch = [part for _, part in zip(range(batches.accumulate), parts, strict=False)]
                if not self._ranks.hear(stop):
                    break
                batch = [move(part, self._device) for part in batch]
                self._open_step, self._logged, self._is_best = step, False, False
                self._loops = 0
                self.seed("step", step)  # so that a loop which forgets to can still be resumed
                yield step, batch if batches.accumulate > 1 else batch[0]
                self._close_step(stop)
        if stop.failure:  # no batch arrived
            if self._done > first:
                self._save(wait=True)
            raise Interrupted(self.dir, self._done, reason=stop.failure)

    def pieces(self, batch: Any) -> Iterator[Any]:
        """Yield the pieces of a batch to be computed here, one after the other.

        Call `backward` once for each. After the loop, the gradients of the modules that were placed
        are those of the whole batch, on every rank.

        Raises:
            ValueError: `backward` was not called, or the batch holds what cannot be cut.
        """
        step = self._now("pieces")
        accumulate, loop = self._batches.accumulate, self._loops
        stream = (*self._stream, *([loop] if loop else []))
        self._loops += 1

        def seed(piece: int) -> None:
            self._piece = (piece,)
            seed_stream(self.config.seed, *stream, piece)

        try:
            yield from self._gradients.cut(batch if accumulate > 1 else [batch], seed)
        finally:
            self._piece = ()
        assert step == self._open_step

    def backward(self, loss: Any, *, scaler: Any = None) -> None:
        """Compute the gradients of the mean loss of a piece, by its share of the batch; `scaler` is
        a gradient scaler, if there is one."""
        self._gradients.backward(loss, scaler)

    @property
    def loss(self) -> Any:
        """The mean loss of the batch, after the loop over its pieces."""
        self._now("loss")
        return self._gradients.loss()

    def spread(self, function: Callable[[Item], T], items: Iterable[Item]) -> list[T]:
        """`function` of each item, in their order, on every rank; the ranks share the work.

        For an evaluation: what the function returns (numbers, tensors in CPU memory) is sent to all
        ranks, and must not depend on the items before.
        """
        items, ranks = list(items), self._ranks
        mine = [function(item) for item in items[ranks.rank :: ranks.size]]
        shares = [iter(each) for each in ranks.gather(mine)]
        return [next(shares[number % ranks.size]) for number in range(len(items))]

    def log_step(self, **numbers: Any) -> None:
        """Record numbers of this step, exactly, in `steps.jsonl`; use the same names at every step.

        Accepts numbers and one-element tensors. Those that a GPU still computes are written in
        order, at the latest with the next checkpoint or row of metrics.

        Raises:
            ValueError: a value is not a number, a name is reserved or was not in the first step,
                or the step was already logged.
        """
        step = self._now("log_step")
        if self._logged:
            raise ValueError(f"step {step + 1} was logged twice; log all its numbers in one call")
        values = _numbers(numbers)
        if not values:
            raise ValueError("log_step needs a number, such as log_step(loss=loss)")
        self._recorder.step(Step(step + 1, self._batches.epoch(step), values))
        self._logged = True

    def log_metrics(self, **numbers: Any) -> None:
        """Record a row of `metrics.csv` after this step, such as validation results.

        The row begins with the means of the logged numbers since the last row (`train_loss`).

        Raises:
            ValueError: as for `log_step`, or `log_step` was not called first.
        """
        step = self._now("log_metrics")
        if not self._logged:
            raise ValueError("log_metrics comes after log_step, in the same turn of the loop")
        if self._row.get("step") == step + 1:
            raise ValueError(f"step {step + 1} has a row; log all its metrics in one call")
        self._row = self._recorder.row(self._batches.epoch(step), step + 1, _at_once(numbers))
        self._progress.row(self._row)

    def keep_best(self, name: str, *, higher: bool) -> None:
        """Keep the checkpoint of this step if the metric `name`, just logged, is the best so far;
        it is written with the next one that is due.

        Raises:
            ValueError: no such metric was logged at this step.
        """
        step = self._now("keep_best")
        if self._row.get("step") != step + 1 or name not in self._row:
            raise ValueError(f"keep_best of {name!r}, which log_metrics did not log at this step")
        value, best = self._row[name], self._best.get(name)

        def is_better() -> bool:  # on a tie, the earlier one is kept; nothing is better than NaN
            return value > best if higher else value < best

        # One rank decides, since all of them save then, or none.
        if self._ranks.first(lambda: not math.isnan(value) and (best is None or is_better())):
            self._best, self._is_best = {"step": step + 1, name: value}, True

    def _now(self, verb: str) -> int:
        if self._open_step is None:
            raise ValueError(f"{verb} must be called inside the loop over run.steps")
        return self._open_step

    def _close_step(self, stop: StopRequest) -> None:
        done = self._open_step + 1
        if not self._logged:
            raise ValueError(f"step {done} was not logged; call run.log_step once in every turn")
        self._done, self._open_step = done, None
        self._progress.step()
        if self._num_pieces > 1 and not self._gradients.whole:
            raise ValueError(
                f"distributed.num_pieces is {self._num_pieces}, but the loop does not compute a "
                "batch by its pieces: for … in run.pieces(batch), to its end (docs/distributed.md)"
            )
        self._gradients.whole = False
        num_steps, record = self._batches.num_steps, self.config.record
        signal_number = self._ranks.signal(stop)
        stopping = signal_number is not None or done == self._stop_at
        due = done % record.checkpoint_every == 0 or done == num_steps
        if due or stopping:
            self._save(wait=stopping)
        elif self._is_best:
            self._best_state = self._captured()
        if stopping and done < num_steps:
            raise Interrupted(self.dir, done, signal_number)

    def _captured(self) -> dict[str, Any]:
        logs = self._recorder.digests()
        state = capture(self._objects, step=self._done, best=self._best, logs=logs)
        if self._ranks.size > 1:
            after = f"after step {self._done}, the "
            self._ranks.same(logs, after, _SHARED_NUMBERS)
            self._ranks.same({"state": digest(state)}, after)
        return state

    def _save(self, *, wait: bool) -> None:
        self._state = self._captured()
        best, self._best_state = self._best_state, None
        is_still = best is not None and best["step"] == self._best["step"]
        states = [best, self._state] if is_still else [self._state]
        how = {"first": self._recorder.to_disk, "wait": wait}
        self._ranks.first(lambda: self._saver.save(states, **how))

    def write_file(self, name: str, content: str | bytes) -> Path:
        """Write a file into the run's directory, once, however many ranks there are."""
        path = self.dir / name
        self._ranks.first(lambda: write_whole(path, content))
        return path

    # --- the end ------------------------------------------------------------------------------

    def finish(self, metrics: Mapping[str, Any], *, weights: Any = None) -> Result:
        """Save the final weights (the run's own, or those of the module `weights`) and the manifest
        with `metrics`; then draw the curves.

        Raises:
            ValueError: steps remain to be done, or a metric is not a number.
        """
        num_steps = self._batches.num_steps if self._batches else 0
        if self._recorder is None or self._done < num_steps or self._state is None:
            done = f"step {self._done} of {num_steps}"
            raise ValueError(f"run.finish comes after the last step; this is after {done}")
        values = plain(_at_once(metrics))
        # JSON has no NaN: diverged metrics become null.
        diverged = [name for name, value in values.items() if not math.isfinite(value)]
        if diverged:
            _log.warning("training diverged: %s is not finite", ", ".join(diverged))
        shown = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        _log.info("%s", shown)
        content = weights_file(self._objects if weights is None else {"model": weights})
        results = {
            **self._manifest["results"],
            "metrics": {n: None if n in diverged else value for n, value in values.items()},
            "best": self._best if self._best["step"] else None,
            "weights_sha256": sha256(content),
            "logs": self._state["logs"],
            "completed": True,
        }

        def write() -> None:
            self._saver.wait()  # the results stand on the last checkpoint
            write_whole(self.dir / WEIGHTS, content)
            write_manifest(self.dir, {**self._manifest, "results": results})
            try_to_plot(self.dir)

        self._ranks.first(write)
        return Result(values, results["weights_sha256"], self.dir)


def _check_objects(objects: Mapping[str, Any]) -> None:
    if not objects:
        raise ValueError("run.start was given nothing to save; name the model and the optimizer")
    seen: dict[int, str] = {}
    for name, each in objects.items():
        if name in CLOCK:
            raise ValueError(f"{name} is a name of the run's own; give the object another one")
        if not isinstance(each, Stateful):
            kind = type(each).__name__
            raise ValueError(f"{name} ({kind}) has no {STATE}")
        if (other := seen.setdefault(id(each), name)) != name:
            raise ValueError(f"{other} and {name} are the same object; name it once")


def _at_once(given: Mapping[str, Any]) -> dict[str, Number]:
    values = _numbers(given)
    return {n: each.number() if isinstance(each, Later) else each for n, each in values.items()}


def _numbers(given: Mapping[str, Any]) -> dict[str, Number | Later]:
    values = {}
    for name, value in given.items():
        try:
            values[name] = to_number(value)
        except ValueError as error:
            raise ValueError(f"{name} is {error}") from None
    return values
