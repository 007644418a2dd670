"""Bake a project for this Python and its CPU environment, set it up, train, verify.

python tools/demo.py STACK MANAGER           (`make demo` names both and makes the environment)
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import template_logic as logic  # noqa: E402  (the template's root is not a package)
from tools import pytorch_index  # noqa: E402

FOLDER = ROOT / "build" / "demo"
MACHINERY = ROOT / "{{cookiecutter.project_slug}}/src/{{cookiecutter.__package}}/repro"
TORCH = ROOT / (
    "{{cookiecutter.project_slug}}/_overlays/__framework/torch/src/{{cookiecutter.__package}}"
)
SETTLED = {
    # What the generated program would set before restarting itself: for runs that must not restart.
    "PYTHONHASHSEED": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_DYNAMIC": "FALSE",
    "MKL_DYNAMIC": "FALSE",
}
PORTABLE = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE"}


def main(stack: str, manager: str) -> int:
    """Run the demo; return the exit code of the first failure, or 0."""
    answers = {
        "project_name": "Demo",
        "project_slug": "demo-project",
        "dependency_manager": manager,
        "stack": stack,
        "python_version": ".".join(map(str, sys.version_info[:2])),
    }
    shutil.rmtree(FOLDER, ignore_errors=True)
    project = Path(
        cookiecutter(
            str(ROOT),
            no_input=True,
            output_dir=str(FOLDER),
            extra_context=answers,
            default_config=True,
        )
    )
    shipped = logic.lock_is_shipped(answers, "cpu")
    verbs = [*([] if shipped else ["lock"]), "setup", "train", "verify"]
    # pip finds that folder by itself; what is not torch is on PyPI.
    torch = logic.stack(stack).get("torch")
    by_itself = torch is None or (shipped and manager == "pip")
    with nullcontext() if by_itself else local_torch(project, torch, locks=not shipped):
        command = ["make", *verbs, "ACCELERATOR=cpu", f"PYTHON={sys.executable}"]
        print(" ".join(command), flush=True)
        return subprocess.run(command, cwd=project, env=environment()).returncode


def environment() -> dict[str, str]:
    """The caller's variables, without those set by an outer make or project."""
    dropped = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VIRTUAL_ENV", "PYTHONPATH")
    environ = {name: value for name, value in os.environ.items() if name not in dropped}
    # The project may use the tools in the template's own environment (uv, poetry).
    return {**environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"}


def settled() -> dict[str, str]:
    """The same variables as a generated program would set them, so that it need not restart itself,
    whatever the caller's shell sets."""
    shell = _shell()
    dropped = shell.imports({}).keys()
    kept = {n: v for n, v in environment().items() if not shell.is_foreign(n) and n not in dropped}
    return {**kept, **SETTLED, "PYTHONNOUSERSITE": "1"}


def _shell() -> ModuleType:
    """Load the module `shell` of generated projects from the template's folder."""
    if "generated" not in sys.modules:
        spec = ModuleSpec("generated", None, is_package=True)
        spec.submodule_search_locations = [str(MACHINERY)]
        sys.modules["generated"] = module_from_spec(spec)
        import_module("generated.backend").__path__.append(str(TORCH / "repro" / "backend"))
    return import_module("generated.shell")


@contextmanager
def local_torch(project: Path, torch: str, *, locks: bool) -> Iterator[None]:
    """If pip is configured with a folder that has this torch, use it instead of the index.

    It serves as a mirror for a project with a lock, and replaces the index if the project `locks`.
    """
    wheel = pytorch_index.find_wheel(torch)
    if wheel is None:
        yield
    elif locks:
        with pytorch_index.replace_index(project, wheel, torch):
            yield
    else:
        with pytorch_index.serve(wheel, torch) as address:
            os.environ["PYTORCH_INDEX_CPU"] = address
            try:
                yield
            finally:
                del os.environ["PYTORCH_INDEX_CPU"]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
