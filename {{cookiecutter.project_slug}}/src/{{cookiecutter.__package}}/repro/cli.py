"""The command line: `train`, `verify`, `compare`, `runs`, `track`, `machines`, `expected`,
`schema`, `gpu-proof`, `doctor`.

Only what a subcommand needs is imported, so that `--help` answers at once.
"""

import argparse
import errno
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .backend import facts
from .entry import restart_with
from .env import load_env_file, resolve, wanted_environment
from .files import CONFIG, CURVES, MANIFEST, PROJECT, find_project_root
from .launched import (
    check_launcher,
    has_others,
    is_launched,
    leave,
    restarts,
    says,
    speaks,
    wait_for_the_others,
)
from .redact import without_secrets
from .run.manifest import read_manifest
from .signals import CTRL_C, Interrupted, ending_by_signals, exit_code

if TYPE_CHECKING:  # `--help` does without pydantic
    from .config.run_config import RunConfig

FAILURE, BAD_INPUT = 1, 2
_SAME_ARGUMENTS = "start torchrun with the same arguments on every node"


def run_command(
    config_class: "Callable[[], type[RunConfig]]",
    train_model: Callable[..., Any],
    arguments: list[str] | None = None,
) -> int:
    """Run a subcommand and return its exit code; bad input is one line on stderr and code 2. A
    process among several ends here (`launched.leave`).

    `config_class` gives the class of the project's configuration; `train_model` takes one of it,
    and what `Run` takes.
    """
    options = _parse(arguments, config_class)
    options.config_class, options.train_model = config_class, train_model
    if not is_launched():
        return _run_to_its_end(options)
    try:
        code = _run_to_its_end(options)
    except Exception:
        traceback.print_exc()
        code = FAILURE
    leave(code)


def _run_to_its_end(options: argparse.Namespace) -> int:
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger(PROJECT).setLevel(logging.INFO if speaks() else logging.ERROR)
    with CTRL_C, nullcontext() if options.run is _train else ending_by_signals():
        try:
            code = _run(options)
        except KeyboardInterrupt:
            return exit_code(signal.SIGINT)
        except Exception:
            if not CTRL_C.came:
                raise
            code = FAILURE
    if CTRL_C.came and code:
        return exit_code(signal.SIGINT)
    flushed = _flushed()
    return code or flushed


def _run(options: argparse.Namespace) -> int:
    try:
        load_env_file()
        return options.run(options)
    except ValueError as error:
        _tell(error)
        return BAD_INPUT
    except OSError as error:
        # A full disk or a missing permission: the training or the comparison failed.
        where = f": {error.filename}" if error.filename else ""
        # Of a disk that is full for all ranks, the one that writes says most.
        shared = has_others() and _concerns_all(error)
        if speaks() or not shared:
            _tell(f"{error.strerror}{where}" if error.strerror else error)
        if shared:
            wait_for_the_others()
        return FAILURE if options.run is _train else BAD_INPUT
    except Exception as error:
        if options.run is _train:
            raise  # possibly a bug in the user's own code, so show the traceback
        # A record can be damaged in unforeseen ways; exit code 1 would mean that runs differ.
        _tell(f"a record is damaged: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        return BAD_INPUT


def _flushed() -> int:
    """Flush stdout: its reader may be gone, or the disk it is written to may be full."""
    code = 0
    for stream in (sys.stderr, sys.stdout):
        try:
            stream.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # for the flush at exit
            # No errors: `| head` has read enough (EPIPE), or the terminal was closed (EIO).
            if stream is sys.stdout and error.errno not in (errno.EPIPE, errno.EIO):
                _tell(f"what was printed could not be written: {error.strerror}")
                code = FAILURE
    return code


def _tell(error: object, matter: str = "") -> None:
    """Print one line, whatever a file name or key contains: line breaks, terminal codes and
    passwords in addresses are removed."""
    plain = without_secrets(str(error))
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in plain)
    text = f"error: {''.join(shown)}"
    if says(matter or text):
        _say(text)


def _say(text: object) -> None:
    with suppress(OSError):  # the terminal was closed
        print(text, file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; argparse puts the usage before it."""

    def error(self, message: str) -> NoReturn:
        _tell(f"{message}; {self.prog} --help lists the options")
        sys.exit(BAD_INPUT)


def _parse(
    arguments: list[str] | None, config_class: "Callable[[], type[RunConfig]]"
) -> argparse.Namespace:
    # argparse accepts overrides in one place only; here they may precede and follow any option.
    parser = _parser(config_class)
    options, rest = parser.parse_known_args(arguments)
    if hasattr(options, "overrides") and all("=" in r and not r.startswith("-") for r in rest):
        options.overrides += rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _parser(config_class: "Callable[[], type[RunConfig]]") -> argparse.ArgumentParser:
    parser = _Parser(prog=f"python -m {PROJECT}", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    script = Path(sys.argv[0]).name == "train.py"
    train = commands.add_parser(
        "train",
        prog="python train.py" if script else None,
        help="train a model and record the run",
        epilog=_keys(config_class()) if _asks_for_keys(script) else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument("--config", type=Path, help="YAML file, such as configs/baseline.yaml")
    train.add_argument("--seed", type=_whole_number, help="overrides the seed of the config")
    train.add_argument("--run-dir", type=Path, help="directory of the new run")
    train.add_argument("--resume", type=Path, metavar="RUN", help="run directory to continue")
    train.add_argument(
        "--auto-resume",
        action="store_true",
        help="resume the latest interrupted run with this config, or that in --run-dir, if any",
    )
    train.add_argument(
        "--allow-changes",
        action="store_true",
        help="resume with other code, data or config; train on data that DVC does not pin",
    )
    # For `verify --segments`, which executes a segment of a run.
    train.add_argument("--stop-at", type=_whole_number, help=argparse.SUPPRESS)
    # For temporary runs: those who verify or measure did not ask for a new run.
    train.add_argument("--scratch", action="store_true", help=argparse.SUPPRESS)
    # For `gpu-proof`: the loop's speed, or mixed precision around it.
    train.add_argument("--probe", help=argparse.SUPPRESS)
    train.add_argument("overrides", nargs="*", metavar="section.key=value")
    train.set_defaults(run=_train)

    verify = commands.add_parser("verify", help="execute a run again and compare every bit")
    verify.add_argument("run_dir", nargs="?", type=Path, metavar="RUN", help="default: the newest")
    verify.add_argument(
        "--segments", type=_whole_number, metavar="N", help="only N stretches between checkpoints"
    )
    verify.add_argument("--seed", type=_whole_number, default=0, help="chooses the segments")
    verify.add_argument(
        "--ranks", type=_whole_number, metavar="N", help="processes; default: those of the run"
    )
    verify.set_defaults(run=_verify)

    compare = commands.add_parser("compare", help="say where two runs part, and why")
    compare.add_argument(
        "runs", type=Path, nargs="*", metavar="RUN", help="two; default: the two newest"
    )
    compare.add_argument("--json", action="store_true", help="print one JSON object")
    compare.add_argument(
        "--html",
        type=Path,
        nargs="?",
        const=Path("compare.html"),
        metavar="FILE",
        help="also write a page with both curves; default: compare.html",
    )
    compare.set_defaults(run=_compare)

    runs = commands.add_parser("runs", help="a table of all runs, newest last")
    runs.add_argument("folder", nargs="?", type=Path, help="default: the output directory")
    runs.add_argument("--sort", default="", metavar="COLUMN", help="such as time, or a metric")
    form = runs.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON list")
    form.add_argument("--csv", action="store_true", help="print CSV")
    runs.set_defaults(run=_runs)

    track = commands.add_parser("track", help="upload a run, or its missing parts, to MLflow")
    track.add_argument("run_dir", nargs="?", type=Path, metavar="RUN", help="default: the newest")
    track.add_argument("--register", default="", metavar="NAME", help="register its model so")
    # For the process that a training starts: upload until the training has ended.
    track.add_argument("--follow", type=_whole_number, metavar="PID", help=argparse.SUPPRESS)
    track.set_defaults(run=_track)

    machines = commands.add_parser("machines", help="a table of the same run on several machines")
    machines.add_argument("folder", type=Path, help="holds a folder with a run for each machine")
    machines.set_defaults(run=_machines)

    expected = commands.add_parser("expected", help="measure the expected results again")
    expected.set_defaults(run=_expected)

    schema = commands.add_parser("schema", help="write configs/schema.json, for editors")
    schema.set_defaults(run=_schema)

    proof = commands.add_parser("gpu-proof", help="prove and measure the project on this GPU")
    proof.add_argument(
        "--config", type=Path, default=Path("configs/smoke.yaml"), help="of the proof"
    )
    proof.add_argument(
        "--speed-config", type=Path, default=Path("configs/baseline.yaml"), help="of the speeds"
    )
    proof.add_argument("--pairs", type=_whole_number, default=5, help="of each measured ratio")
    proof.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: rehearse it")
    proof.set_defaults(run=_gpu_proof)

    doctor = commands.add_parser("doctor", help="check this checkout on this machine")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.add_argument("--uncommitted", action="store_true", help="do not ask for a clean tree")
    doctor.set_defaults(run=_doctor)
    return parser


def _asks_for_keys(script: bool) -> bool:
    asked = [argument for argument in sys.argv[1:] if argument in ("train", "-h", "--help")]
    return asked[:1] == ["train"] or (script and bool(asked))


def _keys(config_class: "type[RunConfig]") -> str:
    from .config.load import config_from_dict, flatten, to_dict

    defaults = flatten(to_dict(config_from_dict(config_class, {"seed": 0})))
    lines = [f"  {key}={value}" for key, value in defaults.items()]
    return "\n".join(["keys and their defaults; config.py says what each means:", *lines])


def _train(options: argparse.Namespace) -> int:
    started = time.monotonic()
    if advice := check_launcher():
        _say(f"note: {advice}")
    config = _train_config(options)
    paths, _ = resolve(config, os.environ)  # names all missing variables first
    restart_with(wanted_environment(config, os.environ))
    train_model = options.train_model
    CTRL_C.heed()
    if options.probe:
        from .testing.probe import probed

        train_model = probed(train_model, options.probe)
    how = {"allow_changes": options.allow_changes, "stop_at": options.stop_at}
    if options.scratch:
        from .run import plots

        plots.wanted = False
    try:
        import_module(
            ".backend.device", __package__
        )  # the framework, before the task's own imports
        if is_launched():
            _take_up(options)
        resume = options.resume
        if options.auto_resume and options.run_dir:
            resume, is_complete = _found_there(options.run_dir)
            if is_complete:
                if speaks():
                    print(f"run: {options.run_dir}")
                return 0
        elif options.auto_resume:
            from .backend.ranks import connect
            from .run.directory import find_unfinished

            output_dir, inert = Path(paths.output_dir), _inert(options)
            resume = connect().first(lambda: find_unfinished(output_dir, config, inert))
        try:
            run_dir = resume or options.run_dir
            result = train_model(config, run_dir=run_dir, resume=resume is not None, **how)
        except ValueError as error:
            # Where one rank alone is in trouble, the others have begun to resume.
            if not (options.auto_resume and resume and _concerns_all(error)) or options.run_dir:
                raise
            # Other data, a damaged checkpoint, or another process that was faster.
            if speaks():
                _say(f"{resume} cannot be resumed: {without_secrets(str(error))}; a new run starts")
            result = train_model(config, **how)
    except Interrupted as stop:
        if stop.exit_code and speaks():  # by a signal, not by --stop-at
            _say(stop)
        return stop.exit_code
    except (ValueError, OSError):
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        if type(error).__name__ == "RankError":  # the framework is not imported for its sake
            # Whoever reports the first loss ends, too, and would be the next one's loss.
            _tell(error, "a lost rank")
            return FAILURE
        if not facts.OUT_OF_MEMORY.search(said):
            raise
        fewer = "out of memory; take a smaller model, or fewer samples a batch"
        detail = " ".join(str(error).split())[:200]
        _tell(f"{fewer}: {detail}" if detail else fewer)
        return FAILURE
    if not speaks():
        return 0
    if not options.scratch:
        _note_run(result.run_dir)
        curves = result.run_dir / CURVES
        where = f"; curves: {curves}" if curves.exists() else ""
        _say(f"done in {time.monotonic() - started:.0f} s{where}")
    print(f"run: {result.run_dir}")
    return 0


def _concerns_all(error: Exception) -> bool:
    if not has_others():
        return True
    from .backend.ranks import is_everybodys

    return is_everybodys(error)


def _take_up(options: argparse.Namespace) -> None:
    """When torchrun starts all processes again after a failure: the run is resumed."""
    from .backend.ranks import connect

    ranks = connect()
    # With other options they would wait for each other in different places.
    arguments = dict(enumerate(sys.argv[1:], start=1))
    ranks.same({f"argument {n}": text for n, text in arguments.items()}, "", _SAME_ARGUMENTS)
    # A node that joined later has counted fewer restarts; all must decide the same.
    if max(ranks.gather(restarts())) and not options.resume:
        options.auto_resume = True


def _found_there(run_dir: Path) -> tuple[Path | None, bool]:
    """The run directory if it holds a run, and whether that is complete."""
    from .backend.ranks import connect

    def look() -> tuple[Path | None, bool]:
        if not (run_dir / MANIFEST).is_file():
            return None, False
        return run_dir, bool(read_manifest(run_dir)["results"]["completed"])

    return connect().first(look)


def _train_config(options: argparse.Namespace) -> "RunConfig":
    from .config.load import load_config

    path = options.config
    if options.auto_resume and options.resume:
        raise ValueError("--auto-resume finds the run itself; leave out --resume")
    if options.resume is not None:
        read_manifest(options.resume)  # a run directory, or else an error
        if options.run_dir is not None:
            raise ValueError("--run-dir is for new runs; --resume continues in the run's directory")
        path = path or options.resume / CONFIG
    if path is None:
        raise ValueError("train needs --config FILE, such as configs/baseline.yaml")
    return load_config(options.config_class(), path, options.overrides, seed=options.seed)


def _verify(options: argparse.Namespace) -> int:
    from .proof.verify import verify

    run_dir = options.run_dir or _newest_run()
    how = {"num_segments": options.segments, "seed": options.seed, "ranks": options.ranks}
    return verify(run_dir, options.config_class(), **how)


def _compare(options: argparse.Namespace) -> int:
    from .proof.html import is_page
    from .proof.report import compare

    if len(options.runs) not in (0, 2):
        given = len(options.runs)
        raise ValueError(f"compare takes two runs, or none for the two newest; got {given}")
    run_a, run_b = options.runs or _newest_runs(2)
    html = options.html
    if html is not None and (html.is_dir() or not html.parent.is_dir()):
        raise ValueError(f"--html takes a file in a folder that exists, got {html}")
    if html is not None and html.exists() and not is_page(html):
        raise ValueError(f"{html} is there and is no such page; --html takes another name")
    code = compare(run_a, run_b, inert=_inert(options), as_json=options.json, html=html)
    if html is not None:
        _say(f"page: {html}")
    return code


def _runs(options: argparse.Namespace) -> int:
    from .run.listing import print_runs

    folder = options.folder or _output_dir()
    return print_runs(folder, sort=options.sort, as_json=options.json, as_csv=options.csv)


def _inert(options: argparse.Namespace) -> tuple[str, ...]:
    from .config.base import inert_keys

    return tuple(inert_keys(options.config_class()))


def _track(options: argparse.Namespace) -> int:
    from .tracking.mlflow import follow, track

    run_dir = options.run_dir or _newest_run()
    if options.follow is not None:
        return follow(run_dir, options.follow)
    return track(run_dir, register=options.register)


def _schema(options: argparse.Namespace) -> int:
    from .config.schema import write_schema

    print(write_schema(options.config_class(), find_project_root()))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from .doctor.items import doctor

    return doctor(options.config_class(), as_json=options.json, uncommitted=options.uncommitted)


def _gpu_proof(options: argparse.Namespace) -> int:
    from .testing.gpu_proof import gpu_proof

    if options.pairs < 1:
        raise ValueError(f"--pairs must be at least 1, got {options.pairs}")
    how = {"config": options.config, "speed_config": options.speed_config, "pairs": options.pairs}
    return gpu_proof(options.config_class(), device=options.device, **how)


def _machines(options: argparse.Namespace) -> int:
    from .proof.machine_table import machines

    return machines(options.folder, _inert(options))


def _expected(options: argparse.Namespace) -> int:
    from .proof.baseline import write_expected

    write_expected(options.config_class())
    return 0


def _note_run(run_dir: Path) -> None:
    """Tell the later commands of the same make call which run this was, wherever it is."""
    if file := os.environ.get("LAST_RUN_FILE"):
        with suppress(OSError):  # a read-only checkout; the newest run is used instead
            Path(file).write_text(f"{run_dir.absolute()}\n", encoding="utf-8")


def _newest_run() -> Path:
    return _newest_runs(1)[0]


def _newest_runs(number: int) -> list[Path]:
    """The most recent runs, oldest first: in the output directory, and that of `make train`."""
    output_dir = _output_dir()
    manifests = list(output_dir.glob(f"*/{MANIFEST}"))
    with suppress(OSError, ValueError):
        noted = Path(os.environ.get("LAST_RUN_FILE") or os.devnull).read_text(encoding="utf-8")
        last = Path(noted.rstrip("\n") or os.devnull)
        known = {path.resolve() for path in manifests}
        if (last / MANIFEST).is_file() and (last / MANIFEST).resolve() not in known:
            manifests.append(last / MANIFEST)
    if len(manifests) < number:
        found = f"{len(manifests) or 'no'} run{'s' if len(manifests) > 1 else ''} in {output_dir}"
        raise ValueError(f"{found}; train first, or name the run directory")
    now = time.time()

    def written(path: Path) -> float:
        seconds = path.stat().st_mtime
        return seconds if seconds < now + 60 else 0.0  # by a clock that was wrong

    manifests.sort(key=written)
    return [path.parent for path in manifests[-number:]]


def _output_dir() -> Path:
    return Path(os.environ.get("OUTPUT_DIR") or "outputs")


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
