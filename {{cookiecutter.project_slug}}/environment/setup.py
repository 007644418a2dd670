"""Make the locked environment of this project, whole or not at all.

python environment/setup.py cpu|cuda [--wheelhouse DIR]                        (`make setup`)

The environment is created in its own folder, `.envs/<accelerator>-<digest of its inputs>`, checked
against the lock, and only then linked as `.envs/<accelerator>` and `.venv`. Any failure before that
leaves the previous environment in place. An environment left incomplete by a kill has no mark and
is created again. If nothing changed, there is nothing to do.
"""

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import manager
from check import lock_problems
from children import started, undisturbed
from failure import SetupError, explain, one_line, require, without_secrets
from gpu import gpu_report, warn_of_gpus
from locked import ROOT, here, project, settings
from progress import progress
from repository import git
from sources import Sources

ENVS = ROOT / ".envs"
MARK = ".complete"
KEPT = 5
"""Maximum number of problems that are printed."""
_OTHER_PLATFORM = (
    "use ACCELERATOR=cpu",
    "name it in pyproject.toml (the framework's marker, [tool.repro.environments.cpu]) and run "
    "make lock",
)


def main() -> int:
    """Set up; return the exit code: 0, 1 for a failure, 2 for something the user has to fix."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("environment", nargs="?", default="")
    parser.add_argument("--wheelhouse", type=Path, help="install from this folder, network off")
    options = parser.parse_args()
    names = list(settings()["environments"])
    if options.environment not in names:
        given = options.environment or "nothing"
        raise SetupError(f"ACCELERATOR is {given}; this project has {' and '.join(names)}")
    ENVS.mkdir(exist_ok=True)
    with _one_at_a_time():
        return _setup(options.environment, Sources.from_environment(options.wheelhouse))


def _setup(environment: str, sources: Sources) -> int:
    if manager.NEEDS:
        require(*manager.NEEDS, versions=False)  # some take a second to report their version
    if not manager.BRINGS_PYTHON:
        _check_python()
        _check_lock(environment)
    places = _places(environment)
    prefix = next((place for place in places if _is_whole(place, environment)), None)
    warn_of_gpus(environment)
    if prefix is None:
        if manager.NEEDS:
            require(*manager.NEEDS)
        # Never build over the environment in use, even a damaged one: it stays until the new one
        # is complete.
        in_use = (ENVS / environment).resolve()
        prefix = next((place for place in places if place != in_use), places[0])
        _make(prefix, environment, sources)
        print(f"log: {_log(environment).relative_to(ROOT)}")
    _point(ENVS / environment, prefix)
    _point(ROOT / ".venv", prefix)
    _drop_others(environment, prefix)
    facts = _facts(prefix)
    print(f"{facts['framework']}, {facts['build']}; {gpu_report(environment)}")
    _say_what_git_lacks()
    return 0


def _say_what_git_lacks() -> None:
    """Point out a missing commit: runs record theirs, so that their code can be found again."""
    first = "git add --all && git commit --message 'First commit'"
    if not shutil.which("git"):
        print("note: git is not installed; runs will name no commit")
    elif git(ROOT, "rev-parse", "--git-dir").returncode:
        print(f"note: this project is not in git, and runs name no commit: git init && {first}")
    elif git(ROOT, "rev-parse", "--verify", "--quiet", "HEAD").returncode:
        print(f"note: this project has no commit yet, and runs name none: {first}")


def _places(environment: str) -> list[Path]:
    """The two folders that may hold this environment; a rebuild uses the one not in use."""
    if own := manager.prefix(environment):
        return [own]
    name = f"{environment}-{_digest(environment)[:16]}"
    return [ENVS / name, ENVS / f"{name}-again"]


def _check_python() -> None:
    """Check that the interpreter has the project's Python version."""
    exact = settings()["python"]
    wanted = exact.rpartition(".")[0]
    running = ".".join(map(str, sys.version_info[:3]))
    if running.rpartition(".")[0] != wanted:
        raise SetupError(
            f"this project needs Python {wanted}, {sys.executable} is {running}; "
            "name another: make setup PYTHON=…"
        )
    if running != exact:
        print(f"note: Python is {running} here; images and CI have {exact}")


def _check_lock(environment: str) -> None:
    if not here():
        raise SetupError("this platform is not one that the project is locked for")
    platforms = settings()["environments"][environment]["platforms"]
    if here() not in platforms:
        raise SetupError(
            f"the environment {environment} is for {', '.join(platforms)}, this machine is "
            f"{here()}; {_OTHER_PLATFORM[environment == 'cpu']}"
        )
    problems = list(lock_problems(environment, here()))
    if problems:
        more = f"; and {len(problems) - KEPT} more" if len(problems) > KEPT else ""
        raise SetupError(f"the lock does not fit this project: {'; '.join(problems[:KEPT])}{more}")


def _is_whole(prefix: Path, environment: str) -> bool:
    """Whether the environment is complete, has the same inputs, and is unmodified."""
    mark = prefix / MARK
    path = next(prefix.glob("lib/python3*/site-packages/this_project.pth"), None)
    if not mark.is_file() or mark.read_bytes() != _digest(environment).encode():
        return False
    if not _facts(prefix) or path is None or path.read_text() != _source_path():
        return False
    done = subprocess.run(_check(prefix, environment), cwd=ROOT, capture_output=True)
    return done.returncode == 0


def _facts(prefix: Path) -> dict[str, str]:
    """Facts that the framework reported when the environment was created; empty if damaged."""
    try:
        facts = json.loads((prefix / "framework.json").read_text(encoding="utf-8"))
        return {key: facts[key] for key in ("framework", "build")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _source_path() -> str:
    """A `.pth` line with the source of the checkout that contains the environment, so that copies
    of the project run their own. If the environment is elsewhere (a scratch disk), this one."""
    package = project()["project"]["name"].replace("-", "_")
    above = f"[*p.parents, *p.resolve().parents, Path({str(ROOT)!a})]"
    found = f'[str(r / "src") for r in {above} if (r / "src" / {package!r}).is_dir()][:1]'
    return f"import sys; from pathlib import Path; p = Path(sys.prefix); sys.path += {found}\n"


def _check(prefix: Path, environment: str) -> list[object]:
    check = [prefix / "bin" / "python", ROOT / "environment" / "check.py"]
    return [*check, "--installed", environment]


def _make(prefix: Path, environment: str, sources: Sources) -> None:
    """Create the environment in `prefix`; on any failure, remove it completely."""
    if manager.prefix(environment) is None:
        shutil.rmtree(prefix, ignore_errors=True)  # incomplete
    run = partial(_run, _log(environment))
    _log(environment).unlink(missing_ok=True)
    python = prefix / "bin" / "python"
    try:
        manager.install(prefix, environment, sources, run)
        # In place of an editable install, whose build back end is not in any lock.
        site = Path(_output([python, "-c", "import sysconfig as s; print(s.get_path('purelib'))"]))
        (site / "this_project.pth").write_text(_source_path())
        # Check again inside: it has YAML for conda's and pixi's locks, and `packaging` for ranges.
        run([python, ROOT / "environment" / "check.py", "--environment", environment])
        run(_check(prefix, environment))
        facts = _output([python, ROOT / "environment" / "framework_facts.py"])
        (prefix / "framework.json").write_text(facts)
        with (prefix / MARK).open("w") as mark:
            mark.write(_digest(environment))
            mark.flush()
            os.fsync(mark.fileno())
    except BaseException:
        if manager.prefix(environment) is None:
            with undisturbed():
                shutil.rmtree(prefix, ignore_errors=True)
        raise


def _digest(environment: str) -> str:
    """Digest of the environment's inputs: lock, dependencies, interpreter, and location."""
    file = project()
    named = [file["project"], file.get("dependency-groups"), settings()]
    # Environments contain absolute paths, so a moved or copied project needs a new one.
    text = json.dumps(
        [environment, str(ROOT), sys.base_prefix, sys.version, *named], sort_keys=True
    )
    total = hashlib.sha256(text.encode())
    for path in sorted(path for pattern in settings()["locks"] for path in ROOT.glob(pattern)):
        total.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return total.hexdigest()


def _log(environment: str) -> Path:
    """Path of the log of the last set-up, which is kept whether or not that succeeded."""
    return ENVS / f"setup-{environment}.log"


def _run(log: Path, command: list[object], variables: dict[str, str] | None = None) -> None:
    """Print and run a command, with its output appended to `log`.

    In a terminal, one line shows its latest output and the elapsed seconds. A failure raises a
    one-line error with the reason.
    """
    words = [str(word) for word in command]
    shown = " ".join(os.path.relpath(w) if w.startswith(f"{ROOT}/") else w for w in words)
    print(without_secrets(shown), flush=True)
    environ = {**os.environ, **(variables or {})}
    with log.open("ab") as file:
        start = file.tell()
        with (
            # It gets the lock's file, too: if only the set-up is killed, it keeps the next one out.
            started(
                words, cwd=ROOT, env=environ, stdout=file, stderr=file, close_fds=False
            ) as process,
            progress(log),
        ):
            process.wait()
    if process.returncode:
        text = log.read_bytes()[start:].decode(errors="replace")
        reason = explain(text, f"; the whole text: {log.relative_to(ROOT)}")
        name = words[2] if words[1] == "-m" else Path(words[0]).name
        raise SetupError(f"{name} failed: {reason}", code=1)


def _output(command: list[object]) -> str:
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SetupError(f"{Path(str(command[1])).name} failed: {explain(done.stderr)}", code=1)
    return done.stdout.strip()


def _point(link: Path, target: Path) -> None:
    """Create a link to `target` atomically; an existing folder of the user is moved aside."""
    if link.exists() and not link.is_symlink():
        aside = link.with_name(f"{link.name}-before")
        if aside.exists():
            raise SetupError(f"{link.name} and {aside.name} are both yours; move one away")
        link.replace(aside)
        print(f"note: {link.name} was a folder of your own; it is {aside.name} now")
    partial = ENVS / f".link-{os.getpid()}"
    partial.unlink(missing_ok=True)
    partial.symlink_to(os.path.relpath(target, link.parent))
    partial.replace(link)


def _drop_others(environment: str, prefix: Path) -> None:
    for folder in ENVS.glob(f"{environment}-*"):
        if folder != prefix:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    with (ENVS / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupError("another make setup is at work in this project") from None
        os.set_inheritable(handle.fileno(), True)
        yield


if __name__ == "__main__":
    sys.exit(one_line(main, "the environment that was there before"))
