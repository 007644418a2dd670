"""Runs the package in forks of an interpreter with its libraries preloaded: a second each.

`Launcher` is the client, used by the tests. Executed as a program, this file is the server: it
reads one request per line, forks, and answers when the fork has ended. No code of the package has
run in the parent, so a fork is as good as a freshly started process, except that it shares its hash
seed and address layout with its siblings: the tests use two launchers that differ in both.
"""

import ast
import gc
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

_HOME = Path(__file__).resolve().parents[2]
PACKAGE, ROOT = _HOME.name, _HOME.parents[1]
FORKS = sys.platform == "linux"  # elsewhere every run is a new process
LOADED_LATER = ("torch._dynamo", "torch._inductor.config", "matplotlib.backends.backend_agg")
"""Modules that libraries load lazily: for optimizers, deterministic mode, plots."""


class Launcher:
    """An interpreter started with the variables `environ`, which executes requests in forks.

    `settled` holds the variables for whose sake the program would restart itself (`None`: unset);
    by restarting, a fork would escape the disturbances.
    """

    def __init__(self, environ: Mapping[str, str], settled: Mapping[str, str | None]) -> None:
        # Empty rather than unset, or .env would fill it in: tests must not report to a server.
        merged = {**os.environ, **settled, "MLFLOW_TRACKING_URI": "", **environ}
        self._environ = {name: value for name, value in merged.items() if value is not None}
        self._scratch = tempfile.TemporaryDirectory(prefix="launcher-")
        self._pending: dict[int, Future[int]] = {}
        self._lock = threading.Lock()
        self._count = 0
        if FORKS:
            self._server = subprocess.Popen(
                [sys.executable, __file__],
                env=self._environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            threading.Thread(target=self._listen, daemon=True).start()

    def run(
        self, *arguments: object, environ: Mapping[str, str] | None = None, **disturb: Any
    ) -> subprocess.CompletedProcess[str]:
        """Execute a command line of the package to its end and capture its output.

        The attribute `marks` of the result holds the marks left by the disturbances.
        """
        with self._lock:
            self._count += 1
            number = self._count
        names = (f"{number}.{name}" for name in ("out", "err", "marks"))
        outputs = [Path(self._scratch.name) / name for name in names]
        request = {
            "number": number,
            "arguments": list(map(str, arguments)),
            "environ": dict(environ or {}),
            "disturb": disturb,
            "outputs": list(map(str, outputs)),
        }
        code = self._forked(number, request) if FORKS else self._started(request)
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in outputs[:2]]
        done = subprocess.CompletedProcess(request["arguments"], code, *texts)
        done.marks = json.loads(outputs[2].read_text()) if outputs[2].exists() else {}
        return done

    def close(self) -> None:
        """Terminate the interpreter; it has nothing to save."""
        if FORKS:
            self._server.kill()
            self._server.wait()
        self._scratch.cleanup()

    def _forked(self, number: int, request: dict[str, Any]) -> int:
        future: Future[int] = Future()
        with self._lock:
            self._pending[number] = future
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
        return future.result(timeout=300)

    def _listen(self) -> None:
        for line in self._server.stdout:
            answer = json.loads(line)
            self._pending.pop(answer["number"]).set_result(answer["code"])
        for future in self._pending.values():
            future.set_exception(RuntimeError("the launcher ended; its message is on stderr"))

    def _started(self, request: dict[str, Any]) -> int:
        command = [sys.executable, __file__, json.dumps(request)]
        return subprocess.run(command, env=self._environ, start_new_session=True).returncode


def play(request: Mapping[str, Any]) -> int:
    """Execute a request in this process and return its exit code."""
    import surroundings

    os.chdir(ROOT)
    *streams, marks = request["outputs"]
    for number, path in enumerate(streams, start=1):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    os.environ.update(request["environ"])
    # What the program would see if it had been started fresh and had restarted itself.
    sys.orig_argv = [sys.executable, "-m", PACKAGE, *request["arguments"]]
    sys.argv = [PACKAGE, *request["arguments"]]
    surroundings.disturb(Path(marks), **request["disturb"])
    code = import_module(f"{PACKAGE}.__main__").main(request["arguments"])
    surroundings.write_marks()
    return code


def serve() -> int:
    """Fork for each request on stdin, and answer on stdout with its exit code."""
    before = dict(os.environ)
    preload()
    # scikit-learn sets OpenMP variables that a freshly started process would not have.
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    gc.freeze()  # garbage collections in the forks can skip what they all share
    answers = os.fdopen(os.dup(1), "w")
    ended, note = os.pipe()  # receives a byte whenever a fork has ended
    os.set_blocking(note, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(note)
    numbers: dict[int, int] = {}
    buffer = b""
    while True:
        readable, _, _ = select.select([0, ended], [], [])
        if ended in readable:
            os.read(ended, 1 << 10)
            for process in list(numbers):
                found, status = os.waitpid(process, os.WNOHANG)
                if found:
                    code = os.waitstatus_to_exitcode(status)
                    answer = {"number": numbers.pop(process), "code": code}
                    print(json.dumps(answer), file=answers, flush=True)
        if 0 in readable:
            chunk = os.read(0, 1 << 16)
            if not chunk:
                return 0
            *lines, buffer = (buffer + chunk).split(b"\n")
            for request in map(json.loads, lines):
                process = os.fork()
                if not process:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os.setsid()
                    code = play(request)
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)  # shutting down all the libraries would take most of a second
                numbers[process] = request["number"]


def preload() -> None:
    """Load the libraries that a run needs, but no code of the package."""
    folders = (_HOME, _HOME / "repro" / "run", _HOME / "repro" / "backend")
    files = [path for folder in folders for path in sorted(folder.glob("*.py"))]
    names = {name for path in files for name in _imported(path)}
    for name in [*sorted(names), *LOADED_LATER]:
        with suppress(ImportError):
            import_module(name)


def _imported(path: Path) -> set[str]:
    """The libraries that a source file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module)
    return {n for n in found if n.partition(".")[0] not in {*sys.stdlib_module_names, PACKAGE}}


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parent)
    sys.exit(play(json.loads(sys.argv[1])) if sys.argv[1:] else serve())
