"""The wall: the machinery knows no task, the task knows the machinery by its public names."""

import ast
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


def test_the_machinery_imports_nothing_of_the_users():
    """Whatever a user does to their files, `repro` still loads."""
    for path in REPRO.rglob("*.py"):
        own, _ = imports(path)
        assert all(REPRO in each.parents for each in own), path


@pytest.fixture(scope="module", params=CHOICES["starter"])
def package(request, cookies_session):
    """The package of a fresh project of each starter."""
    answers = {"project_slug": "probe", "starter": request.param}
    return cookies_session.bake(extra_context=answers).project_path / "src" / "probe"


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


def test_only_the_backend_imports_a_framework():
    """A second framework is a second folder of that name."""
    for path in REPRO.rglob("*.py"):
        _, others = imports(path)
        assert path.parent.name == "backend" or not others & FRAMEWORKS, path


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
