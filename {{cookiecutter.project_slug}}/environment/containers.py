"""Build the image, start and stop the services; what stops them is told in one line.

python environment/containers.py build|up|down cpu|cuda [options of docker build, or of compose]
                                                           (`make docker`, `make up`, `make down`)
"""

import hashlib
import os
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from engine import check_compose, check_engine, check_folder, check_port, why
from failure import SetupError, one_line
from locked import ROOT, settings

PORTS = {"mlflow": ("MLFLOW_PORT", "5000"), "jupyter": ("JUPYTER_PORT", "8888")}
"""Of each service the variable of its port; the number is the default, and the port inside."""
FOLDERS = {"DATA_DIR": "./data", "OUTPUT_DIR": "./outputs"}
ARGUMENTS = (
    *("BASE_IMAGE_CPU", "BASE_IMAGE_CUDA", "UV_IMAGE", "PYTHON_VERSION"),
    *("UV_PYTHON_INSTALL_MIRROR", "PACKAGE_INDEX", "PYTORCH_INDEX_CPU", "PYTORCH_INDEX_CUDA"),
    *("SOURCE_DATE_EPOCH", "CODE_COMMIT", "LOCK_SHA256", "BUILD_DATE"),
)
"""Build arguments that have the name of a variable; one that is empty is as if it were not set."""


def main() -> int:
    """Do what is asked and return the exit code."""
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
    if action == "down":
        _run([*compose, "down", *options], environ)
        return 0
    _check_services(compose, environ)
    _run([*compose, "up", "--build", "--detach", "--wait", *options], environ, compose)
    # Without the last word MLflow's pages open on language models.
    where = "#/experiments?workflowType=machine_learning"
    print(f"MLflow   http://127.0.0.1:{environ['MLFLOW_PORT']}/{where}")
    print(f"Jupyter  http://127.0.0.1:{environ['JUPYTER_PORT']}  (token: JUPYTER_TOKEN in .env)")
    print("trainer  docker compose logs --follow trainer")
    return 0


def _environ(accelerator: str) -> dict[str, str]:
    """The shell's variables, those of `.env`, and what only this machine and checkout know."""
    given = {**_env_file(ROOT / ".env"), **os.environ}
    # Not as root, not even for root: who builds as root trains as the first ordinary user.
    user, group = (os.getuid(), os.getgid()) if os.getuid() else (1000, 1000)
    commit = _git("rev-parse", "--verify", "--quiet", "HEAD")
    seconds = _git("log", "-1", "--format=%ct") or "0"
    known = {
        "HOST_UID": str(user),
        "HOST_GID": str(group),
        "CODE_COMMIT": commit + ("-dirty" if commit and _git("status", "--porcelain") else ""),
        "SOURCE_DATE_EPOCH": seconds,
        "BUILD_DATE": datetime.fromtimestamp(int(seconds), UTC).isoformat(),
        "LOCK_SHA256": _lock_sha256(),
        **dict(PORTS.values()),
        **FOLDERS,
    }
    environ = {**known, **{name: value for name, value in given.items() if value}}
    return {**environ, "ACCELERATOR": accelerator}


def _env_file(path: Path) -> dict[str, str]:
    """`NAME=value` lines, read as text and never executed."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f".env cannot be read: {error}") from None
    lines = re.findall(r"^[ \t]*([A-Za-z_]\w*)=(.*)$", text, re.MULTILINE)
    return {name: value.strip().strip("'\"") for name, value in lines}


def _check_services(compose: list[str], environ: dict[str, str]) -> None:
    """Everything that would stop the services later, and less clearly."""
    if not (ROOT / ".env").is_file():
        raise SetupError(".env is missing: cp .env.example .env, then set JUPYTER_TOKEN")
    if not environ.get("JUPYTER_TOKEN"):
        raise SetupError("JUPYTER_TOKEN is empty; set it in .env, Jupyter does not start without")
    for variable in FOLDERS:
        folder = ROOT / Path(environ[variable]).expanduser()
        check_folder(folder, int(environ["HOST_UID"]), int(environ["HOST_GID"]))
    for service, (variable, inside) in PORTS.items():
        asked = [*compose, "port", service, inside]
        done = subprocess.run(asked, cwd=ROOT, env=environ, capture_output=True, text=True)
        ours = done.stdout.strip().rpartition(":")[2] == environ[variable]
        check_port(variable, environ[variable], ours=ours)


def _build(accelerator: str, environ: dict[str, str]) -> list[str]:
    image = re.search(
        r"^    image: ([a-z0-9-]+):", (ROOT / "compose.yaml").read_text(), re.MULTILINE
    )
    assert image, "compose.yaml names the trainer's image"
    command = ["docker", "build", "--target", "trainer", "--tag", f"{image[1]}:{accelerator}"]
    command += ["--build-arg", f"ACCELERATOR={accelerator}"]
    command += ["--build-arg", f"USER_ID={environ['HOST_UID']}"]
    command += ["--build-arg", f"GROUP_ID={environ['HOST_GID']}"]
    # By name alone: docker takes the value from the environment, and a mirror's may be secret.
    named = [name for name in ARGUMENTS if environ.get(name)]
    return [*command, *(word for name in named for word in ("--build-arg", name))]


def _compose(accelerator: str) -> list[str]:
    # An override is this machine's own; compose reads it by itself only where no file is named.
    files = {"compose.yaml": True, "compose.gpu.yaml": accelerator == "cuda"}
    files["compose.override.yaml"] = (ROOT / "compose.override.yaml").is_file()
    command = ["docker", "compose"]
    command += [word for name, wanted in files.items() if wanted for word in ("--file", name)]
    return [*command, *(w for name in ("train", "track", "notebook") for w in ("--profile", name))]


def _run(command: list[str], environ: dict[str, str], compose: list[str] | None = None) -> None:
    """Print a command and run it; its output is shown as it comes, its failure in one line."""
    print(shlex.join(command), flush=True)
    said = []
    with subprocess.Popen(
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
    """The digest that a run's manifest calls `lock_sha256`."""
    files = sorted(path for pattern in settings()["locks"] for path in ROOT.glob(pattern))
    total = hashlib.sha256()
    for path in files:
        total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest() if files else ""


def _git(*arguments: str) -> str:
    """What git says, or nothing where there is none."""
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(one_line(main))
