"""`make matrix` against a registry on loopback: what differs is seen, new releases are proposed."""

import copy
import json
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, THIS_PYTHON

from tools import compact_json, matrix, registry
from tools.pytorch_index import loopback

STACKS = ROOT / "data" / "stacks.json"
NVIDIA = "platform_system == 'Linux'"


def wheel(name, version, python="3.12", platform="manylinux_2_28_x86_64", tag=None):
    short = f"cp{python.replace('.', '')}"
    return f"{name}-{version}-{tag or f'{short}-{short}'}-{platform}.whl"


class Registry:
    """A simple index with the metadata of each wheel beside it."""

    def __init__(self):
        self.projects = {}
        self.metadata = {}

    def add(self, name, version, requires=(), pythons=("3.12",), uploaded="2026-11-01T10:00:00Z"):
        for python in pythons:
            file = wheel(name.replace("-", "_"), version, python)
            entry = {"filename": file, "url": f"{self.address}/{file}", "upload-time": uploaded}
            self.projects.setdefault(name, []).append({**entry, "hashes": {"sha256": "0" * 64}})
            lines = [f"Name: {name}", f"Version: {version}"]
            lines += [f"Requires-Dist: {requirement}" for requirement in requires]
            self.metadata[f"/{file}.metadata"] = "\n".join(lines) + "\n"

    def answer(self, path):
        if path in self.metadata:
            return self.metadata[path].encode(), "text/plain"
        files = self.projects.get(path.strip("/").split("/")[-1])
        return (json.dumps({"files": files}).encode(), "application/json") if files else None


@pytest.fixture
def index():
    """A registry with one release, `torch` 9.1.0, and what belongs to it."""
    made = Registry()
    with loopback(made.answer) as address:
        made.address = address
        made.add(
            "torch",
            "9.1.0",
            [
                f"cuda-toolkit[cublas]==14.0.1; {NVIDIA}",
                f"nvidia-cudnn-cu14==10.0.0.1; {NVIDIA} and platform_machine == 'x86_64'",
                f"nvidia-nccl-cu14==3.0.0; {NVIDIA}",
                f"triton~=5.0.0; {NVIDIA}",
            ],
            pythons=("3.12", "3.13"),
        )
        toolkit = ["nvidia-cublas==14.1.2.*", "nvidia-cuda-nvrtc==14.0.9.*", "nvidia-other==1.*"]
        made.add("cuda-toolkit", "14.0.1", [f"{each}; extra == 'cublas'" for each in toolkit])
        made.add("numpy", "3.0.0", pythons=("3.12", "3.13"))
        made.add("torchvision", "0.91.0", ["torch==9.1.0"])
        made.add("torchaudio", "9.1.0")
        registry.wheels.cache_clear()
        yield made
    registry.wheels.cache_clear()
    registry.metadata_text.cache_clear()


def row():
    """The row that this release must have."""
    return {
        "torch": "9.1.0",
        "released": "2026-11-01",
        "status": "supported",
        "python": ["3.12", "3.13"],
        "numpy": "3.0.0",
        "torchvision": "0.91.0",
        "torchaudio": "9.1.0",
        "triton": "5.0.0",
        "pypi_default": "cu140",
        "conda_forge": [],
        "variants": {
            "cu140": {
                "cudnn": "10.0.0.1",
                "nccl": "3.0.0",
                "toolkit": {"nvidia-cublas": "14.1.2", "nvidia-cuda-nvrtc": "14.0.9"},
                "compute_capability": ["8.0", "13.0"],
                "platforms": ["linux-x86_64"],
            },
            "cpu": {},
        },
    }


def test_a_row_that_is_right_gives_no_difference(index):
    """Every fact that the registry knows is read, and equal."""
    assert matrix.differences(row(), index.address) == {}


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("released", "2026-10-31"),
        ("python", ["3.11", "3.12", "3.13"]),
        ("numpy", "2.9.9"),
        ("torchvision", "0.90.0"),
        ("torchaudio", "9.0.0"),
        ("triton", "4.0.0"),
        ("pypi_default", "cpu"),
    ],
)
def test_a_wrong_fact_of_a_row_is_seen(index, key, wrong):
    """One at a time."""
    index.add("torchvision", "0.90.0", ["torch==9.0.0"])
    assert key in matrix.differences(row() | {key: wrong}, index.address)


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("cudnn", "9.9.9.9"),
        ("nccl", "2.0.0"),
        ("toolkit", {}),
        ("platforms", ["linux-x86_64", "linux-aarch64"]),
    ],
)
def test_a_wrong_fact_of_a_variant_is_seen_and_mended(index, key, wrong):
    """The value from the registry is applied."""
    release = row()
    release["variants"]["cu140"][key] = wrong
    found = matrix.differences(release, index.address)
    assert list(found) == [f"variants.cu140.{key}"]
    matrix.apply(release, found)
    assert release == row()


def test_a_new_release_becomes_a_proposed_row(index):
    """With facts from the registry; the capability is copied from the newest row, with a note."""
    older = copy.deepcopy(row()) | {"torch": "9.0.0"}
    (new,) = matrix.proposals([older], index.address)
    assert new["status"] == "proposed"
    assert "compute capability as of PyTorch 9.0.0: not checked" in new["source"]
    facts = {key: new[key] for key in row() if key != "status"}
    assert facts == {key: value for key, value in row().items() if key != "status"}


def test_pre_releases_and_yanked_ones_are_not_proposed(index):
    """Nor local builds, nor what is older than the newest row."""
    index.add("torch", "9.2.0rc1")
    index.add("torch", "8.0.0")
    index.add("torch", "9.3.0")
    for file in index.projects["torch"]:
        file["yanked"] = "9.3.0" in file["filename"]
    assert matrix.proposals([row()], index.address) == []


def test_the_command_writes_what_it_found(index, tmp_path):
    """A difference is printed and mended; `--check` writes nothing and fails."""
    data = tmp_path / "stacks.json"
    release = row()
    release["variants"]["cu140"]["cudnn"] = "1.0"
    data.write_text(compact_json.dumps({"releases": [release]}) + "\n")
    before = data.read_text()
    command = [sys.executable, ROOT / "tools" / "matrix.py", "--data", data]
    command += ["--index", index.address]
    done = subprocess.run([*command, "--check"], capture_output=True, text=True)
    assert (done.returncode, data.read_text()) == (1, before)
    assert "torch 9.1.0: variants.cu140.cudnn: data 1.0, registry 10.0.0.1" in done.stdout
    assert "not checked: minimum drivers" in done.stdout
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert json.loads(data.read_text()) == {"releases": [row()]}


def test_a_registry_that_is_not_there_is_one_line(tmp_path):
    """And no file is touched."""
    data = tmp_path / "stacks.json"
    shutil.copy(STACKS, data)
    command = [sys.executable, ROOT / "tools" / "matrix.py", "--index", "http://127.0.0.1:9"]
    done = subprocess.run([*command, "--data", data], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert data.read_text() == STACKS.read_text()


def test_the_data_file_is_as_its_writer_writes_it():
    """So that a rewritten matrix differs in facts alone."""
    text = STACKS.read_text(encoding="utf-8")
    assert compact_json.dumps(json.loads(text)) + "\n" == text


def test_a_new_release_is_one_row_and_one_command(tmp_path):
    """With a made-up row: the menu, the README's table and a project follow from it."""
    template = tmp_path / "template"
    tracked = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others"]
    listed = subprocess.run([*tracked, "--exclude-standard"], capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith("data/locks/"):
            (template / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, template / name)
    shutil.copytree(ROOT / "data" / "locks" / "tools", template / "data" / "locks" / "tools")
    before = {path: path.read_bytes() for path in template.rglob("*") if path.is_file()}
    data = json.loads((template / "data" / "stacks.json").read_text())
    new = copy.deepcopy(data["releases"][0])
    new |= {"torch": "9.9.9", "index_wheels": {}, "status": "supported"}
    data["releases"].append(new)
    (template / "data" / "stacks.json").write_text(compact_json.dumps(data) + "\n")
    subprocess.run([sys.executable, "tools/menu.py"], cwd=template, check=True)
    changed = {p.relative_to(template).as_posix() for p, b in before.items() if p.read_bytes() != b}
    assert changed == {"data/stacks.json", "cookiecutter.json", "README.md"}
    script = (
        "from cookiecutter.main import cookiecutter; import sys; cookiecutter(sys.argv[1],"
        " no_input=True, output_dir=sys.argv[2], default_config=True, extra_context="
        "{'project_slug': 'probe', 'stack': 'torch-9.9.9-cu130', 'dependency_manager': 'uv',"
        f" 'python_version': '{THIS_PYTHON}'}})"
    )
    command = [sys.executable, "-c", script, str(template), str(tmp_path / "out")]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    text = (tmp_path / "out" / "probe" / "pyproject.toml").read_text()
    assert '"torch==9.9.9 ; ' in text
    assert '"torch==9.9.9+cpu ; ' in text
