"""Changes everything that must not matter to a run, all at once; and kills it at chosen instants.

As in Debian's reprotest: vary everything together, and look for the cause only if a bit differs.
Every function here permanently changes the process in which it is called.
"""

import datetime
import glob
import json
import os
import platform
import random
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Self

PACKAGE = Path(__file__).resolve().parents[2].name
NOISY = (
    "repro.run.lifecycle.Run.batches",
    "repro.run.lifecycle.Run.start",
    "repro.run.lifecycle.Run.log_step",
    "repro.run.lifecycle.Run.log_metrics",
    "repro.run.lifecycle.Run._save",
    "repro.run.progress.Progress.step",
)
"""Functions around whose calls foreign code may draw random numbers: loading, logging, rows."""
FETCHES = {
    "torch": "torch.utils.data._utils.fetch._MapDatasetFetcher.fetch",
    "tensorflow": "repro.backend.loader.fetch",
}
"""What fetches a batch, beside the training."""

MARKS: Counter[str] = Counter()
"""How often each disturbance took effect: one that never did has proved nothing."""
VARIED = ("listings", "clock", "machine", "randomness", "speed", "folder", "leftovers", "modes")
_marks_path: Path | None = None


def disturb(
    marks: Path, *, vary: str = "", kill: str = "", send: str = "", count: Sequence[str] = ()
) -> None:
    """Change the surroundings (`vary` orders the listings: "reversed" or "sorted"); `kill` the
    process at "before|after FUNCTION N", the N-th call, or `send` it a signal: "SIGTERM after …".
    `count` the calls of functions.

    The disturbances that happened are written to `marks`.
    """
    global _marks_path
    _marks_path = marks
    if vary:
        listings(vary)
        another_clock()
        another_machine()
        stray_randomness()
        uneven_speed()
        other_folders(marks)
    if kill:
        _signal_at(kill, signal.SIGKILL)
    if send:
        name, _, instant = send.partition(" ")
        _signal_at(instant, signal.Signals[name])
    for name in count:
        _wrap(name, before=partial(_count, name))


def _count(name: str, calls: int) -> None:
    MARKS[name] = calls


def write_marks() -> None:
    """Report what happened; a process that restarted itself has nothing to report."""
    inherited = {"hash": hash("reproducible"), "zone": time.tzname[0]}
    inherited["memory"] = os.environ.get("MALLOC_PERTURB_")
    _marks_path.write_text(json.dumps({**inherited, **MARKS}))


def listings(order: str) -> None:
    """List directories in another order; both are tried, since one is often the native order."""
    list_directory, scan_directory = os.listdir, os.scandir

    def ordered(entries: list, name: Callable[[Any], Any]) -> list:
        MARKS["listings"] += 1
        return sorted(entries, key=name, reverse=order == "reversed")

    class Scan:
        def __init__(self, path: Any = ".") -> None:
            with scan_directory(path) as found:
                self.entries: Iterator = iter(ordered(list(found), lambda entry: entry.name))

        def __iter__(self) -> Self:
            return self

        def __next__(self) -> Any:
            return next(self.entries)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *exception: object) -> None:
            pass

        def close(self) -> None:
            pass

    os.listdir = lambda path=".": ordered(list_directory(path), lambda name: name)
    os.scandir = Scan
    for kind in vars(glob).values():  # in Python 3.13 it is bound in a class
        if vars(kind).get("scandir") if isinstance(kind, type) else None:
            kind.scandir = staticmethod(os.scandir)


def another_clock() -> None:
    """The clock is 97 days ahead and runs 50 times as fast: no time limit may affect a result."""
    days = 97 * 86_400
    for clock in ("time", "monotonic", "perf_counter", "process_time"):
        for name, offset in ((clock, days), (f"{clock}_ns", days * 10**9)):
            setattr(time, name, _later(getattr(time, name), offset, factor=50))

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime.datetime:
            return datetime.datetime.fromtimestamp(time.time(), tz)

    later = Later
    datetime.datetime = later


def _later(real: Callable[[], Any], offset: int, factor: int) -> Callable[[], Any]:
    start = real()

    def later() -> Any:
        MARKS["clock"] += 1
        return start + offset + factor * (real() - start)

    return later


def another_machine() -> None:
    """Another number of processors, name, user and home."""

    def seven() -> int:
        MARKS["machine"] += 1
        return 7

    os.cpu_count = seven
    if hasattr(os, "process_cpu_count"):
        os.process_cpu_count = os.cpu_count
    if hasattr(os, "sched_getaffinity"):
        os.sched_getaffinity = lambda process: set(range(7))
    import multiprocessing

    multiprocessing.cpu_count = os.cpu_count
    socket.gethostname = platform.node = lambda: "elsewhere"
    os.environ |= {"USER": "somebody", "HOSTNAME": "elsewhere", "RANK": "3", "LOCAL_RANK": "3"}
    os.environ |= {"SEED": "999", "PL_GLOBAL_SEED": "999", "SLURM_JOB_ID": "4711"}


def stray_randomness() -> None:
    """Unrelated code draws from, and seeds, every global generator."""

    def draw(*call: Any) -> None:
        MARKS["randomness"] += 1
        random.seed(os.urandom(8))
        if numpy := sys.modules.get("numpy"):
            numpy.random.seed(int.from_bytes(os.urandom(4), "little"))
        if torch := sys.modules.get("torch"):
            torch.rand(random.randrange(1, 9))
        # Its threads cannot be chosen any more once it has computed: not before the run has begun.
        if call and (tensorflow := sys.modules.get("tensorflow")):
            tensorflow.random.uniform([random.randrange(1, 9)])

    draw()
    for name in NOISY:
        _wrap(name, before=draw, after=draw)


def uneven_speed() -> None:
    """Batches and steps take unequal time, so that they finish in a different order."""

    def pause(count: int) -> None:
        MARKS["speed"] += 1
        time.sleep(0.01 * (count % 3 == 0))

    for name in ("log_step", "finish"):
        _wrap(f"repro.run.lifecycle.Run.{name}", before=pause)
    for framework, fetch in FETCHES.items():
        if framework in sys.modules:
            _wrap(fetch, before=lambda number: time.sleep(0.01 * (number % 2 == 0)))


def other_folders(marks: Path) -> None:
    """Another working directory, home and cache, each with leftovers of an earlier run; new files
    are private to the user."""
    folder = marks.with_suffix(".folder")
    for name in ("work", "home", "cache"):
        (folder / name / "outputs" / "run").mkdir(parents=True)
        (folder / name / "outputs" / "run" / "manifest.json").write_text("{}")
        (folder / name / "checkpoints").mkdir()
        for ending in (".pt", ".safetensors"):
            left = folder / name / "checkpoints" / f"step-99999999{ending}"
            left.write_bytes(b"of another run")
        (folder / name / "config.yaml").write_text("seed: 999\n")
        (folder / name / ".env").write_text("SEED=999\n")
    os.chdir(folder / "work")
    MARKS["folder"] += 1
    os.environ |= {"HOME": str(folder / "home"), "XDG_CACHE_HOME": str(folder / "cache")}
    MARKS["leftovers"] += Path.home().samefile(folder / "home") and Path("config.yaml").exists()
    os.umask(0o077)
    probe = folder / "probe"
    probe.touch()
    MARKS["modes"] += probe.stat().st_mode & 0o777 == 0o600


def _signal_at(instant: str, number: int) -> None:
    when, name, call = instant.split()

    def send(count: int) -> None:
        if count == int(call):
            MARKS[signal.Signals(number).name] += 1
            write_marks()  # there will be no later chance
            os.killpg(0, number)  # including loader processes, as a cluster does

    _wrap(name, **{when: send})


def _wrap(name: str, **around: Callable[[int], None]) -> None:
    """Call `before` and `after` with the number of the call around `module[.Class].function`."""
    owner, last = _owner(name)
    function, calls = getattr(owner, last), 0

    def wrapped(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if "before" in around:
            around["before"](calls)
        result = function(*arguments, **named)
        if "after" in around:
            around["after"](calls)
        return result

    setattr(owner, last, wrapped)


def _owner(name: str) -> tuple[Any, str]:
    """The module or class that holds a function, of this package or another, and its last name."""
    *parts, last = name.split(".")
    for prefix in (f"{PACKAGE}.", ""):
        for end in range(len(parts), 0, -1):
            try:
                owner = import_module(prefix + ".".join(parts[:end]))
            except ModuleNotFoundError:
                continue
            for part in parts[end:]:
                owner = getattr(owner, part)
            return owner, last
    raise ModuleNotFoundError(name)
