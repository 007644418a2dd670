"""Shipped locks pass the lock check, and tampered ones fail it."""

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from conftest import CHOICES, ROOT

import template_logic as logic
from tools import environments, project_locks
from tools.pytorch_index import loopback

LOCKABLE = project_locks.lockable()
# Every stack once for each manager, the Pythons in turn; `make environments` does all of them.
SAMPLE = [
    (manager, stack, [p for s, p in LOCKABLE if s == stack][index % 3])
    for index, stack in enumerate(dict.fromkeys(stack for stack, _ in LOCKABLE))
    for manager in ("pip", "uv", "poetry")
]
CUDA = "torch-2.13.0-cu130"


def check(project, *arguments):
    """Run the project's lock check; its exit code and its report."""
    command = [sys.executable, project / "environment" / "check.py", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)["problems"]


def said(project, *arguments):
    """All problems that the check names, in one text."""
    code, problems = check(project, *arguments)
    text = "\n".join(f"{title}: {each}" for title, found in problems.items() for each in found)
    assert bool(text) == bool(code)
    return text


@pytest.mark.parametrize(("manager", "stack", "python"), SAMPLE)
def test_a_shipped_lock_fits_its_project(bake, manager, stack, python):
    """On every platform that the project names, in every environment; nothing is assumed."""
    project = bake(
        dependency_manager=manager, stack=stack, python_version=python, project_slug="probe_it"
    )
    code, problems = check(project)
    assert (code, [p for found in problems.values() for p in found]) == (0, [])
    cells = {tuple(title.split()) for title in problems}
    assert ("cpu", "linux-x86_64") in cells
    assert ("cpu", "macos-arm64") in cells
    assert any(name == "cuda" for name, _ in cells) == ("-cu" in stack)


def test_a_shipped_lock_does_not_grow_the_bake():
    """Only the chosen lock and the packages that it names are read."""
    folder = ROOT / "data" / "locks" / "uv"
    reads = [len(re.findall("^@", p.read_text(), re.M)) for p in folder.glob("*/*/uv.lock")]
    assert len(reads) == len(LOCKABLE)
    assert max(reads) < 250 < len(list((folder / "packages").iterdir()))


def test_the_page_of_environments_says_what_ships():
    """`docs/environments.md` was written from the locks that are here, cell by cell."""
    results = {}
    for stack, (release, _) in logic.stack_names().items():
        for manager, python in itertools.product(environments.managers(release), release["python"]):
            answers = {"dependency_manager": manager, "stack": stack, "python_version": python}
            results[manager, stack, python] = {
                f"{name} {platform}": logic.lock_is_shipped(answers, name)
                for name, facts in logic.locked_environments(answers).items()
                for platform in json.loads(facts["platforms"])
            }
    table = environments.rows(results, [])
    page = environments.PAGE.read_text(encoding="utf-8")
    trained = r"; with 3\.\d+ installed, trained, verified"
    assert len(re.findall(trained, page)) == 3
    assert re.sub(trained, "", page).endswith("\n".join(table) + "\n")


@pytest.mark.parametrize("manager", ["uv", "poetry"])
def test_no_stored_package_is_unused(manager):
    """Packages that no lock refers to any more are removed."""
    folder = ROOT / "data" / "locks" / manager
    named = set()
    for path in folder.glob("*/*/*.lock"):
        named |= set(re.findall(r"^@(\S+)$", path.read_text(), re.MULTILINE))
    assert named == {path.name for path in (folder / "packages").iterdir()}


@pytest.mark.parametrize("slug", ["a_b", "zz-top", "locked-project"])
def test_a_shipped_lock_carries_the_projects_name(bake, slug):
    """As its manager would write it: normal form, in its alphabetical place, in every extra."""
    project = bake(dependency_manager="uv", stack=CUDA, python_version="3.11", project_slug=slug)
    text = (project / "uv.lock").read_text()
    name = slug.replace("_", "-")
    packages = re.findall(r'^\[\[package\]\]\nname = "(.+)"$', text, re.MULTILINE)
    assert packages == sorted(packages)
    assert name in packages
    assert set(re.findall(r"extra-\d+-[a-z-]+-cu?[dp]", text)) == {
        f"extra-{len(name)}-{name}-cp",
        f"extra-{len(name)}-{name}-cud",
    }
    assert text.count("locked-project") == (text.count(name) if slug == "locked-project" else 0)


@pytest.fixture(scope="module")
def locked(cookies_session):
    """A project for each manager, with the lock it was born with."""
    made = {}
    for manager in ("pip", "uv", "poetry"):
        answers = {"dependency_manager": manager, "stack": CUDA, "python_version": "3.11"}
        result = cookies_session.bake(extra_context={**answers, "project_slug": f"in-{manager}"})
        assert result.exception is None
        made[manager] = result.project_path
    return made


FILES = {"pip": "requirements/cpu.txt", "uv": "uv.lock", "poetry": "poetry.lock"}
TORCH_FILES = {**FILES, "pip": "requirements/torch-cpu.txt"}
CUDA_FILES = {**FILES, "pip": "requirements/cuda.txt"}


@pytest.fixture
def tampered(locked):
    """Edit the lock of a project for one test; it must change, and is put back afterwards."""
    undo = []

    def edit(manager, files, pattern, replacement):
        path = locked[manager] / files[manager]
        before = path.read_text()
        undo.append((path, before))
        after, count = re.subn(pattern, replacement, before, flags=re.MULTILINE | re.DOTALL)
        assert count and after != before, pattern
        path.write_text(after)
        return locked[manager]

    yield edit
    for path, before in undo:
        path.write_text(before)


def block(name):
    """The lines of one package in a TOML lock, up to what is edited."""
    return rf'(\[\[package\]\]\nname = "{name}"\n(?:(?!\[\[package\]\]).)*?)'


@pytest.mark.parametrize(
    ("manager", "pattern", "replacement"),
    [
        ("pip", r"^(tqdm==\S+) \\\n(?:    --hash=\S+(?: \\)?\n)+", r"\1\n"),
        ("uv", block("tqdm") + r'whl", hash = "[^"]+"', r'\1whl"'),
        ("poetry", block("tqdm") + r'whl", hash = "[^"]+"', r'\1whl", hash = ""'),
    ],
)
def test_a_file_without_its_sha256_is_named(tampered, manager, pattern, replacement):
    """The package, and where the format knows it, the file."""
    project = tampered(manager, FILES, pattern, replacement)
    assert re.search(r"tqdm \S+ has no (sha256|wheel)", said(project))


@pytest.mark.parametrize(
    ("manager", "pattern", "replacement"),
    [
        ("pip", r"^numpy==\S+", "numpy==1.0.0"),
        ("uv", block("numpy") + r'version = "[^"]+"', r'\1version = "1.0.0"'),
        ("poetry", block("numpy") + r'version = "[^"]+"', r'\1version = "1.0.0"'),
    ],
)
def test_another_version_than_the_projects_is_named(tampered, manager, pattern, replacement):
    """A direct dependency is pinned in `pyproject.toml`, and the lock must have that version."""
    project = tampered(manager, FILES, pattern, replacement)
    assert "older than pyproject.toml: it has numpy 1.0.0; run make lock" in said(project)


@pytest.mark.parametrize("manager", FILES)
def test_another_build_of_torch_is_named(tampered, manager):
    """The local tag counts."""
    project = tampered(manager, TORCH_FILES, r"2\.13\.0\+cpu", "2.13.0+cu126")
    assert "cpu linux-x86_64: torch is 2.13.0+cu126 and must be 2.13.0+cpu" in said(project)


@pytest.mark.parametrize("manager", FILES)
def test_torch_from_another_index_is_named(tampered, manager):
    """Also where version and hash would fit."""
    official = r"https://download\.pytorch\.org/whl/cpu"
    project = tampered(manager, TORCH_FILES, official, "https://wheels.example/cpu")
    assert "torch comes from https://wheels.example/cpu and must come from" in said(project)


@pytest.mark.parametrize(
    ("manager", "pattern", "replacement"),
    [
        ("pip", r"\A", "--index-url https://other.example/simple\n"),
        ("uv", block("tqdm") + r"https://pypi.org/simple", r"\1https://other.example/simple"),
        (
            "poetry",
            block("tqdm") + r"(\n\n)",
            r'\1\n\n[package.source]\ntype = "legacy"\nurl = "https://other.example/simple"\n\2',
        ),
    ],
)
def test_a_package_from_a_foreign_index_is_named(tampered, manager, pattern, replacement):
    """Dependency confusion: everything but torch comes from the package index."""
    project = tampered(manager, FILES, pattern, replacement)
    assert re.search(r"tqdm \S+ comes from https://other.example/simple", said(project))


def test_a_file_from_another_host_is_named(tampered):
    """Also where the index is named as it should be: uv fetches the address, not the index."""
    pattern = block("tqdm") + r'(wheels = \[\s+\{ url = ")https://files\.pythonhosted\.org'
    project = tampered("uv", FILES, pattern, r"\1\2https://files.example")
    assert "is fetched from https://files.example/" in said(project)


@pytest.mark.parametrize(
    ("manager", "pattern"),
    [
        ("uv", block("torch") + r"[^\n]*manylinux_2_28_x86_64\.whl[^\n]*\n"),
        ("poetry", block("torch") + r"[^\n]*cp311-cp311-manylinux_2_28_x86_64\.whl[^\n]*\n"),
    ],
)
def test_a_platform_without_its_wheel_is_named(tampered, manager, pattern):
    """The lock has torch, for every machine but this kind."""
    project = tampered(manager, FILES, pattern, r"\1")
    assert "cuda linux-x86_64: torch 2.13.0 has no wheel for linux-x86_64" in said(project)


@pytest.mark.parametrize("manager", ["uv", "poetry"])
def test_a_file_of_another_package_is_named(tampered, manager):
    """Its hash may well be right."""
    pattern = block("tqdm") + r"tqdm-4\.70\.1-py3"
    project = tampered(manager, FILES, pattern, r"\1qmtd-4.70.1-py3")
    assert "tqdm 4.70.1 names qmtd-4.70.1-py3-none-any.whl" in said(project)


def test_a_source_that_is_no_index_is_named(tampered):
    """A git repository, with files that have hashes."""
    pattern = block("tqdm") + r'source = \{ registry = "[^"]+" \}'
    project = tampered("uv", FILES, pattern, r'\1source = { git = "https://git.example/tqdm" }')
    assert re.search(r"tqdm \S+ comes from \{'git': 'https://git.example/tqdm'\}", said(project))


@pytest.mark.parametrize(
    "line",
    ["-r other.txt", "--extra-index-url https://x.example", "-e .", " --index-url https://x"],
)
def test_an_option_in_a_lock_of_pip_is_refused(tampered, line):
    """Each would bring in what the lock does not hold."""
    project = tampered("pip", FILES, r"\A", f"{line}\n")
    assert "has no place in a lock" in said(project)


@pytest.mark.parametrize("line", ["tqdm @ https://x.example/tqdm.whl", "tqdm>=4", "./tqdm.whl"])
def test_a_requirement_that_is_not_exact_is_refused(tampered, line):
    """Addresses, ranges and paths."""
    project = tampered("pip", FILES, r"\A", f"{line}\n")
    assert "is not an exact version" in said(project)


@pytest.mark.parametrize(
    ("manager", "pattern", "replacement"),
    [
        ("pip", r"\A", f"nvidia-cudnn-cu13==9.20.0.48 --hash=sha256:{'0' * 64}\n"),
        (
            "uv",
            r'(source = \{ editable = "\." \}\ndependencies = \[\n)',
            r'\1    { name = "nvidia-cudnn-cu13" },\n',
        ),
        ("poetry", block("nvidia-cudnn-cu13") + r"markers = [^\n]+\n", r"\1"),
    ],
)
def test_a_cuda_library_in_the_cpu_environment_is_named(tampered, manager, pattern, replacement):
    """They are gigabytes that no laptop needs, and a sign of the wrong build."""
    project = tampered(manager, FILES, pattern, replacement)
    assert "cpu must hold no CUDA library, and has nvidia-cudnn-cu13" in said(project)


@pytest.mark.parametrize(
    ("library", "wrong", "complaint"),
    [
        ("nvidia-cudnn-cu13", "9.1.0.70", "nvidia-cudnn-cu13 is 9.1.0.70 and must be 9.20.0.48"),
        ("nvidia-nccl-cu13", "2.0.0", "nvidia-nccl-cu13 is 2.0.0 and must be 2.29.7"),
        ("nvidia-cuda-runtime", "12.6.77", "nvidia-cuda-runtime is 12.6.77 and must be of CUDA"),
    ],
)
@pytest.mark.parametrize("manager", FILES)
def test_another_cuda_library_is_named(tampered, manager, library, wrong, complaint):
    """cuDNN and NCCL are the row's, and the runtime is of its CUDA."""
    if manager == "pip":
        project = tampered(manager, CUDA_FILES, rf"^{library}==\S+", f"{library}=={wrong}")
    else:
        pattern = block(library) + r'version = "[^"]+"'
        project = tampered(manager, CUDA_FILES, pattern, rf'\1version = "{wrong}"')
    assert f"cuda linux-x86_64: {complaint}" in said(project)


def test_a_package_newer_than_the_cut_off_is_named(tampered):
    """Where the format has upload dates."""
    pattern = block("tqdm") + r'upload-time = "[^"]+"( \},?\n\])'
    project = tampered("uv", FILES, pattern, r'\1upload-time = "2027-01-01T00:00:00Z"\2')
    assert re.search(r"tqdm \S+ is of 2027-01-01, newer than 2026-11-20", said(project))


@pytest.mark.parametrize("manager", FILES)
@pytest.mark.parametrize("damage", ["", "garbage that is no lock\n", "\x00\xff"])
def test_a_damaged_lock_is_one_line(tampered, manager, damage):
    """No traceback, and no other file passes for a lock."""
    project = tampered(manager, FILES, r"\A.*\Z", damage)
    problems = said(project)
    assert problems
    done = subprocess.run(
        [sys.executable, project / "environment" / "check.py"], capture_output=True, text=True
    )
    assert done.returncode in (1, 2)
    assert all(line.startswith("error: ") for line in done.stderr.splitlines())


@pytest.mark.parametrize("manager", CHOICES["dependency_manager"])
def test_a_missing_lock_says_what_to_do(bake, manager):
    """Exit code 2: there is nothing to check."""
    project = bake(dependency_manager=manager, stack="torch-2.14.1-cu126", project_slug="probe")
    code, problems = check(project, "--environment", "cuda")
    assert code == 2
    assert "is missing: this environment is not locked yet" in str(problems)


def conda_lock(torch, **changes):
    """A lock in conda-lock's format with the project's direct dependencies, made up."""

    def entry(name, version, url):
        hashes = {"md5": "0" * 32, "sha256": "0" * 64}
        shared = {"platform": "linux-64", "dependencies": {}, "category": "main", "optional": False}
        return (
            {"name": name, "version": version, "manager": "conda", "url": url}
            | shared
            | {"hash": hashes}
        )

    channel = "https://conda.anaconda.org/conda-forge/linux-64"
    names = logic.pins("runtime", "dev") | {"numpy": "2.4.6"} | torch
    entries = [
        entry(logic.conda_name(n), v, f"{channel}/{logic.conda_name(n)}-{v}-h0_0.conda")
        for n, v in names.items()
    ]
    for each in entries:
        each.update(changes.get(each["name"], {}))
    return {"version": 1, "metadata": {"channels": [{"url": "conda-forge"}]}, "package": entries}


def test_a_conda_lock_is_read_and_checked(bake):
    """Against conda-lock's format 1: versions, channel, CUDA line, and a sha256 for each."""
    project = bake(dependency_manager="conda", stack=CUDA, project_slug="probe")
    torch = {"pytorch": "2.13.0", "pytorch-gpu": "2.13.0", "cuda-version": "13.0"}
    path = project / "cuda.conda-lock.yml"

    def verdict(**changes):
        path.write_text(yaml.safe_dump(conda_lock(torch, **changes)))
        return said(project, "--environment", "cuda")

    assert verdict() == ""
    assert "tqdm 4.70.1 has no sha256" in verdict(tqdm={"hash": {"md5": "0" * 32}})
    assert "torch is 2.9.1 and must be 2.13.0" in verdict(pytorch={"version": "2.9.1"})
    other = {"url": "https://repo.example/main/linux-64/tqdm-4.70.1-h0_0.conda"}
    assert "comes from https://repo.example/main and" in verdict(tqdm=other)
    assert "cuda-version is 12.9 and must be of CUDA 13.0" in verdict(
        **{"cuda-version": {"version": "12.9"}}
    )
    path.write_text("package: [\n")
    assert "is not YAML" in said(project, "--environment", "cuda")


def test_conda_files_are_collected_and_held_against_the_lock(bake, tmp_path):
    """`make wheelhouse` for a lock that names addresses: other bytes leave no file behind."""
    project = bake(dependency_manager="conda", stack="torch-2.13.0-cpu", project_slug="probe")
    content = b"a package"

    def answer(path):
        return (content, "application/octet-stream") if "tqdm" in path else None

    def collect(folder, digest):
        lock = conda_lock({})
        entry = next(e for e in lock["package"] if e["name"] == "tqdm")
        entry["hash"] = {"sha256": digest}
        (project / "cpu.conda-lock.yml").write_text(yaml.safe_dump({**lock, "package": [entry]}))
        command = [sys.executable, project / "environment" / "wheelhouse.py", "cpu", folder]
        environ = {**os.environ, "CONDA_CHANNEL": f"{address}/conda-forge"}
        return subprocess.run(command, env=environ, capture_output=True, text=True)

    with loopback(answer) as address:
        done = collect(tmp_path / "good", hashlib.sha256(content).hexdigest())
        assert done.returncode == 0, done.stderr
        (file,) = (tmp_path / "good").rglob("*.conda")
        assert file.read_bytes() == content
        done = collect(tmp_path / "bad", "0" * 64)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "is not the file that the lock names (sha256)" in done.stderr
    assert [path for path in (tmp_path / "bad").rglob("*") if path.is_file()] == []


def test_a_pixi_lock_is_read_and_checked(bake):
    """Against pixi's format 6: an environment takes what it names on each platform."""
    project = bake(dependency_manager="pixi", stack="torch-2.13.0-cpu", project_slug="probe")
    channel = "https://conda.anaconda.org/conda-forge"
    names = logic.pins("runtime", "dev") | {"numpy": "2.4.6", "pytorch": "2.13.0"}
    subdirs = ("linux-64", "linux-aarch64", "osx-arm64")
    urls = {
        subdir: [
            f"{channel}/{subdir}/{logic.conda_name(n)}-{v}-h0_0.conda" for n, v in names.items()
        ]
        for subdir in subdirs
    }
    packages = [
        {"conda": url, "sha256": "0" * 64, "md5": "0" * 32}
        for each in urls.values()
        for url in each
    ]
    chosen = {subdir: [{"conda": url} for url in each] for subdir, each in urls.items()}
    lock = {"version": 6, "environments": {"cpu": {"packages": chosen}}, "packages": packages}
    path = project / "pixi.lock"
    path.write_text(yaml.safe_dump(lock))
    assert said(project) == ""
    packages[0].pop("sha256")
    path.write_text(yaml.safe_dump(lock))
    assert re.search(r"cpu linux-x86_64: \S+ \S+ has no sha256", said(project))
    chosen["linux-64"] = chosen["linux-64"][:-1]
    path.write_text(yaml.safe_dump(lock))
    assert "torch is not in it" in said(project)


@pytest.mark.parametrize("manager", CHOICES["dependency_manager"])
def test_every_manager_brings_its_part(manager):
    """Adding one is a folder: how it locks, how it installs, how its lock is read."""
    folder = ROOT / "{{cookiecutter.project_slug}}" / "_overlays" / "dependency_manager" / manager
    for name in ("environment.mk", "environment/lockfile.py", "environment/manager.py"):
        assert (folder / name).is_file()
