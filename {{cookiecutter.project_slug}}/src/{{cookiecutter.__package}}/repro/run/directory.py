"""A run directory: naming it, checking that a run may start or resume there, and locking it."""

import datetime
import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..config.load import to_dict
from ..config.run_config import RunConfig
from ..files import MANIFEST, find_project_root
from .description import changes_between, needed_for_equal_bits
from .lock import locked
from .manifest import describe_code, read_manifest
from .names import words_for

_log = logging.getLogger(__name__)


def new_run_id(config: RunConfig) -> str:
    """A name for a new run: it sorts by time, says what ran, and ends in two words of its own."""
    now = datetime.datetime.now(datetime.UTC)
    words = words_for(now.microsecond)
    return f"{now:%Y%m%d-%H%M%S}-{config.experiment_name}-seed{config.seed}-{words}"


def check_run_dir(run_dir: Path, *, resume: bool) -> None:
    """Check, before anything is created, that a run may start or be resumed in `run_dir`.

    Raises:
        ValueError: the directory of a new run is not empty, or there is no run to resume.
    """
    if resume:
        read_manifest(run_dir)
    elif run_dir.exists() and not run_dir.is_dir():
        raise ValueError(f"run directory {run_dir} is a file; name a directory")
    elif run_dir.exists() and any(run_dir.iterdir()):
        raise ValueError(f"run directory {run_dir} is not empty; choose another or resume it")


def find_unfinished(output_dir: Path, config: RunConfig, inert: tuple[str, ...]) -> Path | None:
    """The newest run in `output_dir` that was interrupted and can be resumed: same configuration,
    code, lock, build of the framework and GPUs, and no other process is training in it."""
    paths = list(output_dir.glob(f"*/{MANIFEST}"))
    for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        run_dir = path.parent
        try:
            manifest = read_manifest(run_dir)
            with locked(run_dir, only_look=True):
                pass
        except (ValueError, OSError):
            continue  # not a run of this project, or in use
        if manifest["results"]["completed"]:
            continue
        facts = {
            "config": to_dict(config),
            "code": describe_code(find_project_root(), leave_out=run_dir),
            "data": manifest["data"],
        }
        changes = changes_between(manifest, facts, inert)
        if any(change.startswith("config ") for change in changes):
            continue
        same = needed_for_equal_bits(manifest) == needed_for_equal_bits()
        changes += [] if same else ["environment"]
        if not changes:
            return run_dir
        what = "in another environment" if changes == ["environment"] else "with other code"
        _log.info("%s was cut short, and began %s: a new run starts", run_dir, what)
    return None


@contextmanager
def only_writer(run_dir: Path) -> Iterator[None]:
    """Create a run directory if necessary, and lock it: two processes would mix their logs.

    If the run is refused, a directory created here is removed again.

    Raises:
        ValueError: another process is training there, or the directory cannot be created.
        OSError: as raised by the system; for a full disk, the message says what to do.
    """
    made_here = [path for path in (run_dir, *run_dir.parents) if not path.exists()]
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        refused = isinstance(error, PermissionError) and hasattr(os, "getuid")
        who = f" to user {os.getuid()}" if refused else ""
        raise ValueError(f"cannot make run directory {run_dir}: {error.strerror}{who}") from None
    with locked(run_dir):
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            advice = "and start again"
            if (run_dir / MANIFEST).exists():
                advice = f"then resume with train --resume {run_dir}"
            said = f"{error.strerror} for {run_dir}; make room, {advice}"
            raise OSError(error.errno, said) from error
        finally:
            with suppress(OSError):  # the first one that is not empty
                for folder in made_here:
                    folder.rmdir()
