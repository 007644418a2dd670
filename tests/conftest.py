"""Baked projects, and the lists of answers that the tests run over."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import template_logic as logic
from tools import demo, pytorch_index, stand_ins

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
CHOICES = {name: answers for name, answers in QUESTIONS.items() if isinstance(answers, list)}
CHOICES = {name: answers for name, answers in CHOICES.items() if not name.startswith("_")}
THIS_PYTHON = ".".join(map(str, sys.version_info[:2]))
REAL_STACK = "torch-2.13.0-cpu"  # the row whose wheels the tests install
# The same wheel is the CPU environment of this one: what most projects are, as the default is.
REAL_CUDA_STACK = "torch-2.13.0-cu130"
# Tests that run inside a project, by its interpreter, and tasks that are put over one.
collect_ignore = ["machinery", "tensorflow", "tasks"]

HOSTILE = {
    "project_name": "Ünï \"côde\" \\ 'quoted' <b>& {x} $HOME `id` #1: % \u2028 名前",
    "description": "one\nline \"and\" another: 'yes' \\N \t tab \x7f # {not a tag} ${HOME} 🎲\\",
    "author_name": 'O\'Connor & "Søn", Ltd.\\\nLicense: forged',
}


# If the tests are started with Ctrl-C ignored, as in the background of a script, their child
# processes would inherit that, and the tests of Ctrl-C would see nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST_FIRST = ("test_ranks", "test_tensorflow", "test_machinery", "test_setup", "test_starters")
LONGEST_FIRST += ("test_managers", "test_real", "test_versioned_data", "test_proof_elsewhere")


def pytest_collection_modifyitems(items):
    """The files that take longest come first, so that two workers end at about the same time."""
    place = {f"{name}.py": index for index, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session", autouse=True)
def scratch_home(tmp_path_factory):
    """No test reads or writes the settings of whoever runs it."""
    home = tmp_path_factory.mktemp("home")
    os.environ["HOME"] = str(home)
    os.environ["COOKIECUTTER_CONFIG"] = str(home / "none.yaml")
    (home / "none.yaml").write_text(f"replay_dir: {home}/replay\ncookiecutters_dir: {home}/c\n")


@pytest.fixture
def bake(cookies):
    """Bake with the given answers; this must succeed."""

    def baked(**answers):
        result = cookies.bake(extra_context=answers)
        assert result.exception is None, result.exception
        assert result.exit_code == 0
        return result.project_path

    return baked


@pytest.fixture(scope="session")
def baked_real(cookies_session):
    """A project for this Python that can really be installed here, with hostile free text."""

    def baked(**answers):
        given = {"stack": REAL_STACK, "python_version": THIS_PYTHON, **HOSTILE}
        result = cookies_session.bake(extra_context={**given, "project_slug": "real", **answers})
        assert result.exception is None, result.exception
        return SimpleNamespace(path=result.project_path, package="real")

    return baked


def make(project: Path, *verbs: str) -> str:
    """Run make the way a user does; its output is returned, its failure fails the test."""
    command = ["make", *verbs, "ACCELERATOR=cpu", f"PYTHON={sys.executable}"]
    environ = demo.environment()
    done = subprocess.run(
        command,
        cwd=project,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


def free_port() -> int:
    """A port on loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def commit(project: Path) -> None:
    """Put the fresh project under version control."""
    git = ["git", "-C", str(project), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True)


@pytest.fixture(scope="session")
def pip_project(baked_real):
    """Set up once for all tests: the default answers as far as this machine's Python and wheels
    allow, a CUDA project in its CPU environment, with hostile free text wherever it is taken."""
    python, stack = QUESTIONS["python_version"][0], QUESTIONS["stack"][0]
    at_hand = pytorch_index.find_wheel(logic.stack(stack)["torch"])
    nearest = {} if at_hand and python == THIS_PYTHON else {"stack": REAL_CUDA_STACK}
    from lent import set_up  # which takes its constants from here

    project = baked_real(**nearest).path
    commit(project)
    set_up(project)
    return project


@pytest.fixture(scope="session")
def house(tmp_path_factory):
    """The project that other people's surroundings are tried on."""
    from house import House

    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A repository of the template with every release, and two versions more."""
    import releases  # which takes its constants from here

    return releases.build(tmp_path_factory.mktemp("template") / "repo")


@pytest.fixture(scope="session")
def cruft_environment(template, tmp_path_factory):
    """cruft as a project installs it, once for all of them."""
    import releases

    project = releases.create(
        template, releases.NOW, tmp_path_factory.mktemp("tool"), **releases.ANSWERS
    )
    command = [sys.executable, "environment/tool.py", "upgrade"]
    subprocess.run(command, cwd=project, check=True)
    return project / ".envs" / "tool-upgrade"


@pytest.fixture(scope="session")
def fresh(template, tmp_path_factory):
    """A fresh project of a version of the template, created once for the same answers."""
    import releases

    made = {}

    def of(tag, **answers):
        key = (tag, *sorted(answers.items()))
        if key not in made:
            made[key] = releases.create(template, tag, tmp_path_factory.mktemp("fresh"), **answers)
        return made[key]

    return of


@pytest.fixture
def born(fresh, cruft_environment, tmp_path):
    """A committed project of a version, ready to edit and upgrade."""

    import releases

    def of(tag, name="probe", **answers):
        source = fresh(tag, **{**releases.ANSWERS, **answers})
        project = shutil.copytree(source, tmp_path / name, symlinks=True)
        releases.lend(cruft_environment, project)
        releases.commit(project)
        return project

    return of


@pytest.fixture
def other_template(template, tmp_path):
    """A copy of the template's repository that a test may add a version to."""
    return shutil.copytree(template, tmp_path / "other")


@pytest.fixture
def pins_moved(other_template):
    """A version of the template that moves one pin."""
    import releases

    releases.edit(other_template / "data" / "packages.json", r'"tqdm": "[^"]+"', '"tqdm": "4.70.0"')
    releases.release(other_template, "v99.1.0", "An older tqdm.")
    return other_template


@pytest.fixture(scope="session")
def containers():
    """Variables with which `make docker` and `make up` find an engine, images and indexes."""
    import boxes

    with stand_ins.ready(boxes.FOLDER, REAL_STACK) as environ:
        yield environ


@pytest.fixture(scope="session")
def built(baked_real, containers):
    """A project of pip with its CPU image."""
    import boxes

    project = baked_real(dependency_manager="pip", project_slug="boxed").path
    ports = boxes.prepare(project)
    docker_args = "DOCKER_ARGS=--network=host --progress=plain"
    boxes.make(project, "docker", "ACCELERATOR=cpu", docker_args, environ=containers)
    facts = {"project": project, "image": "boxed:cpu", "args": docker_args, "environ": containers}
    return SimpleNamespace(**facts, **ports)


@pytest.fixture(scope="session")
def environment(built):
    """The same project's environment without a container; the variables that it was made with."""
    from lent import set_up

    set_up(built.project)
    names = [name for name in built.environ if name.startswith("PYTORCH_INDEX")]
    return {**demo.environment(), **{name: built.environ[name] for name in names}}


@pytest.fixture(scope="session")
def services(built):
    """All three, by `make up`, after the run of the smoke configuration; `test_services.py` has
    them first, `test_services_failing.py` kills them."""
    import boxes

    config = ["ACCELERATOR=cpu", "CONFIG=configs/smoke.yaml"]
    boxes.make(built.project, "up", *config, environ=built.environ)
    running = SimpleNamespace(
        **vars(built),
        outputs=built.project / "outputs",
        mlflow=f"http://127.0.0.1:{built.MLFLOW_PORT}",
        jupyter=f"http://127.0.0.1:{built.JUPYTER_PORT}",
    )
    boxes.wait_for(lambda: boxes.exit_code(running, "trainer") is not None)
    yield running
    boxes.make(built.project, "down", "ACCELERATOR=cpu", environ=built.environ)
    boxes.docker("volume", "rm", "boxed_mlflow", environ=built.environ)
