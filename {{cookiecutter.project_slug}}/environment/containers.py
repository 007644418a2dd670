"""Build the image, start and stop the services; failures are reported in one line.

python environment/containers.py build|up|down cpu|cuda [options of docker build, or of compose]
                                                           (`make docker`, `make up`, `make down`)
"""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from children import started
from engine import check_compose, check_engine, check_folder, why
from failure import SetupError, one_line, without_secrets
from locked import ROOT, settings
from port import check_port
from repository import git

PORTS = {"mlflow": ("MLFLOW_PORT", "5000"), "jupyter": ("JUPYTER_PORT", "8888")}
"""For each service the variable for its port, and the default, also used in the container."""
FOLDERS = {"DATA_DIR": "./data", "OUTPUT_DIR": "./outputs"}
ARGUMENTS = (
    *("BASE_IMAGE_CPU", "BASE_IMAGE_CUDA", "UV_IMAGE", "PYTHON_VERSION"),
    *("UV_PYTHON_INSTALL_MIRROR", "SOURCE_DATE_EPOCH", "CODE_COMMIT", "LOCK_SHA256", "BUILD_DATE"),
    *("PACKAGE_INDEX", "PYTORCH_INDEX_CPU", "PYTORCH_INDEX_CUDA"),
)
"""Build arguments taken from variables of the same name; empty ones count as unset."""
NO_EMPTY = ARGUMENTS[:6]
"""Build arguments whose Dockerfile default an empty value would override."""


def main() -> int:
    """Run the requested action and return the exit code."""
    action, accelerator, *options = sys.argv[1:]
    if accelerator not in settings()["environments"]:
        names = " and ".join(settings()["environments"])
        raise SetupError(f"ACCELERATOR is {accelerator}; this project has {names}")
    environ = _environ(accelerator)
    check_engine(environ)
    if action == "build":
        _run([*_build(accelerator, environ), *options, "."], environ)
        return 0
    check_compose(environ)
    compose = _compose(accelerator)
    # Compose reads .env by its own rules, so variables from there are left to it.
    left = _env_file(ROOT / ".env").keys() - os.environ.keys()
    theirs = {name: value for name, value in environ.items() if name not in left}
    _check_checkout(environ)
    if action == "down":
        _run([*compose, "down", *options], theirs)
        return 0
    _check_services(compose, environ)
    try:
        _run([*compose, "up", "--build", "--detach", "--wait", *options], theirs, compose)
    except KeyboardInterrupt:
        raise SetupError("stopped; make down stops what was started", code=130) from None
    # Without the query, MLflow's pages open on language models.
    where = "#/experiments?workflowType=machine_learning"
    print(f"MLflow   http://127.0.0.1:{environ['MLFLOW_PORT']}/{where}")
    print(f"Jupyter  http://127.0.0.1:{environ['JUPYTER_PORT']}  (token: JUPYTER_TOKEN in .env)")
    print("trainer  docker compose logs --follow trainer")
    return 0


def _environ(accelerator: str) -> dict[str, str]:
    """The variables of the shell and of `.env`, and facts about this machine and checkout."""
    given = {**_env_file(ROOT / ".env"), **os.environ}
    # Never root: if root builds the image, it trains as the first ordinary user.
    user, group = (os.getuid(), os.getgid()) if os.getuid() else (1000, 1000)
    # A repository that contains this folder without tracking it does not count.
    ours = _git("ls-files", "--error-unmatch", "pyproject.toml")
    commit = _git("rev-parse", "--verify", "--quiet", "HEAD") if ours else ""
    dirty = "-dirty" if commit and _git("status", "--porcelain", "--", ".") else ""
    seconds = given.get("SOURCE_DATE_EPOCH") or (_git("show", "-s", "--format=%ct") if ours else "")
    if not re.fullmatch(r"\d{0,11}", seconds):
        raise SetupError(f"SOURCE_DATE_EPOCH must be seconds since 1970, got {seconds!r}")
    seconds = seconds or "0"
    known = {
        "HOST_UID": str(user),
        "HOST_GID": str(group),
        "CODE_COMMIT": commit + dirty,
        "SOURCE_DATE_EPOCH": seconds,
        "BUILD_DATE": datetime.fromtimestamp(int(seconds), UTC).isoformat(),
        "LOCK_SHA256": _lock_sha256(),
        **dict(PORTS.values()),
        **FOLDERS,
    }
    environ = {**known, **{name: value for name, value in given.items() if value}}
    for name in ("HOST_UID", "HOST_GID"):
        if not environ[name].isdecimal():
            raise SetupError(f"{name} must be a number, such as {known[name]}: {environ[name]!r}")
    return {**environ, "ACCELERATOR": accelerator}


def _env_file(path: Path) -> dict[str, str]:
    """Parse `NAME=value` lines without executing them; quotes and comments are removed."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f".env cannot be read: {error}") from None
    quoted = r"'[^'\n]*'|\"[^\"\n]*\""
    line = rf"^[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)[ \t]*=[ \t]*({quoted}|.*?)[ \t]*(?:[ \t]#.*)?$"
    return {name: value.strip("'\"") for name, value in re.findall(line, text, re.MULTILINE)}


def _check_services(compose: list[str], environ: dict[str, str]) -> None:
    """Check for everything that would stop the services later, with less clear messages."""
    if not (ROOT / ".env").is_file():
        raise SetupError(".env is missing: cp .env.example .env, then set JUPYTER_TOKEN")
    if not environ.get("JUPYTER_TOKEN"):
        raise SetupError("JUPYTER_TOKEN is empty; set it in .env, Jupyter does not start without")
    emptied = {name for name, value in _env_file(ROOT / ".env").items() if not value}
    if unset := sorted(emptied & {*NO_EMPTY}):
        raise SetupError(f"{unset[0]} is empty in .env; give it a value, or make it a comment")
    config = environ.get("CONFIG", "configs/baseline.yaml")
    if not (ROOT / config).is_file():
        raise SetupError(f"CONFIG={config} is no file of this project")
    inside = (ROOT / config).resolve().is_relative_to(ROOT / "configs")
    if not inside or Path(config).is_absolute():
        raise SetupError(
            f"CONFIG={config} is no path in the image; name one such as configs/x.yaml"
        )
    user = int(environ["HOST_UID"]), int(environ["HOST_GID"])
    for variable in FOLDERS:
        check_folder(ROOT / Path(environ[variable]).expanduser(), *user)
    try:
        check_folder(ROOT / "notebooks", *user)
    except SetupError as error:
        print(f"note: Jupyter cannot save: {error}", flush=True)
    for service, (variable, inside) in PORTS.items():
        asked = [*compose, "port", service, inside]
        done = subprocess.run(asked, cwd=ROOT, env=environ, capture_output=True, text=True)
        ours = done.stdout.strip().rpartition(":")[2] == environ[variable]
        check_port(variable, environ[variable], ours=ours)


def _check_checkout(environ: dict[str, str]) -> None:
    """Refuse to replace another checkout's services of the same name on a shared engine."""
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    name = environ.get("COMPOSE_PROJECT_NAME") or re.search(r"^name: (\S+)", text, re.MULTILINE)[1]
    label = "com.docker.compose.project"
    asked = ["docker", "ps", "--all", "--filter", f"label={label}={name}"]
    asked += ["--format", f'{{{{.Label "{label}.working_dir"}}}}']
    done = subprocess.run(asked, env=environ, capture_output=True, text=True)
    for other in sorted({*done.stdout.split("\n")} - {""}):
        try:
            if ROOT.samefile(other):  # the path as typed: it may be a link to this folder
                continue
            there = "make down there"
        except OSError:  # moved, on another machine, or not accessible
            there = f"if that is gone, docker compose --project-name {name} down"
        raise SetupError(
            f"services named {name} belong to {other}; {there}, or set another "
            "COMPOSE_PROJECT_NAME in .env"
        )


def _build(accelerator: str, environ: dict[str, str]) -> list[str]:
    image = re.search(
        r"^    image: ([a-z0-9-]+):", (ROOT / "compose.yaml").read_text(), re.MULTILINE
    )
    assert image, "compose.yaml names the trainer's image"
    command = ["docker", "build", "--target", "trainer", "--tag", f"{image[1]}:{accelerator}"]
    command += ["--build-arg", f"ACCELERATOR={accelerator}"]
    command += ["--build-arg", f"USER_ID={environ['HOST_UID']}"]
    command += ["--build-arg", f"GROUP_ID={environ['HOST_GID']}"]
    # By name only: docker takes the value from the variable, since a mirror's may be secret.
    named = [name for name in ARGUMENTS if environ.get(name)]
    return [*command, *(word for name in named for word in ("--build-arg", name))]


def _compose(accelerator: str) -> list[str]:
    # The override file belongs to this machine; compose reads it only if no file is named.
    files = {"compose.yaml": True, "compose.gpu.yaml": accelerator == "cuda"}
    files["compose.override.yaml"] = (ROOT / "compose.override.yaml").is_file()
    command = ["docker", "compose"]
    command += [word for name, wanted in files.items() if wanted for word in ("--file", name)]
    return [*command, *(w for name in ("train", "track", "notebook") for w in ("--profile", name))]


def _run(command: list[str], environ: dict[str, str], compose: list[str] | None = None) -> None:
    """Print and run a command; show its output as it comes, and a failure in one line."""
    print(without_secrets(shlex.join(command)), flush=True)
    said = []
    with started(
        command,
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            said.append(line)
    if process.returncode:
        raise SetupError(why("".join(said), compose or [], environ), code=1)


def _lock_sha256() -> str:
    """The digest called `lock_sha256` in the manifest of a run."""
    files = sorted(path for pattern in settings()["locks"] for path in ROOT.glob(pattern))
    total = hashlib.sha256()
    for path in files:
        total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest() if files else ""


def _git(*arguments: str) -> str:
    """The output of git, or nothing without git."""
    if not shutil.which("git"):
        return ""
    done = git(ROOT, "-c", "log.showSignature=false", *arguments)
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(one_line(main))
