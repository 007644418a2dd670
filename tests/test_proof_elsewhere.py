"""Set up and proved in somebody else's shell, in which every family of variables is set."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REAL_CUDA_STACK, REAL_STACK, commit
from house import bake
from test_places import make, snapshot

import template_logic as logic
from tools import demo

pytestmark = pytest.mark.surroundings


def pip_settings(folder: Path) -> dict[str, str]:
    """What other people tell pip, by a file and by variables; where packages are found is kept."""
    listed = [sys.executable, "-m", "pip", "config", "list"]
    config = subprocess.run(listed, capture_output=True, text=True).stdout
    links = dict(re.findall(r"^\S+?\.(find-links|extra-index-url|cert)='(.*)'$", config, re.M))
    lines = ["[install]", "user = true", "constraint = /nowhere", "[global]"]
    lines += [f"{name} = {value}" for name, value in links.items()]
    (folder / "pip.conf").write_text("\n".join(lines) + "\n")
    return {
        "PIP_CONFIG_FILE": str(folder / "pip.conf"),
        "PIP_USER": "1",
        "PIP_CONSTRAINT": "/nowhere/constraints.txt",
        "PIP_TARGET": str(folder / "target"),
        "PIP_REQUIRE_VIRTUALENV": "1",
        "PIP_NO_BINARY": ":all:",
    }


# pip is the manager of those who do not choose one; both installations take minutes.
@pytest.mark.parametrize("manager", ["pip", pytest.param("uv", marks=pytest.mark.slow)])
def test_setup_and_proof_are_green_in_a_shell_full_of_foreign_variables(house, tmp_path, manager):
    """`make setup check`, every family set: installed for real, once, and nothing elsewhere."""
    foreign = pip_settings(tmp_path) | {
        "OPENBLAS_CORETYPE": "Haswell",
        "OMP_THREAD_LIMIT": "1",
        "MKL_CBWR": "COMPATIBLE",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "NVIDIA_TF32_OVERRIDE": "0",
        "KMP_AFFINITY": "compact",
        "NPY_DISABLE_CPU_FEATURES": "AVX2",
        "TORCHDYNAMO_DISABLE": "1",
        "PYTHONPATH": f"{house.named['foreign']}:{house.named['distribution']}",
        "PYTHONSAFEPATH": "1",
        "PYTHONOPTIMIZE": "1",
        "VIRTUAL_ENV": "/nowhere",
        "CONDA_PREFIX": "/nowhere",
        "MPLBACKEND": "nonsense",
        "GIT_DIR": f"{house.named['other']}/.git",
        "GIT_INDEX_FILE": f"{house.named['other']}/.git/index",
        "MAKEFLAGS": "-j4",
        "TZ": "Asia/Kathmandu",
        "RANK": "3",
        "WORLD_SIZE": "8",
        "MASTER_ADDR": "nowhere",
    }
    project = bake(tmp_path / "real", dependency_manager=manager, stack=REAL_CUDA_STACK)
    python = f"PYTHON={sys.executable}"
    before = snapshot(Path(house.named["other"]))
    with demo.local_torch(project, logic.stack(REAL_STACK)["torch"], locks=False):
        foreign |= {n: v for n, v in os.environ.items() if n.startswith("PYTORCH_INDEX")}
        done = make(house, project, "setup", python, **foreign)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) < 15
        said = "this project is not in git, and runs name no commit: git init"
        assert done.stdout.count(said) == 1
        log = project / ".envs" / "setup-cpu.log"
        installed = log.stat()
        assert installed.st_size > 1000
        commit(project)
        done = make(house, project, "setup", "check", python, **foreign)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert log.stat().st_mtime_ns == installed.st_mtime_ns, "it was installed again"
    assert "All checks passed!" in done.stdout
    assert re.search(r"\d{2} passed", done.stdout)
    assert "items, 0 fail" in done.stdout
    assert not (tmp_path / "target").exists()
    assert snapshot(Path(house.named["other"])) == before
