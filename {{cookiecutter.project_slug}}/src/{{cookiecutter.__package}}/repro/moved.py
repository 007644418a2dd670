"""Imports of modules by the names they had before version 0.3.0 of the template.

They still work, with a warning that names the new location; version 0.4.0 removes them.
"""

import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .files import PROJECT

MOVED = {
    "checkpoint": ("run.checkpoint", "backend.state", "files"),
    "cli": ("cli",),
    "compare": ("proof.compare",),
    "doctor": ("doctor.items",),
    "entry": ("entry",),
    "environment": ("env", "shell"),
    "expected": ("proof.baseline",),
    "git": ("git",),
    "inspect_environment": ("doctor.installation",),
    "inspect_repository": ("doctor.repository",),
    "inspection": ("doctor.common",),
    "interrupt": ("signals",),
    "loading": ("backend.patience",),
    "machines": ("proof.machine_table",),
    "manifest": ("run.manifest", "run.description", "files"),
    "mlflow_run": ("tracking.mlflow",),
    "order": ("random.sampler", "backend.loader"),
    "progress": ("run.progress",),
    "record": ("run.logs", "run.plots", "files"),
    "redact": ("redact",),
    "report": ("proof.html",),
    "run": ("run.directory", "run.description", "run.lifecycle"),
    "seeding": ("config.base", "random.streams", "backend.seeding"),
    "shell": ("shell",),
    "strict_yaml": ("config.yaml",),
    "tracking": ("tracking.tracker",),
    "verify": ("proof.verify",),
}
"""Former modules of the package, and where their parts are now in `repro`."""


class _Forward(ModuleType):
    """A moved module, which looks up its names in their new location."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            for place in MOVED[self.__name__.rpartition(".")[2]]:
                module = import_module(f"{PROJECT}.repro.{place}")
                if hasattr(module, name):
                    now = f"from {module.__name__} import {name}"
                    text = f"{self.__name__}.{name} has moved and is removed in 0.4.0; write: {now}"
                    warnings.warn(text, FutureWarning, stacklevel=2)
                    return getattr(module, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        package, _, module = name.rpartition(".")
        return ModuleSpec(name, self) if package == PROJECT and module in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Forward(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def forward() -> None:
    """Make imports by the old names work; modules that exist in the package take precedence."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
