"""The wall: the machinery knows no task, the task knows the machinery by its public names."""

import ast
import re
from pathlib import Path

import pytest
from conftest import CHOICES, ROOT

REPRO = ROOT / "{{cookiecutter.project_slug}}" / "src" / "{{cookiecutter.__package}}" / "repro"
PUBLIC = {
    "Batches",
    "Inert",
    "Interrupted",
    "Result",
    "Run",
    "RunConfig",
    "SampleStreams",
    "Section",
    "set_seed",
}
VERBS = {
    *("backward", "batches", "finish", "keep_best", "log_metrics", "log_step", "loss"),
    *("pieces", "place", "seed", "spread", "start", "steps", "streams", "use", "write_file"),
}
FRAMEWORKS = {"torch", "tensorflow", "keras", "jax", "safetensors"}
HEAVY = {*FRAMEWORKS, "numpy", "sklearn", "matplotlib", "mlflow", "scipy"}
TENSORFLOW = "tensorflow-2.21.0-cpu"
NAMING = {
    *("launched.py", "signals.py", "cli.py", "shell.py", "random/streams.py"),
    *("backend/patience.py", "backend/pieces.py", "proof/compare.py", "proof/verify.py"),
    *("run/lifecycle.py", "doctor/repository.py"),
    *("testing/gpu_proof.py", "testing/launcher.py", "testing/proof.py", "testing/surroundings.py"),
}
"""Files of the machinery outside the framework's folder that name one."""
AT_ONCE = (
    *("__init__", "__main__", "config", "repro/__init__", "repro/cli", "repro/entry", "repro/env"),
    *("repro/config/load", "repro/run/manifest", "repro/run/logs", "repro/proof/compare"),
    *("repro/proof/verify", "repro/proof/report", "repro/run/listing", "repro/doctor/items"),
)
"""What `--help`, `compare`, `doctor` and `verify` load."""


def imports(path: Path, *, top_level: bool = False) -> tuple[set[Path], set[str]]:
    """The files of the package that a file imports, and the top names of the other modules."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own, others = set(), set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1]
            named = folder.joinpath(*(node.module or "").split("."))
            own |= {_file(named / alias.name) or _file(named) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            others.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            others |= {alias.name.split(".")[0] for alias in node.names}
    return own, others


def _file(module: Path) -> Path | None:
    for path in (module.with_suffix(".py"), module / "__init__.py"):
        if path.is_file():
            return path
    return None


@pytest.fixture(scope="module", params=[*CHOICES["starter"], "tensorflow"])
def package(request, cookies_session):
    """The package of a fresh project of each starter, and of the other framework."""
    starter = {"starter": request.param}
    answers = {"stack": TENSORFLOW} if request.param == "tensorflow" else starter
    made = cookies_session.bake(extra_context={"project_slug": "probe", **answers})
    assert made.exception is None
    return made.project_path / "src" / "probe"


def test_the_machinery_imports_nothing_of_the_users(package):
    """Whatever a user does to their files, `repro` still loads."""
    repro = package / "repro"
    for path in repro.rglob("*.py"):
        own, _ = imports(path)
        assert all(each and repro in each.parents for each in own), path


def test_the_users_files_know_the_public_names_only(package):
    """So that everything behind them may change."""
    repro = package / "repro"
    allowed = set(package.glob("*.py")) | {repro / "__init__.py"}
    entry = {repro / "entry.py", repro / "cli.py", repro / "moved.py"}
    for path in package.glob("*.py"):
        own, _ = imports(path)
        own -= entry if path.name in ("__init__.py", "__main__.py") else set()
        assert own <= allowed, path


def test_no_import_leads_back(package):
    """Each module knows less than the one that calls it."""
    edges = {path: imports(path)[0] - {path} for path in package.rglob("*.py")}
    while free := {path for path, own in edges.items() if not own & edges.keys()}:
        edges = {path: own for path, own in edges.items() if path not in free}
    assert not edges, sorted(path.name for path in edges)


def test_only_the_backend_imports_a_framework(package):
    """And its facts do not, which are read before it is safe to load one."""
    for path in (package / "repro").rglob("*.py"):
        _, others = imports(path)
        may = path.parent.name == "backend" and path.name not in ("facts.py", "alone.py")
        assert may or not others & FRAMEWORKS, path


def test_a_framework_is_a_folder_with_the_same_files():
    """What only one of them has is named here, with the reason."""
    folder = ROOT / "{{cookiecutter.project_slug}}" / "_overlays" / "__framework"
    files = {
        name: {path.name for path in (folder / name).glob("src/*/repro/backend/*.py")}
        for name in ("torch", "tensorflow")
    }
    # Sums over processes: TensorFlow trains in one.
    assert files["torch"] - files["tensorflow"] == {"tree.py"}
    assert files["tensorflow"] - files["torch"] == {"quiet.py"}  # torch says nothing when loaded
    public = {
        path.name: names(path) for path in (folder / "torch").glob("src/*/repro/backend/facts.py")
    }
    for path in (folder / "tensorflow").glob("src/*/repro/backend/facts.py"):
        assert names(path) - {"KERAS"} == public[path.name]


def names(path: Path) -> set[str]:
    """The public names that a module defines."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
        found |= {each.id for each in targets if isinstance(each, ast.Name)}
        found |= {node.name} if isinstance(node, ast.FunctionDef) else set()
    return {name for name in found if not name.startswith("_")}


def test_a_command_that_starts_one_waits_for_its_end():
    """Set-up, managers, upgrade, containers and data start in one way what has to be stopped."""
    files = [*REPRO.parents[2].rglob("environment/*.py"), *(ROOT / "upgrade").glob("*.py")]
    assert {"manager.py", "setup.py", "command.py"} <= {path.name for path in files}
    assert [path.name for path in files if "Popen(" in path.read_text()] == ["children.py"]


def test_files_that_name_a_framework_are_few():
    """Outside its folder: texts for people, and what must know several at once."""
    naming = {
        path.relative_to(REPRO).as_posix()
        for path in REPRO.rglob("*.py")
        if re.search(r"(?i)tensorflow|keras|\btorch\b|pytorch", path.read_text(encoding="utf-8"))
    }
    assert naming <= NAMING, naming - NAMING


def test_what_answers_at_once_imports_nothing_heavy(package):
    """No numerical library at the top of what `--help` loads."""
    for name in AT_ONCE:
        _, others = imports(package / f"{name}.py", top_level=True)
        assert not others & HEAVY, name


def test_the_public_names_are_frozen():
    """A name more is a promise more; a name less breaks somebody's project."""
    (home,) = [
        ast.literal_eval(node.value)
        for node in ast.parse((REPRO / "__init__.py").read_text()).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "_HOME"
    ]
    assert set(home) == PUBLIC


def test_the_verbs_of_a_run_are_frozen():
    """What stands in a user's `train.py`."""
    tree = ast.parse((REPRO / "run" / "lifecycle.py").read_text())
    (run,) = [node for node in tree.body if getattr(node, "name", "") == "Run"]
    methods = {node.name for node in run.body if isinstance(node, ast.FunctionDef)}
    assert {name for name in methods if not name.startswith("_")} == VERBS


def test_what_a_user_owns_is_little(package):
    """They read all of it in an hour; the story of a run on two screens, the proof on one."""
    project = package.parents[1]
    owned = [*package.glob("*.py"), *(project / "tests").glob("*.py")]
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in owned}
    assert len(owned) <= 16
    assert sum(lines.values()) <= 1200
    assert lines["train.py"] <= 110
    assert lines["test_reproducibility.py"] <= 40
