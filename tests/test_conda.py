"""conda's and pixi's files in the hands of their own library: specs parse, solve and lock.

The channel is made up, so this proves that the files agree with each other and with their format;
that the real channel has these packages it cannot prove.
"""

import asyncio
import json
import subprocess
import sys
import tomllib

import pytest
import rattler
import yaml
from conftest import CHOICES

import template_logic as logic

CHANNEL = "https://conda.anaconda.org/conda-forge"
STACK = "torch-2.13.0-cu130"
SUBDIRS = ("linux-64", "linux-aarch64", "osx-arm64")


@pytest.fixture(scope="module")
def channel(tmp_path_factory):
    """A channel with exactly the packages that a project of `STACK` names, for every platform."""
    folder = tmp_path_factory.mktemp("channel") / "conda-forge"
    row = logic.stack(STACK)
    pins = logic.pins("runtime", "dev", "notebook") | {"numpy": row["numpy"], "pip": "26.0"}
    versions = {logic.conda_name(name): version for name, version in pins.items()}
    versions |= {"python": logic.python("3.12"), "pytorch": row["torch"], "cuda-version": "13.0"}
    depends = {
        "pytorch-cpu": [f"pytorch =={row['torch']}"],
        "pytorch-gpu": [f"pytorch =={row['torch']}", "__cuda", "cuda-version >=13.0,<14"],
    }
    versions |= dict.fromkeys(depends, row["torch"])
    for subdir in (*SUBDIRS, "noarch"):
        records = {
            f"{name}-{version}-h0_0.conda": {
                "name": name,
                "version": version,
                "build": "h0_0",
                "build_number": 0,
                "depends": depends.get(name, []),
                "sha256": "0" * 64,
                "md5": "0" * 32,
                "subdir": subdir,
                "size": 1,
            }
            for name, version in versions.items()
            if subdir != "noarch"
        }
        (folder / subdir).mkdir(parents=True)
        content = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": records}
        (folder / subdir / "repodata.json").write_text(json.dumps(content))
    return folder


def solve(channel, specs, subdir, cuda=None):
    """What the solver chooses for `specs`; `cuda` is what a driver would offer."""
    virtual = []
    if cuda:
        name, build = rattler.PackageName("__cuda"), rattler.BuildString("0")
        virtual = [rattler.GenericVirtualPackage(name, rattler.Version(cuda), build)]
    return asyncio.run(
        rattler.solve(
            sources=[rattler.Channel(channel.as_uri())],
            specs=[rattler.MatchSpec(spec, strict=True) for spec in specs],
            platforms=[rattler.Platform(subdir), rattler.Platform("noarch")],
            virtual_packages=virtual,
        )
    )


def specs_of(project, environment):
    """The specs of `environment.*.yml`, without those of pip."""
    content = yaml.safe_load((project / f"environment.{environment}.yml").read_text())
    assert content["channels"] == ["conda-forge", "nodefaults"]
    return [spec for spec in content["dependencies"] if isinstance(spec, str)]


@pytest.mark.parametrize("stack", [s for s in CHOICES["stack"] if s.startswith("torch-")])
def test_every_spec_of_conda_and_pixi_parses(bake, stack):
    """Strictly, as the library that pixi is made of reads them."""
    project = bake(dependency_manager="conda", stack=stack, project_slug="probe")
    for path in project.glob("environment.*.yml"):
        for spec in specs_of(project, path.name.split(".")[1]):
            assert rattler.MatchSpec(spec, strict=True).name is not None
    project = bake(dependency_manager="pixi", stack=stack, project_slug="probe")
    content = tomllib.loads((project / "pixi.toml").read_text())
    tables = [content, *content["feature"].values()]
    for table in tables:
        for name, version in table.get("dependencies", {}).items():
            assert rattler.MatchSpec(f"{name} {version}", strict=True).name is not None


def test_conda_gets_cuda_for_a_machine_with_a_driver_and_only_for_it(bake, channel):
    """`virtual-packages.cuda.yml` is what makes it solvable where no GPU is."""
    project = bake(
        dependency_manager="conda", stack=STACK, python_version="3.12", project_slug="probe"
    )
    declared = yaml.safe_load((project / "virtual-packages.cuda.yml").read_text())
    cuda = declared["subdirs"]["linux-64"]["packages"]["__cuda"]
    specs = specs_of(project, "cuda")
    names = {record.name.normalized for record in solve(channel, specs, "linux-64", cuda)}
    assert {"pytorch", "pytorch-gpu", "cuda-version", "python", "numpy"} <= names
    with pytest.raises(Exception, match="__cuda"):
        solve(channel, specs, "linux-64")
    for subdir in SUBDIRS:
        names = {r.name.normalized for r in solve(channel, specs_of(project, "cpu"), subdir)}
        assert "pytorch-cpu" in names
        assert not names & {"pytorch-gpu", "cuda-version"}


def test_a_lock_that_pixis_library_writes_is_read_and_holds(bake, channel):
    """Both environments, each platform, solved from `pixi.toml`; the lock check finds no fault."""
    project = bake(
        dependency_manager="pixi", stack=STACK, python_version="3.12", project_slug="probe"
    )
    manifest = tomllib.loads((project / "pixi.toml").read_text())
    lock = rattler.LockFile([rattler.LockPlatform(subdir) for subdir in SUBDIRS])
    for environment in ("cpu", "cuda"):
        feature = manifest["feature"][environment]
        wanted = manifest["dependencies"] | feature["dependencies"]
        specs = [f"{name} {version}" for name, version in wanted.items()]
        cuda = feature.get("system-requirements", {}).get("cuda")
        lock.set_channels(environment, [rattler.LockChannel(CHANNEL)])
        for subdir in feature.get("platforms", SUBDIRS):
            for record in solve(channel, specs, subdir, cuda and f"{cuda}.0"):
                lock.add_conda_package(environment, rattler.LockPlatform(subdir), record)
    lock.to_path(project / "pixi.lock")
    text = (project / "pixi.lock").read_text().replace(str(channel), CHANNEL)
    (project / "pixi.lock").write_text(text)
    command = [sys.executable, project / "environment" / "check.py"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("holds") == 4  # cuda on one platform, cpu on three
