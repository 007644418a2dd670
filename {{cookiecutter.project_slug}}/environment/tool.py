"""A separate environment for a tool that must stay out of the trainer's: MLflow's server, audits.

python environment/tool.py NAME          (from environment/NAME.txt into .envs/tool-NAME)
"""

import hashlib
import shutil
import signal
import sys
from pathlib import Path

from failure import one_line, run_quietly, without_secrets
from locked import PYPI, ROOT
from sources import Sources, pip_install


def main() -> int:
    """Create the environment unless it exists with the same lock."""
    # An upgrade holds signals back until this can answer them in a line.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    name = sys.argv[1]
    lock = ROOT / "environment" / f"{name}.txt"
    prefix = ROOT / ".envs" / f"tool-{name}"
    mark = prefix / ".complete"
    if mark.is_file() and mark.read_text() == _digest(lock, prefix):
        return 0
    if prefix.is_symlink():
        prefix.unlink()  # only the link; its target is kept
    shutil.rmtree(prefix, ignore_errors=True)
    python = prefix / "bin" / "python"
    options = Sources.from_environment().pip_options(PYPI)
    command = [*pip_install(python), *options, "--requirement", lock]
    print(f"note: {name} gets an environment of its own: once, in about a minute")
    print(without_secrets(" ".join(map(str, command))), flush=True)
    try:
        run_quietly([sys.executable, "-m", "venv", prefix])
        run_quietly(command)
    except BaseException:
        shutil.rmtree(prefix, ignore_errors=True)
        raise
    mark.write_text(_digest(lock, prefix))
    return 0


def _digest(lock: Path, prefix: Path) -> str:
    # Its scripts contain absolute paths, so a moved or copied environment is not valid.
    parts = f"{sys.version}{prefix.resolve()}".encode()
    return hashlib.sha256(lock.read_bytes() + parts).hexdigest()


if __name__ == "__main__":
    sys.exit(one_line(main))
