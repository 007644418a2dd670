"""The package of a project as it stands in the template: no file of it has Jinja tags."""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "{{cookiecutter.project_slug}}"
DEFAULT = PROJECT / "_overlays" / "starter" / "image_classification"
FRAMEWORK = PROJECT / "_overlays" / "__framework" / "torch"
SRC = "src/{{cookiecutter.__package}}"


def copy_package(target: Path, starter: Path = DEFAULT) -> Path:
    """Copy the package with the files of a starter over it, as a generated project has it."""
    left_out = shutil.ignore_patterns("__pycache__")
    for source in (PROJECT / SRC, starter / SRC, FRAMEWORK / SRC):
        shutil.copytree(source, target, ignore=left_out, dirs_exist_ok=True)
    return target
