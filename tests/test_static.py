"""Baked files are checked against the schemas and linters of the tools that will read them."""

import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import CHOICES, ROOT, THIS_PYTHON

from tools import demo

BIN = Path(sys.executable).parent
STACKS = ("torch-2.14.1-cu130", "torch-2.14.1-cu126", "torch-2.13.0-cpu", "torch-2.7.1-cu118")
PAIRS = [(manager, STACKS[0]) for manager in CHOICES["dependency_manager"]]
PAIRS += [("pip", stack) for stack in STACKS[1:]]
"""Each manager and each kind of stack once: what depends on both is `pyproject.toml`'s."""


def check(*command: object, cwd: Path = ROOT) -> None:
    """Run a tool of the test environment; its complaint is the failure."""
    done = subprocess.run(
        [BIN / command[0], *map(str, command[1:])], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def make(project: Path, *arguments: str, env: dict[str, str] | None = None):
    """Run make as from a shell of its own, whatever make or test started this process."""
    environ = {**demo.environment(), **(env or {})}
    return subprocess.run(
        ["make", *arguments], cwd=project, env=environ, capture_output=True, text=True
    )


@pytest.mark.parametrize(("manager", "stack"), PAIRS)
def test_the_tools_take_the_files(bake, manager, stack):
    """Dockerfile, compose files, workflows, pyproject.toml."""
    project = bake(dependency_manager=manager, stack=stack, project_slug="probe")
    check("hadolint", "--failure-threshold", "warning", project / "Dockerfile")
    compose = sorted(project.glob("**/compose*.yaml"))
    assert len(compose) > 1
    check("check-jsonschema", "--builtin-schema", "vendor.compose-spec", *compose)
    workflows = sorted(project.glob(".github/workflows/*.yml"))
    check("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    actions = sorted(project.glob(".github/actions/*/action.yml"))
    check("check-jsonschema", "--builtin-schema", "vendor.github-actions", *actions)
    # Low: it prefers a newer spelling of local actions, which older GitHub servers do not know.
    check("zizmor", "--offline", "--quiet", "--min-severity", "medium", project / ".github")
    check("validate-pyproject", project / "pyproject.toml")
    check("shellcheck", project / "slurm" / "train.sbatch")
    check("kubernetes-validate", "--strict", "--quiet", project / "kubernetes" / "train.yaml")
    assert (project / ".github/workflows/gpu.yml").exists() is ("-cu" in stack)


def test_the_pods_of_a_job_are_as_many_as_its_torchruns_expect(bake):
    """Each of the three places where the number stands; and the pods find the service."""
    project = bake(project_slug="probe")
    text = (project / "kubernetes" / "train.yaml").read_text()
    service, _, job = yaml.safe_load_all(text)
    spec = job["spec"]
    pod = spec["template"]["spec"]
    arguments = dict(
        a.removeprefix("--").split("=") for a in pod["containers"][0]["args"] if "=" in a
    )
    assert spec["completions"] == spec["parallelism"] == int(arguments["nnodes"])
    names = {service["metadata"]["name"], pod["subdomain"]}
    names |= {service["spec"]["selector"]["job-name"], job["metadata"]["name"]}
    assert names == {"train"}
    assert arguments["rdzv-endpoint"].startswith("train-0.train.$(NAMESPACE).svc.")
    assert arguments["rdzv-endpoint"].endswith(":29500")
    assert service["spec"]["ports"][0]["port"] == 29500
    mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert {"/app/data", "/app/outputs", "/tmp", "/dev/shm"} == mounts


def test_make_slurm_submits_with_the_plain_command(bake):
    """What it prints is what one would type; without Slurm it is one line."""
    project = bake(project_slug="probe")
    (project / ".envs/cpu/bin").mkdir(parents=True)
    (project / ".envs/cpu/bin/python").symlink_to("/bin/true")
    given = ["ACCELERATOR=cpu", "RANKS=8", "SLURM_ARGS=--nodes=2 --array=0-4", "ARGS=--seed 3"]
    shown = make(project, "--dry-run", "slurm", *given).stdout.replace("\\\n", "")
    assert "RANKS=8 sbatch --nodes=2 --array=0-4 slurm/train.sbatch" in shown
    assert "--config configs/baseline.yaml --seed 3" in shown
    done = make(project, "slurm", *given, env={"PATH": "/usr/bin:/bin"})
    if not shutil.which("sbatch"):
        assert done.stderr.startswith("error: sbatch not found: make slurm is for a machine that")


@pytest.mark.parametrize("stack", STACKS)
def test_poetry_takes_its_project(bake, stack):
    """`poetry check` finds no error; the lock is made by the user."""
    project = bake(dependency_manager="poetry", stack=stack, project_slug="probe")
    check("poetry", "check", cwd=project)


@pytest.mark.parametrize("manager", CHOICES["dependency_manager"])
def test_make_reads_every_verb(bake, manager):
    """The Makefile parses, and `make help` explains each verb."""
    project = bake(dependency_manager=manager, project_slug="probe")
    done = make(project, "help")
    assert done.returncode == 0, done.stderr
    explained = {line.split()[0] for line in done.stdout.splitlines()}
    verbs = "setup lock lock-check wheelhouse train slurm verify gpu-proof compare runs test"
    more = "expected machines lint check data doctor notebook track mlflow sbom audit docker up"
    upgrades = "down clean help upgrade upgrade-abort upgrade-check link"
    assert explained == {*verbs.split(), *more.split(), *upgrades.split()}


def test_options_of_pytest_from_the_shell_are_said(bake):
    """They could leave out the proof; without them, nothing is printed."""
    project = bake(project_slug="probe")
    (project / ".envs/cpu/bin").mkdir(parents=True)
    (project / ".envs/cpu/bin/python").symlink_to("/bin/true")
    given = {"PYTEST_ADDOPTS": "-k 'not proof'"}
    done = make(project, "test", "ACCELERATOR=cpu", env=given)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "note: PYTEST_ADDOPTS is set and has a say in which tests run\n"
    done = make(project, "test", "ACCELERATOR=cpu", env={"PYTEST_ADDOPTS": ""})
    assert (done.returncode, done.stderr) == (0, "")


def test_the_env_file_chooses_for_every_verb(bake):
    """ACCELERATOR and CONFIG there are the defaults; the shell and the command line win."""
    project = bake(project_slug="probe")
    # Editors on Windows begin a file with a byte-order mark.
    (project / ".env").write_text("\ufeffACCELERATOR=cpu\nCONFIG=configs/smoke.yaml\n")
    chosen = make(project, "--dry-run", "up", "train").stdout
    assert "containers.py up cpu" in chosen
    assert ".envs/cpu/bin/python train.py --config configs/smoke.yaml" in chosen
    for arguments, env in ((["ACCELERATOR=cuda"], {}), ([], {"ACCELERATOR": "cuda"})):
        assert "up cuda" in make(project, "--dry-run", "up", *arguments, env=env).stdout


@pytest.mark.parametrize("verb", ["verify", "track", "compare"])
def test_the_name_of_a_run_is_one_word(bake, verb):
    """With a space or a semicolon in it, nothing of it is executed."""
    project = bake(project_slug="probe")
    (project / ".envs/cpu/bin").mkdir(parents=True)
    (project / ".envs/cpu/bin/python").symlink_to(sys.executable)
    name = "RUN_A" if verb == "compare" else "RUN"
    shown = make(project, "--dry-run", verb, f"{name}=outputs/my run; touch gone").stdout
    assert f"{verb} 'outputs/my run; touch gone'" in shown


def test_the_env_file_is_read_by_make_as_text(bake):
    """Quotes and comments are no part of a value, and nothing in it is executed."""
    project = bake(project_slug="probe")
    lines = [
        *("CONFIG='configs/cifar10_resnet18.yaml'", 'CONFIG="configs/smoke.yaml"  # the last wins'),
        *("export  PACKAGE_INDEX ='https://mirror/simple#x' # ours", "MLFLOW_PORT= 5001\t# ours\r"),
    ]
    (project / ".env").write_text("\n".join(lines) + "\n")
    (project / "show.mk").write_text('include Makefile\nshow:\n\t@echo "[$$PACKAGE_INDEX]"\n')
    assert "[https://mirror/simple#x]" in make(project, "-f", "show.mk", "show").stdout
    shown = make(project, "--dry-run", "train", "mlflow").stdout
    assert "train.py --config configs/smoke.yaml \n" in shown
    assert "--port 5001 --backend-store-uri" in shown
    names = ["ACCELERATOR", "CONFIG", "MLFLOW_PORT", "JUPYTER_PORT", "PACKAGE_INDEX"]
    for value in ("$(shell touch ran)", "`touch ran`", "x; touch ran #", "'; touch ran; '"):
        (project / ".env").write_text("".join(f"{name}={value}\n" for name in names))
        shown = make(project, "--dry-run", "train", "ACCELERATOR=cpu").stdout
        assert "train.py --config '" in shown
        for verb in ("setup", "train", "mlflow", "notebook", "up"):
            make(project, verb, "PYTHON=true")
            make(project, verb, "PYTHON=true", "ACCELERATOR=cpu", "PY=true")
        assert not (project / "ran").exists(), value


def test_the_env_example_has_every_variable(bake):
    """Of compose files, of the Dockerfile's arguments and of the Makefile."""
    project = bake(stack="torch-2.13.0-cu126", project_slug="probe")
    files = [*project.glob("**/compose*.yaml"), project / "Dockerfile", project / "Makefile"]
    text = "\n".join(path.read_text() for path in files)
    used = {*re.findall(r"\$\{([A-Z_0-9]+)", text), *re.findall(r"^ +([A-Z_0-9]+):$", text, re.M)}
    used |= {*re.findall(r"^ARG ([A-Z_0-9]+)", text, re.M)}
    used |= {*re.findall(r"call setting,([A-Z_0-9]+)", text)}
    # These two are filled in from the host's numbers, which have names of their own there.
    used = {{"USER_ID": "HOST_UID", "GROUP_ID": "HOST_GID"}.get(name, name) for name in used}
    example = (project / ".env.example").read_text()
    assert len(used) > 20
    assert used - {*re.findall(r"^#? ?([A-Z_0-9]+)=", example, re.M)} == set()


FAKE_DOCKER = """\
#!/bin/sh
case "$*" in
    "compose version"*) echo 2.30.0 ;;
    "ps "*) echo "$THEIRS" ;;
    *down*) echo taken down ;;
esac
"""


def test_whose_services_they_are_is_asked_before_they_are_taken_down(bake, tmp_path):
    """Those of another checkout are left, also where it cannot be seen; by a link they are ours."""
    project = bake(project_slug="probe")
    (tmp_path / "docker").write_text(FAKE_DOCKER)
    (tmp_path / "docker").chmod(0o755)
    other, link = tmp_path / "other", tmp_path / "link"
    other.mkdir()
    link.symlink_to(project)
    path = f"{tmp_path}:{demo.environment()['PATH']}"
    gone = "if that is gone, docker compose --project-name probe down"
    for theirs, told in (
        (other, "make down there"),
        (link, ""),
        (tmp_path / "gone", gone),
        (tmp_path / "docker" / "no folder", gone),
    ):
        environ = {"PATH": path, "THEIRS": str(theirs)}
        done = make(project, "down", f"PYTHON={sys.executable}", env=environ)
        assert ("taken down" in done.stdout) is (not told), done.stderr
        assert (f"services named probe belong to {theirs}; {told}" in done.stderr) is bool(told)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("ERROR: BuildKit is enabled but the buildx component is missing or broken.", "no buildx"),
        ("the --mount option requires BuildKit. Refer to https://docs", "no buildx"),
        ("Error response from daemon: no space left on device", "the disk is full"),
        ("ERROR: failed to resolve source metadata for x/y:1", "BASE_IMAGE_CPU"),
        ("nvidia-container-cli: initialization error: driver not loaded", "ACCELERATOR=cpu"),
    ],
)
def test_what_an_engine_says_is_told_in_one_line(bake, said, told):
    """With what to do about it."""
    project = bake(project_slug="probe")
    code = "import sys; from engine import why; print(why(sys.stdin.read(), [], {}))"
    environ = {**demo.environment(), "PYTHONPATH": str(project / "environment")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=said, env=environ, capture_output=True, text=True)
    assert told in done.stdout, done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_a_port_that_is_taken_is_named_before_mlflow_is_installed(bake):
    """`make mlflow` beside the services of `make up`, say."""
    project = bake(project_slug="probe")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = f"MLFLOW_PORT={taken.getsockname()[1]}"
        done = make(project, "mlflow", port, f"PYTHON={sys.executable}")
    assert done.returncode != 0
    assert f"error: port {port[12:]} is in use; set another MLFLOW_PORT in .env" in done.stderr
    assert not (project / ".envs").exists()


@pytest.mark.parametrize("manager", ["uv", "poetry", "conda", "pixi"])
def test_a_missing_manager_is_named_with_the_way_to_get_it(bake, manager, tmp_path):
    """One line, exit code not zero, nothing made."""
    project = bake(dependency_manager=manager, project_slug="probe")
    lock = {"conda": "cuda.conda-lock.yml"}.get(manager, f"{manager}.lock")
    (project / lock).write_text("made up\n")
    for name in ("make", "sh", "env", "git", "id", "test", "awk"):
        if shutil.which(name):
            (tmp_path / name).symlink_to(shutil.which(name))
    environ = {"PATH": str(tmp_path)}
    done = make(project, "setup", f"PYTHON={sys.executable}", env=environ)
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "not found: install it" in errors[0]


def test_a_python_that_is_missing_is_named(bake):
    """One line with the version that is wanted and how to name another."""
    project = bake(python_version="3.12", project_slug="probe")
    done = make(project, "setup", "PYTHON=python9.9")
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert errors == [
        "error: python9.9 not found: install Python 3.12, or name its path: make setup PYTHON=…"
    ]
    assert not (project / ".envs").exists()


def test_an_environment_without_a_lock_is_not_made(bake):
    """`make setup` says which file is missing and which command makes it."""
    answers = {"stack": "torch-2.14.1-cu126", "python_version": THIS_PYTHON}
    project = bake(**answers, project_slug="probe")
    done = make(project, "setup", "ACCELERATOR=cuda", f"PYTHON={sys.executable}")
    assert done.returncode != 0
    assert "is missing: this environment is not locked yet; run make lock" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert not (project / ".venv").exists()


def test_another_python_is_refused_before_anything_is_made(bake):
    """The line names the version that was asked for and the one that was found."""
    other = next(v for v in CHOICES["python_version"] if v != THIS_PYTHON)
    project = bake(stack="torch-2.13.0-cpu", python_version=other, project_slug="probe")
    done = make(project, "setup", f"PYTHON={sys.executable}")
    assert done.returncode != 0
    assert f"error: this project needs Python {other}" in done.stderr
    assert not (project / ".venv").exists()
