"""`make setup` of a real project: once, from a folder without a network, and what can go wrong."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import pytest
from conftest import REAL_CUDA_STACK, REAL_STACK, make

import template_logic as logic
from tools import demo

pytestmark = pytest.mark.real
TORCH = logic.stack(REAL_STACK)["torch"]
OFFLINE = {  # nothing that a manager asks for could be had
    "UV_OFFLINE": "1",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": "",
}


@pytest.fixture(scope="module")
def project(baked_real, tmp_path_factory):
    """Set up with uv, its lock as shipped; `wheelhouse` holds what the lock names."""
    made = baked_real(dependency_manager="uv", project_slug="real-setup").path
    with demo.local_torch(made, TORCH, locks=False):
        make(made, "setup")
        make(made, "wheelhouse")
    return made


def setup(project, *arguments, env=None, **options):
    """`make setup` as a user runs it, from the folder of wheels, with no network."""
    command = ["make", "setup", "ACCELERATOR=cpu", f"PYTHON={sys.executable}", *arguments]
    environ = {**demo.environment(), **OFFLINE, **(env or {})}
    options = {"capture_output": True, "text": True, **options}
    return subprocess.run(command, cwd=project, env=environ, **options)


def works(project):
    """The environment that is named `.venv` can do what it is for."""
    python = project / ".venv" / "bin" / "python"
    done = subprocess.run([python, "-c", "import torch; print(torch.__version__)"])
    return done.returncode == 0


@pytest.fixture
def changed(project):
    """A project whose environment has to be made again; its files come back afterwards."""
    kept = {name: (project / name).read_bytes() for name in ("pyproject.toml", "uv.lock")}
    text = kept["pyproject.toml"].decode()
    note = f'[tool.repro]\nnote = "{time.time_ns()}"\n'
    (project / "pyproject.toml").write_text(text.replace("[tool.repro]\n", note))
    before = made_of(project), installed(project)
    yield project
    for name, content in kept.items():
        (project / name).write_bytes(content)
    # Whatever happened: the environment from before is whole, and nothing half-made is left.
    assert (made_of(project), installed(project)) == before
    done = setup(project)
    assert (done.returncode, done.stderr) == (0, "")
    assert "uv pip install" not in done.stdout


def installed(project):
    """Each installed file and its size."""
    lib = project / ".venv" / "lib"
    files = (path for path in lib.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path.relative_to(lib)): path.stat().st_size for path in files}


def made_of(project):
    """The environments by what they are made of; each may be in one of two folders."""
    return {name.removesuffix("-again") for name in folders(project)}


def folders(project):
    return {path.name for path in (project / ".envs").glob("cpu-*")}


def one_line(done):
    """The only line on stderr that is ours; nothing of a traceback is there."""
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def edit(path, pattern, replacement):
    text = path.read_text()
    after, count = re.subn(pattern, replacement, text, count=1, flags=re.DOTALL)
    assert count == 1
    path.write_text(after)


def test_a_second_setup_has_nothing_to_do(project):
    """It says what is there, and starts no manager: there need not even be a network."""
    done = setup(project)
    assert done.returncode == 0, done.stderr
    assert "uv sync" not in done.stdout
    assert f"torch {TORCH}+cpu, CPU build; no GPU needed" in done.stdout


def test_a_foreign_package_is_taken_out_again(project, tmp_path):
    """What is installed beside the lock is no part of the environment: it is made again.

    If that fails, the one with the foreign package is still there to work with.
    """
    site = next((project / ".venv" / "lib").glob("python3*/site-packages"))
    (site / "stray-1.0.dist-info").mkdir()
    (site / "stray-1.0.dist-info" / "METADATA").write_text("Name: stray\nVersion: 1.0\n")
    one_line(setup(project, f"WHEELHOUSE={tmp_path}"))  # no wheel in it
    assert works(project)
    assert (site / "stray-1.0.dist-info").is_dir()
    done = setup(project, "WHEELHOUSE=wheelhouse")
    assert done.returncode == 0, done.stderr
    assert "uv pip install" in done.stdout
    assert len(folders(project)) == 1
    assert not list((project / ".venv" / "lib").glob("python3*/site-packages/stray*"))
    assert works(project)


def copy_of_wheels(project, tmp_path):
    """A folder of wheels that a test may spoil."""
    folder = tmp_path / "wheels"
    shutil.copytree(project / "wheelhouse", folder, copy_function=os.link)
    return folder, next(folder.glob("tqdm-*.whl"))


def test_a_wheel_with_other_content_is_refused(changed, tmp_path):
    """A whole, well-formed wheel of the right name, whose bytes are not the lock's."""
    folder, wheel = copy_of_wheels(changed, tmp_path)
    other = tmp_path / wheel.name
    shutil.copy(wheel, other)
    with zipfile.ZipFile(other, "a") as archive:
        archive.writestr("tqdm/stowaway.py", "print('here')\n")
    other.replace(wheel)
    line = one_line(setup(changed, f"WHEELHOUSE={folder}"))
    assert "a file is not the one that the lock names (sha256): tqdm==" in line


def test_a_damaged_wheel_is_refused(changed, tmp_path):
    """Cut off half-way, as by a broken download."""
    folder, wheel = copy_of_wheels(changed, tmp_path)
    content = wheel.read_bytes()
    wheel.unlink()
    wheel.write_bytes(content[: len(content) // 2])
    assert "uv failed: " in one_line(setup(changed, f"WHEELHOUSE={folder}"))


def test_a_wheel_that_is_missing_is_named(changed, tmp_path):
    """The folder must hold everything that the lock names."""
    folder, wheel = copy_of_wheels(changed, tmp_path)
    wheel.unlink()
    line = one_line(setup(changed, f"WHEELHOUSE={folder}"))
    assert "tqdm" in line


def test_a_folder_that_is_not_there_is_named(changed):
    """With the command that fills one."""
    line = one_line(setup(changed, "WHEELHOUSE=nowhere"))
    assert line == "error: WHEELHOUSE=nowhere is no folder; make wheelhouse fills one"


def test_a_hash_edited_by_hand_is_refused(changed):
    """One digit of one sha256."""
    pattern = r'(name = "tqdm"\n.*?whl", hash = "sha256:)(.)'
    edit(changed / "uv.lock", pattern, lambda m: m[1] + ("0" if m[2] != "0" else "1"))
    line = one_line(setup(changed, "WHEELHOUSE=wheelhouse"))
    assert "a file is not the one that the lock names (sha256): tqdm==" in line


def test_a_version_edited_by_hand_is_refused_before_anything_is_fetched(changed):
    """The lock no longer fits `pyproject.toml`."""
    edit(changed / "uv.lock", r'(name = "tqdm"\nversion = )"[^"]+"', r'\1"1.0.0"')
    done = setup(changed, "WHEELHOUSE=wheelhouse")
    assert "older than pyproject.toml: it has tqdm 1.0.0; run make lock" in one_line(done)
    assert done.returncode == 2
    assert "uv " not in done.stdout.split("environment/setup.py", 1)[1]


def test_an_index_that_cannot_be_reached_is_named(changed):
    """Here a mirror that is not there."""
    mirrors = {
        "PACKAGE_INDEX": "http://127.0.0.1:9/simple",
        "PYTORCH_INDEX_CPU": "http://127.0.0.1:9/cpu",
        "UV_OFFLINE": "0",
        "UV_HTTP_RETRIES": "0",
        "UV_CACHE_DIR": str(changed / ".envs" / "no-cache"),
    }
    line = one_line(setup(changed, env=mirrors))
    shutil.rmtree(changed / ".envs" / "no-cache", ignore_errors=True)
    assert "an index cannot be reached" in line


def test_a_full_disk_is_named(changed):
    """A disk of 60 MB, as far as this machine lets a test have one; else as uv reports it."""
    small = "mount -t tmpfs -o size=60m none .envs && "
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*unshare, f"{small} true"], cwd=changed, capture_output=True).returncode:
        tool = changed / ".envs" / "tools" / "uv"
        tool.parent.mkdir()
        tool.write_text(
            "#!/bin/sh\ncase $1 in --version) echo uv 0.13.9;; "
            "*) echo 'error: No space left on device (os error 28)' >&2; exit 2;; esac\n"
        )
        tool.chmod(0o755)
        path = f"{tool.parent}{os.pathsep}{demo.environment()['PATH']}"
        done = setup(changed, "WHEELHOUSE=wheelhouse", env={"PATH": path})
        shutil.rmtree(tool.parent)
    else:
        command = f"make setup ACCELERATOR=cpu PYTHON={sys.executable} WHEELHOUSE=wheelhouse"
        done = subprocess.run(
            [*unshare, small + command],
            cwd=changed,
            env={**demo.environment(), **OFFLINE, "UV_LINK_MODE": "copy"},
            capture_output=True,
            text=True,
        )
    assert "the disk is full" in one_line(done)


def test_what_it_wrote_down_may_be_damaged(project):
    """Its own notes in the environment are no more trusted than the rest: it is made again."""
    for name, content in (
        ("framework.json", b"{"),
        ("framework.json", b"{}"),
        (".complete", b"\xff\xfe"),
    ):
        (project / ".venv" / name).write_bytes(content)
        done = setup(project, "WHEELHOUSE=wheelhouse")
        assert (done.returncode, done.stderr) == (0, "")
        assert "uv pip install" in done.stdout
    assert works(project)


def test_a_copy_of_the_project_has_an_environment_of_its_own(project, tmp_path):
    """Environments hold absolute paths: the copy must not run the code of the original."""
    copy = tmp_path / "a copy"
    shutil.copytree(project, copy, symlinks=True, ignore=shutil.ignore_patterns("wheelhouse"))
    done = setup(copy, f"WHEELHOUSE={project / 'wheelhouse'}")
    assert done.returncode == 0, done.stderr
    code = "import real_setup; print(real_setup.__file__)"
    command = [copy / ".venv" / "bin" / "python", "-c", code]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(str(copy))


def test_a_folder_of_the_users_own_is_put_aside(project):
    """A `.venv` that is no link was made by somebody."""
    link = project / ".venv"
    target = link.readlink()
    link.unlink()
    link.mkdir()
    (link / "mine").write_text("kept")
    done = setup(project)
    assert done.returncode == 0, done.stderr
    assert link.readlink() == target
    assert (project / ".venv-before" / "mine").read_text() == "kept"
    shutil.rmtree(project / ".venv-before")


def test_a_range_that_the_lock_does_not_fit_is_refused(changed):
    """Not told before the environment is there, and told before it is named."""
    edit(changed / "pyproject.toml", r'"tqdm==[^"]+"', '"tqdm<4"')
    line = one_line(setup(changed, "WHEELHOUSE=wheelhouse"))
    assert "older than pyproject.toml: it has tqdm" in line


def test_a_lock_that_lost_a_package_is_refused(changed):
    """What an installed package needs and the lock lacks, as after a bad merge."""
    edit(changed / "uv.lock", r'    \{ name = "contourpy"[^\n]*\n', "")
    line = one_line(setup(changed, "WHEELHOUSE=wheelhouse"))
    assert "matplotlib needs contourpy, which the lock does not have" in line


def test_a_setup_that_was_killed_is_made_again(changed):
    """SIGKILL half-way; what is there is not taken for whole, and the next one succeeds."""
    before = folders(changed)
    command = ["make", "setup", "ACCELERATOR=cpu", f"PYTHON={sys.executable}"]
    running = subprocess.Popen(
        [*command, "WHEELHOUSE=wheelhouse"],
        cwd=changed,
        env={**demo.environment(), **OFFLINE},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (started := folders(changed) - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(1)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert started
    half_made = changed / ".envs" / started.pop()
    assert not (half_made / ".complete").exists()
    assert works(changed)  # the one from before
    done = setup(changed, "WHEELHOUSE=wheelhouse")
    assert done.returncode == 0, done.stderr
    assert (half_made / ".complete").is_file()
    assert folders(changed) == {half_made.name}
    # Back to the lock from before, which `changed` expects.
    kept = (changed / "pyproject.toml").read_text()
    edit(changed / "pyproject.toml", r'note = "\d+"\n', "")
    assert setup(changed, "WHEELHOUSE=wheelhouse").returncode == 0
    (changed / "pyproject.toml").write_text(kept)


def test_two_at_once_do_not_meet(changed):
    """The second says so and touches nothing."""
    lock = changed / ".envs" / ".lock"
    holder = (
        "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", holder, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    first.stdout.readline()
    line = one_line(setup(changed, "WHEELHOUSE=wheelhouse"))
    first.communicate()
    assert line == "error: another make setup is at work in this project"


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ("uv 0.4.30", "uv is 0.4.30; this project needs 0.11 or newer"),
        ("what?", "uv --version names no version"),
    ],
)
def test_another_version_of_the_manager_is_refused(changed, tmp_path, answer, complaint):
    """Before it could misread the lock."""
    tool = tmp_path / "uv"
    tool.write_text(f"#!/bin/sh\necho '{answer}'\n")
    tool.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{demo.environment()['PATH']}"
    assert complaint in one_line(setup(changed, env={"PATH": path}))


DEAF = """#!/bin/sh
# A uv that hears no signal, and that writes into the environment until a file says that it may end.
case "$1 $2" in
"pip install")
    trap "" INT TERM
    until [ -e "$0.may-end" ]; do
        mkdir -p "${4%/*}/written"
        sleep 0.1
    done
    exit 1 ;;
*) exec UV "$@" ;;
esac
"""


def installing(project, tool=None):
    """A set-up, alone in its process, once uv installs into the new environment."""
    path = demo.environment()["PATH"]
    environ = {**demo.environment(), **OFFLINE}
    if tool:
        tool.write_text(DEAF.replace("UV", shutil.which("uv", path=path)))
        tool.chmod(0o755)
        environ["PATH"] = f"{tool.parent}{os.pathsep}{path}"
    command = [sys.executable, "environment/setup.py", "cpu", "--wheelhouse", "wheelhouse"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = subprocess.Popen(command, cwd=project, env=environ, **pipes)
    for line in running.stdout:
        if line.startswith("uv pip install"):
            break
    deadline = time.monotonic() + 60
    while tool and not list((project / ".envs").glob("cpu-*/bin/written")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return running


@pytest.mark.parametrize(
    ("number", "deaf"), [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGINT, True)]
)
def test_ctrl_c_and_sigterm_leave_what_was_there(changed, tmp_path, number, deaf):
    """One line, exit code 130 of the script; nor does uv write on into what was removed.

    The signal comes to the set-up alone, as from `kill`.
    """
    running = installing(changed, tmp_path / "uv" if deaf else None)
    running.send_signal(number)
    _, errors = running.communicate()
    assert running.returncode == 130
    assert errors.splitlines() == [
        "error: stopped; the environment that was there before is as it was"
    ]
    time.sleep(0.5)  # in which a uv that was still there would write


def test_a_manager_that_outlives_its_setup_keeps_the_next_one_out(changed, tmp_path):
    """SIGKILL to the set-up alone: the next one does not build where uv still writes."""
    tool = tmp_path / "uv"
    running = installing(changed, tool)
    running.kill()
    running.wait()
    line = one_line(setup(changed, "WHEELHOUSE=wheelhouse"))
    tool.with_name("uv.may-end").touch()
    running.communicate()  # uv has the pipe
    assert line == "error: another make setup is at work in this project"
    edit(changed / "pyproject.toml", r'note = "\d+"\n', "")
    assert setup(changed).returncode == 0  # and what was half-made is gone


def test_a_machine_without_a_driver_is_told_before_anything_is_fetched(baked_real, tmp_path):
    """That gigabytes would train on the CPU, what to type instead, and how to keep it so."""
    project = baked_real(
        stack=REAL_CUDA_STACK, dependency_manager="pip", project_slug="real-gpu"
    ).path
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    driver.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{demo.environment()['PATH']}"
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "capture_output": False}
    given = ["ACCELERATOR=cuda", f"WHEELHOUSE={tmp_path}"]
    said = setup(project, *given, env={"PATH": path}, **both).stdout
    warning = "make setup ACCELERATOR=cpu needs about 1.5 GB, and ACCELERATOR=cpu in .env makes it"
    assert said.index(warning) < said.index("-m pip install")
    assert "error: " in said
