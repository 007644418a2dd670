"""The doctor really looks: a checkout broken in one way fails that one item."""

import json
import os
import re
import shutil
from importlib import metadata

import pytest
from conftest import PACKAGE, ROOT, commit, run
from real.config import Config
from real.repro.doctor.items import FAILS, ITEMS, examine


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A clean copy of this project as a git repository of its own."""
    kept = shutil.ignore_patterns(
        ".*env*", ".git", "outputs", "data", "__pycache__", ".conda*", ".pixi"
    )
    root = shutil.copytree(ROOT, tmp_path_factory.mktemp("clean") / "checkout", ignore=kept)
    shutil.copy(ROOT / ".env.example", root)
    commit(root)
    return root


@pytest.fixture
def checkout(pristine, tmp_path):
    """A copy of it that a test may break."""
    return shutil.copytree(pristine, tmp_path / "checkout")


@pytest.fixture(scope="module")
def before(pristine):
    """What fails before anything is broken, such as a lock that this project does not have yet."""
    return failing(pristine)


def failing(root):
    return {finding.item for finding in examine(root, Config) if finding.status == FAILS}


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def config(root, old, new):
    edit(root / "configs" / "baseline.yaml", old, new)


def readme(root, old, new):
    edit(root / "README.md", old, new)


def source(root, text):
    (root / "src" / PACKAGE / "other.py").write_text(text)


PINNED = f"outs:\n- md5: {'0' * 32}\n  size: 4\n  hash: md5\n  path: table.csv\n"
HERE = [item for item in ITEMS if item != "data is what DVC pins"]
"""The items for a project without DVC."""
BREAKS = {
    "data is what DVC pins": lambda root: (root / "table.csv.dvc").write_text(PINNED),
    "Python is the project's": lambda root: (root / ".python-version").write_text("2.7\n"),
    "system dependencies are listed": lambda root: readme(root, "git, make", "make"),
    "hardware requirements are stated": lambda root: readme(root, "| Memory |", "| Remarks |"),
    "deterministic algorithms are on": lambda root: edit(
        root / "configs" / "smoke.yaml", "fill_uninitialized_memory: true", "cudnn_benchmark: true"
    ),
    "data loaders are seeded": lambda root: source(
        root, "from torch.utils import data\n\nloader = data.DataLoader([], shuffle=True)\n"
    ),
    "configs and seeds are in git": lambda root: (root / "configs" / "new.yaml").write_text(
        "seed: 0"
    ),
    "configuration keys are documented": lambda root: edit(
        root / "src" / PACKAGE / "config.py", '    """Peak learning rate', '    "" or """Peak'
    ),
    "environment variables are documented": lambda root: edit(
        root / ".env.example", "DATA_DIR=", "#"
    ),
    "expected results are documented": lambda root: config(
        root, "weight_decay: 0.05", "weight_decay: 0.06"
    ),
    "known limits are listed": lambda root: readme(root, "## Known limits", "## Other"),
    "README says what a stranger needs": lambda root: readme(root, "## Setup", "## Other"),
    "README's commands exist": lambda root: readme(root, "make setup", "make magic"),
    "images are pinned by digest": lambda root: edit(root / "Dockerfile", "@sha256:", ":"),
    "machinery is the template's": lambda root: edit(
        root / "src" / PACKAGE / "repro" / "files.py", '"""', '"""Mine. '
    ),
    "git tree is clean": lambda root: readme(root, "Training", "training"),
}

MORE_BREAKS = {
    "a loader with nothing in its seeds": (
        "data loaders are seeded",
        lambda root: source(
            root,
            "from torch.utils.data import DataLoader\n\n"
            "loader = DataLoader([], generator=None, worker_init_fn=None)\n",
        ),
    ),
    "a switch that is turned off": (
        "deterministic algorithms are on",
        lambda root: source(root, "import torch\n\ntorch.use_deterministic_algorithms(False)\n"),
    ),
    "a variable that only code reads": (
        "environment variables are documented",
        lambda root: source(root, "import os\n\nhidden = os.environ.get('HIDDEN_SWITCH')\n"),
    ),
    "a switch that only warns": (
        "deterministic algorithms are on",
        lambda root: source(
            root, "import torch\n\ntorch.use_deterministic_algorithms(True, warn_only=True)\n"
        ),
    ),
    "a figure of the README that nobody measured": (
        "expected results are documented",
        lambda root: readme(root, "| fast | 0.1", "| fast | 0.2"),
    ),
    "a service from an image without a digest": (
        "images are pinned by digest",
        lambda root: edit(
            root / "compose.yaml", "services:\n", "services:\n  extra:\n    image: redis:8\n\n"
        ),
    ),
    "a subcommand that is not there": (
        "README's commands exist",
        lambda root: readme(root, f"python -m {PACKAGE} compare", f"python -m {PACKAGE} guess"),
    ),
    "a machinery file that is gone": (
        "machinery is the template's",
        lambda root: (root / "environment" / "port.py").unlink(),
    ),
    "a file among the machinery's": (
        "machinery is the template's",
        lambda root: (root / "src" / PACKAGE / "repro" / "mine.py").write_text("MINE = 1\n"),
    ),
    "a config that is not there": (
        "README's commands exist",
        lambda root: (root / "configs" / "cifar10_resnet18.yaml").unlink(),
    ),
}


@pytest.fixture
def lock_says(checkout):
    """Let the lock of `checkout` say what the test wants, whatever its manager's format."""
    direct = pinned(checkout)

    def says(change=lambda packages: None):
        packages = {name: [version, "0" * 64] for name, version in direct.items()}
        packages |= {"torch": ["", "0" * 64]}
        change(packages)
        (checkout / "environment" / "lockfile.py").write_text(
            "from locked import Artefact, Package, settings\n"
            "PYTHON_ONLY = False\n"
            "known_names = set\n"
            "def read_lock(environment, platform):\n"
            "    build = settings()['environments'][environment]['torch'][platform.split('-')[0]]\n"
            f"    return [Package(n, v or build, '', (Artefact('', h),))"
            f" for n, (v, h) in {packages!r}.items()]\n"
        )

    with_cuda(checkout, "")
    return says


def pinned(checkout):
    """The exact direct dependencies of the project."""
    lines = (checkout / "pyproject.toml").read_text().splitlines()
    found = (re.match(r'    "([\w.-]+)==([^" ;]+)"', line) for line in lines)
    return {match[1]: match[2] for match in found if match and match[1] != "torch"}


def finding(root, item):
    return next(f for f in examine(root, Config) if f.item == item)


def test_a_lock_without_a_hash_is_named(checkout, lock_says):
    """Every file needs its sha256."""
    item = "lock fits the project"
    lock_says()
    assert finding(checkout, item).status == "holds"
    lock_says(lambda packages: packages.update(loose=["1.0", ""]))
    assert "loose 1.0 has no sha256" in finding(checkout, item).detail


def test_a_package_that_is_not_the_locks_is_named(checkout, lock_says):
    """Another version than the lock's."""
    item = "installed packages equal the lock"
    lock_says(lambda packages: packages.update(torch=[metadata.version("torch"), "0" * 64]))
    assert finding(checkout, item).status == "holds"
    lock_says(lambda packages: packages.update(torch=["0.0.1", "0" * 64]))
    assert "instead of 0.0.1" in finding(checkout, item).detail


def test_an_old_driver_is_named(checkout, monkeypatch, tmp_path):
    """The driver that nvidia-smi reports is compared with the project's minimum."""
    with_cuda(checkout, 'min_driver = "580.65.06"')
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for version, status in (("570.10", FAILS), ("580.95.05", "holds")):
        tool.write_text(f"#!/bin/sh\necho {version}\n")
        tool.chmod(0o755)
        assert finding(checkout, "driver is new enough").status == status


@pytest.mark.parametrize("item", BREAKS)
def test_a_broken_checkout_fails_that_item(checkout, before, item):
    """The item passes before the change and fails after it; only the git item may fail with it."""
    fails_alone(checkout, before, item, BREAKS[item])


@pytest.mark.parametrize("name", MORE_BREAKS)
def test_an_item_looks_at_more_than_one_place(checkout, before, name):
    """The same for what an item finds elsewhere."""
    fails_alone(checkout, before, *MORE_BREAKS[name])


def fails_alone(checkout, before, item, change):
    assert item not in before
    change(checkout)
    after = failing(checkout)
    # A file that git does not know is git's business, whatever else is wrong with it.
    by_git = {"git tree is clean"}
    assert after - before - by_git == {item} - by_git
    assert item in after


def test_every_item_is_broken_once():
    """An item of the list without a test that sees it fail does not count."""
    elsewhere = {
        "lock fits the project",
        "installed packages equal the lock",
        "CUDA version is documented",
        "driver is new enough",
    }
    assert set(ITEMS) == set(BREAKS) | elsewhere


def test_a_lock_that_is_behind_is_named(checkout, lock_says):
    """A dependency that the lock lacks, and one at another version than the project's."""
    item = "lock fits the project"
    lock_says(lambda packages: packages.update(tqdm=["0.0.1", "0" * 64]))
    assert "it has tqdm 0.0.1" in finding(checkout, item).detail
    lock_says(lambda packages: packages.pop("tqdm"))
    assert "tqdm is not in it" in finding(checkout, item).detail


def test_another_torch_than_the_projects_is_named(checkout, lock_says):
    """The build counts too."""
    lock_says(lambda packages: packages.update(torch=["1.0+cu999", "0" * 64]))
    assert "torch is 1.0+cu999 and must be" in finding(checkout, "lock fits the project").detail


def test_a_cuda_line_that_the_readme_does_not_name_is_noticed(checkout):
    """Another version, and a longer one that begins alike, are not the environment's."""
    item = "CUDA version is documented"
    with_cuda(checkout, 'cuda = "13.0"')
    path = checkout / "README.md"
    rows = [line for line in path.read_text().splitlines() if not line.startswith("| CUDA |")]
    for stated, status in (("13.0, brought along", "holds"), ("12.6", FAILS), ("13.01", FAILS)):
        text = "\n".join(rows) + "\n"
        path.write_text(text.replace("| Memory |", f"| CUDA | {stated} |\n| Memory |", 1))
        assert finding(checkout, item).status == status


def with_cuda(checkout, line):
    """Make this a project with (only) this fact of a CUDA environment; none without a line."""
    path = checkout / "pyproject.toml"
    text = re.sub(r"\n\[tool\.repro\.environments\.cuda\]\n(?:.+\n)*", "", path.read_text())
    if line:
        text += f"\n[tool.repro.environments.cuda]\nplatforms = []\n{line}\n"
    path.write_text(text)


def test_outside_git_it_says_that_it_cannot_tell(checkout):
    """No repository: neither clean nor dirty, and no failure."""
    shutil.rmtree(checkout / ".git")
    for item in ("git tree is clean", "configs and seeds are in git"):
        found = finding(checkout, item)
        assert (found.status, "git init" in found.detail) == ("cannot tell here", True)


@pytest.mark.parametrize(
    "name", ["README.md", "Dockerfile", "docs/expected.json", "pyproject.toml"]
)
def test_a_lost_file_is_a_finding_and_no_traceback(checkout, name):
    """Whatever is missing, the list is completed, and the file is named."""
    (checkout / name).unlink()
    findings = list(examine(checkout, Config))
    assert len(findings) == len(HERE)
    assert any(f.status == FAILS and name.split("/")[-1] in f.detail for f in findings)


def test_the_list_is_printed_for_people_and_for_programs():
    """A line an item and their number; `--json` holds the same findings and the verdict."""
    plain, as_json = run("doctor"), run("doctor", "--json")
    found = json.loads(as_json.stdout)
    assert plain.returncode == as_json.returncode == (0 if found["ok"] else 1)
    assert [item["item"] for item in found["items"]] == list(HERE)
    lines = plain.stdout.splitlines()[:-1]
    assert all(line.startswith(item) for line, item in zip(lines, HERE, strict=True))


def test_what_is_about_to_be_committed_need_not_be_clean():
    """`--uncommitted` leaves that one item out; every other one is asked."""
    found = json.loads(run("doctor", "--json", "--uncommitted").stdout)
    assert [item["item"] for item in found["items"]] == list(HERE)[:-1]
    assert list(HERE)[-1] == "git tree is clean"
