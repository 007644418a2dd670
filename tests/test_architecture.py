"""Imports of the generated package go one way, and what must be quick imports no torch."""

import ast

from conftest import ROOT

PACKAGE = ROOT / "{{cookiecutter.project_slug}}" / "src" / "{{cookiecutter.__package}}"
LAYERS = [
    {"strict_yaml", "interrupt", "report", "shell", "redact", "git"},
    {"config", "entry", "loading"},
    {"environment", "record", "cifar", "optim", "model", "checkpoint"},
    {"manifest", "seeding"},
    {"order", "compare", "progress", "tracking", "expected", "inspection"},
    {"data", "verify", "machines", "mlflow_run", "inspect_environment", "inspect_repository"},
    {"doctor"},
    {"run"},
    {"train"},
    {"cli"},
    {"__main__"},
]
WITHOUT_TORCH = {
    "cli",
    "config",
    "entry",
    "environment",
    "git",
    "manifest",
    "record",
    "compare",
    "doctor",
    "expected",
    "inspection",
    "inspect_environment",
    "inspect_repository",
    "machines",
    "redact",
    "report",
    "shell",
    "verify",
}
HEAVY = {"torch", "numpy", "sklearn", "matplotlib", "mlflow", "scipy"}


def imports(path, *, top_level: bool = False) -> tuple[set[str], set[str]]:
    """Our own modules and the others that a file imports, anywhere or at its top level only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own, others = set(), set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            own |= {node.module} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            others.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            others |= {alias.name.split(".")[0] for alias in node.names}
    return own, others


def test_every_module_has_a_layer():
    """A new module is placed on purpose."""
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert modules == set().union(*LAYERS)


def test_a_module_imports_only_from_the_layers_below():
    """No cycle and no way back: each module knows less than the one that calls it."""
    below: set[str] = set()
    for layer in LAYERS:
        for module in layer:
            own, _ = imports(PACKAGE / f"{module}.py")
            assert own <= below, f"{module} imports {own - below}"
        below |= layer


def test_what_answers_at_once_imports_nothing_heavy():
    """`--help`, `compare`, `doctor` and `verify` load no numerical library at the top."""
    for module in WITHOUT_TORCH | {"__main__", "__init__"}:
        _, others = imports(PACKAGE / f"{module}.py", top_level=True)
        assert not others & HEAVY, module
