"""Images that are really built: repeatable, bare, and the same bits inside as outside."""

import json
import os
import platform
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import lent
import pytest
from boxes import (
    bits,
    docker,
    in_image,
    make,
    prepare,
    the_run,
)
from conftest import REAL_STACK

import template_logic as logic
from tools import pytorch_index
from tools.stand_ins import OVERRIDE

pytestmark = pytest.mark.containers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("manager", "stack", "user"),
    [("uv", REAL_STACK.replace("cpu", "cu130"), 4321), ("poetry", REAL_STACK, 1000)],
)
def test_other_managers_build_an_image_that_trains_and_verifies(
    baked_real, containers, tmp_path, manager, stack, user
):
    """From their own locks, by the same stages; for a stack with CUDA, and as another user, too."""
    project = baked_real(
        dependency_manager=manager, stack=stack, project_slug=f"boxed-{manager}"
    ).path
    prepare(project)
    arguments = ["docker", "ACCELERATOR=cpu", "DOCKER_ARGS=--network=host"]
    numbers = {"HOST_UID": str(user), "HOST_GID": str(user)}
    make(project, *arguments, environ={**containers, **numbers})
    outputs = tmp_path / "outputs"
    own = SimpleNamespace(image=f"boxed-{manager}:cpu", environ=containers, user=user)
    in_image(own, "train.py", "--config", "configs/smoke.yaml", outputs=outputs)
    done = in_image(own, "-m", f"boxed_{manager}", "verify", outputs=outputs)
    assert done.stdout.splitlines()[-1] == "IDENTICAL"
    assert the_run(outputs).stat().st_uid == user
    docker("image", "rm", own.image, environ=containers)


@pytest.mark.slow
def test_the_image_of_the_other_framework_gives_the_same_bits_inside_and_outside(
    baked_real, containers, tmp_path
):
    """TensorFlow's: trained and verified in it, and verified by this machine's environment."""
    stack = "tensorflow-2.21.0-cpu"
    project = baked_real(dependency_manager="pip", stack=stack, project_slug="boxed-tf").path
    prepare(project)
    arguments = ["docker", "ACCELERATOR=cpu", "DOCKER_ARGS=--network=host"]
    make(project, *arguments, environ=containers)
    own = SimpleNamespace(image="boxed-tf:cpu", environ=containers)
    outputs = tmp_path / "outputs"
    in_image(own, "train.py", "--config", "configs/smoke.yaml", outputs=outputs)
    done = in_image(own, "-m", "boxed_tf", "verify", outputs=outputs)
    assert done.stdout.splitlines()[-1] == "IDENTICAL"
    docker("image", "rm", own.image, environ=containers)
    lent.set_up(project)
    verify = [project / ".venv/bin/python", "-m", "boxed_tf", "verify", the_run(outputs)]
    done = subprocess.run(verify, cwd=project, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "IDENTICAL", done.stderr


def test_the_image_trains_as_an_ordinary_user_and_verifies(built, tmp_path):
    """Not root, its code read-only; the second time the bits are the same."""
    outputs = tmp_path / "outputs"
    in_image(built, "train.py", "--config", "configs/baseline.yaml", outputs=outputs)
    done = in_image(built, "-m", "boxed", "verify", outputs=outputs)
    assert done.stdout.splitlines()[-1] == "IDENTICAL"
    assert the_run(outputs).stat().st_uid == 1000
    probe = "import os; print(os.getuid()); open('/app/train.py', 'a')"
    refused = in_image(built, "-c", probe, outputs=outputs, check=False)
    assert refused.stdout == "1000\n"
    assert "Permission denied: '/app/train.py'" in refused.stderr


def test_inside_and_outside_give_the_same_bits(built, environment, tmp_path):
    """A run in the image and one of this machine's environment; what differs is named."""
    outputs = tmp_path / "outputs"
    in_image(built, "train.py", "--config", "configs/baseline.yaml", outputs=outputs)
    inside = the_run(outputs)
    python = built.project / ".venv/bin/python"
    outside = tmp_path / "outside"
    train = [python, "train.py", "--config", "configs/baseline.yaml", "--run-dir", outside]
    subprocess.run(train, cwd=built.project, env=environment, check=True, capture_output=True)
    compare = [python, "-m", "boxed", "compare", inside, outside, "--json"]
    done = subprocess.run(compare, cwd=built.project, capture_output=True, text=True)
    answer = json.loads(done.stdout)
    assert answer["identical"] is True
    # pip comes with a virtual environment and has no place in the image; the C library may differ.
    assert {c["key"] for c in answer["causes"]} <= {"packages.pip", "platform"}


def test_the_image_runs_read_only_as_a_user_whom_it_does_not_know(built, tmp_path):
    """As clusters run it (Apptainer, a hardened Kubernetes): only the outputs are writable."""
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    os.chown(outputs, 4321, 4321)
    options = ["run", "--rm", "--read-only", "--tmpfs", "/tmp", "--user", "4321:4321"]
    options += ["--cap-drop", "ALL", "--volume", f"{outputs}:/app/outputs", built.image]
    train = ["train.py", "--config", "configs/smoke.yaml", "data.num_workers=2"]
    docker(*options, *train, environ=built.environ)
    done = docker(*options, "-m", "boxed", "verify", environ=built.environ)
    assert done.stdout.splitlines()[-1] == "IDENTICAL"


def test_the_image_holds_nothing_that_builds(built):
    """No compiler, no pip of either Python, no uv, no repository, no tests."""
    names = "gcc cc uv pip git make curl"
    shell = f"for each in {names}; do command -v $each; done; ls -A /app"
    shell += "; find / -path /proc -prune -o -name 'pip*' -path '*/bin/*' -print"
    shell += "; for python in /opt/venv/bin/python /opt/python/*/bin/python3; do"
    shell += " $python -m pip --version && echo /bin/; done; true"
    done = docker(
        "run", "--rm", "--entrypoint", "sh", built.image, "-c", shell, environ=built.environ
    )
    assert not set(done.stdout.split()) & {".git", ".env", "Dockerfile", "tests"}
    assert "train.py" in done.stdout.split()
    assert done.stderr.count("No module named pip") >= 2
    assert "/bin/" not in done.stdout


def test_the_image_says_what_it_is(built, tmp_path):
    """Revision, date and lock in the labels; a run in it records the same."""
    done = docker("inspect", built.image, environ=built.environ)
    (facts,) = json.loads(done.stdout)
    labels = facts["Config"]["Labels"]
    git = ["git", "-C", str(built.project), "log", "-1", "--format=%H %ct"]
    sha, seconds = subprocess.check_output(git, text=True).split()
    assert labels["org.opencontainers.image.revision"] == sha
    created = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(seconds)))
    assert labels["org.opencontainers.image.created"] == f"{created}+00:00"
    assert facts["Created"].startswith(created)
    assert labels["repro.python"] == platform.python_version()
    inside = docker("run", "--rm", built.image, "-V", environ=built.environ).stdout
    assert inside.split()[1] == labels["repro.python"]
    assert labels["repro.stack"] == REAL_STACK
    assert labels["repro.torch"] == logic.stack(REAL_STACK)["torch"]
    outputs = tmp_path / "outputs"
    in_image(built, "train.py", "--config", "configs/smoke.yaml", outputs=outputs)
    manifest = json.loads((the_run(outputs) / "manifest.json").read_text())
    assert manifest["environment"]["lock_sha256"] == labels["repro.lock-sha256"]
    assert manifest["code"]["commit"] == sha
    assert manifest["code"]["dirty"] is False


def test_a_change_of_code_installs_nothing_again(built):
    """Only the last layer is new, and the run knows that its code is no commit's."""
    model = built.project / "src/boxed/model.py"
    text = model.read_text()
    model.write_text(f"{text}\n# a change\n")
    arguments = [built.args, "ACCELERATOR=cpu"]
    command = ["make", "docker", *arguments, f"PYTHON={sys.executable}"]
    done = subprocess.run(
        command, cwd=built.project, env=built.environ, capture_output=True, text=True
    )
    model.write_text(text)
    steps = dict(re.findall(r"^#(\d+) \[(environment \d)", done.stdout, re.MULTILINE))
    assert len(steps) == 2, done.stdout
    cached = set(re.findall(r"^#(\d+) CACHED", done.stdout, re.MULTILINE))
    assert set(steps) <= cached
    label = '{{index .Config.Labels "org.opencontainers.image.revision"}}'
    said = docker("inspect", "--format", label, built.image, environ=built.environ).stdout
    assert said.strip().endswith("-dirty")
    make(built.project, "docker", *arguments, environ=built.environ)


def test_a_lock_that_was_edited_is_refused_while_building(built, tmp_path):
    """One digit of a hash: one line that says which package is not the lock's."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", built.project, clone], check=True)
    lock = clone / "requirements/cpu.txt"
    hashes = re.search(r"^tqdm==(?:.*\\\n)+.*$", lock.read_text(), re.MULTILINE)[0]
    other = re.sub(r"(sha256:)(.)", lambda m: m[1] + ("1" if m[2] == "0" else "0"), hashes)
    lock.write_text(lock.read_text().replace(hashes, other))
    said = make(clone, "docker", built.args, "ACCELERATOR=cpu", environ=built.environ, fails=True)
    assert said == "error: a file is not the one that the lock names (sha256): tqdm==4.70.1"


def test_a_commit_built_again_is_the_same_image_and_no_layer_has_a_password(built, tmp_path):
    """From a fresh clone, without the cache, from an index that wants a password: refused without
    it; with it the digest is the one from before, layers, dates and all."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", built.project, clone], check=True)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login reader password s3cret-word\n")
    inspect = ["inspect", "--format", "{{.Id}}", built.image]
    before = docker(*inspect, environ=built.environ).stdout
    with pytorch_index.serve_pypi("2999-01-01", login="reader:s3cret-word") as address:
        environ = {**built.environ, "PACKAGE_INDEX": address}
        arguments = ["docker", "ACCELERATOR=cpu"]
        make(clone, *arguments, built.args, environ=environ, fails=True)
        secret = f"{built.args} --no-cache --secret id=netrc,src={netrc}"
        said = make(clone, *arguments, secret, environ=environ)
    assert "s3cret-word" not in said
    assert docker(*inspect, environ=built.environ).stdout == before


def test_the_editors_container_is_the_trainer(built, tmp_path):
    """The development container's compose files start, see this folder, and `make` works there."""
    environ = {**built.environ, "ACCELERATOR": "cpu"}
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", built.project, clone], check=True)
    (clone / "compose.override.yaml").write_text(OVERRIDE)
    files = ["compose.yaml", "compose.override.yaml", ".devcontainer/compose.yaml"]
    compose = ["compose", *(word for name in files for word in ("--file", name))]
    facts = json.loads((clone / ".devcontainer/devcontainer.json").read_text())
    subprocess.run(facts["initializeCommand"], shell=True, cwd=clone, check=True)
    subprocess.run(["chown", "-R", "1000:1000", clone], check=True)
    docker(*compose, "build", "trainer", environ=environ, cwd=clone)
    options = ["run", "--rm", "--no-deps", "--entrypoint", "make", "trainer"]
    lint = docker(*compose, *options, "lint", environ=environ, cwd=clone)
    assert "All checks passed!" in lint.stdout
    train = ["train", "verify", "CONFIG=configs/smoke.yaml"]
    done = docker(*compose, *options, *train, environ=environ, cwd=clone)
    assert done.stdout.splitlines()[-1] == "IDENTICAL"
    docker(*compose, "--profile", "train", "down", environ=environ, cwd=clone)
    docker("image", "rm", "boxed-dev:cpu", environ=environ)


def test_a_folder_that_is_not_the_users_is_said_inside_too(built, tmp_path):
    """A container started by hand: one line, exit code 2, nothing written."""
    (tmp_path / "outputs").mkdir(mode=0o755)
    mount = f"{tmp_path}/outputs:/app/outputs"
    command = ["train.py", "--config", "configs/smoke.yaml"]
    options = ["run", "--rm", "--volume", mount, built.image]
    done = docker(*options, *command, environ=built.environ, check=False)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Permission denied" in errors[0]
    assert "user 1000" in errors[0]


def test_a_full_disk_loses_no_step_that_was_saved(built, tmp_path):
    """A real full one: one line, exit code 1; with room again the run ends in the same bits."""
    whole, small = tmp_path / "whole", tmp_path / "small"
    command = ["train.py", "--config", "configs/smoke.yaml", "record.checkpoint_every=1"]
    command += ["training.num_epochs=40", "record.keep_checkpoints=100"]
    in_image(built, *command, outputs=whole)
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,uid=1000,gid=1000", "tmpfs", str(small)]
    subprocess.run(mount, check=True)
    try:
        done = in_image(built, *command, outputs=small, check=False)
        assert done.returncode == 1, done.stderr[-2000:]
        run = f"outputs/{the_run(small).name}"
        advice = f"No space left on device for {run}; make room, then resume with train --resume"
        assert f"error: {advice} {run}" in re.sub(r"\[Errno \d+\] ", "", done.stderr)
        assert "Traceback" not in done.stderr
        subprocess.run(["mount", "-o", "remount,size=100m", str(small)], check=True)
        run = the_run(small)
        in_image(built, "train.py", "--resume", f"outputs/{run.name}", outputs=small)
        assert bits(run) == bits(the_run(whole))
    finally:
        subprocess.run(["umount", str(small)], check=True)
