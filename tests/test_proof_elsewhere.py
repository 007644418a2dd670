"""The proof of a project in somebody else's shell, in which every family of variables is set."""

import os
import re
import sys
from pathlib import Path

import pytest
from conftest import REAL_CUDA_STACK, REAL_STACK, commit
from house import bake
from test_places import make, snapshot

import template_logic as logic
from tools import demo

pytestmark = pytest.mark.surroundings


def test_the_proof_is_green_in_a_shell_full_of_foreign_variables(house, tmp_path):
    """`make setup check` of a project of uv, every family set; pip's is tried in a plain shell."""
    foreign = {
        "OPENBLAS_CORETYPE": "Haswell",
        "OMP_THREAD_LIMIT": "1",
        "MKL_CBWR": "COMPATIBLE",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "NVIDIA_TF32_OVERRIDE": "0",
        "KMP_AFFINITY": "compact",
        "NPY_DISABLE_CPU_FEATURES": "AVX2",
        "TORCHDYNAMO_DISABLE": "1",
        "PYTHONPATH": house.named["foreign"],
        "PYTHONSAFEPATH": "1",
        "MPLBACKEND": "nonsense",
        "GIT_DIR": f"{house.named['other']}/.git",
        "GIT_INDEX_FILE": f"{house.named['other']}/.git/index",
        "MAKEFLAGS": "-j4",
        "TZ": "Asia/Kathmandu",
        "RANK": "3",
        "WORLD_SIZE": "8",
        "MASTER_ADDR": "nowhere",
    }
    project = bake(tmp_path / "real", dependency_manager="uv", stack=REAL_CUDA_STACK)
    commit(project)
    before = snapshot(Path(house.named["other"]))
    with demo.local_torch(project, logic.stack(REAL_STACK)["torch"], locks=False):
        foreign |= {n: v for n, v in os.environ.items() if n.startswith("PYTORCH_INDEX")}
        done = make(house, project, "setup", "check", f"PYTHON={sys.executable}", **foreign)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "All checks passed!" in done.stdout
    assert re.search(r"\d{2} passed", done.stdout)
    assert "items, 0 fail" in done.stdout
    assert snapshot(Path(house.named["other"])) == before
