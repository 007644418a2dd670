"""The parts of `make setup` and `make lock-check`: markers, reasons, drivers, hashed files."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT
from packaging import tags
from packaging.markers import Marker
from packaging.utils import parse_wheel_filename

sys.path.insert(0, str(ROOT / "environment"))

import children
import failure
import gpu
import locked
import wheels

PYTHON = locked.project()["project"]["requires-python"].removeprefix("==").removesuffix(".*")
MARKERS = (
    "sys_platform == 'linux'",
    "sys_platform != 'win32' and platform_machine == 'x86_64'",
    "(platform_machine == 'aarch64' or platform_machine == 'arm64') and sys_platform == 'darwin'",
    "python_full_version >= '3.12'",
    "python_version < '3.10' or python_version >= '3.11'",
    "python_version == '3.12.*'",
    "platform_system in 'Linux Darwin'",
    "'arm' in platform_machine",
    "platform_python_implementation == 'CPython' and os_name == 'posix'",
    "extra == 'cpu'",
    "extra != 'cpu' and extra == 'cuda'",
)


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("platform", locked.PLATFORMS)
@pytest.mark.parametrize("extra", ["cpu", "cuda"])
def test_a_marker_says_what_packaging_says(marker, platform, extra):
    """On each platform; `packaging` itself is not there when the lock is read first."""
    environment = {
        **locked.PLATFORMS[platform],
        "platform_system": "Linux" if platform.startswith("linux") else "Darwin",
        "os_name": "posix",
        "python_version": PYTHON,
        "python_full_version": f"{PYTHON}.99",
        "extra": extra,
    }
    assert locked.applies(marker, platform, {extra}) == Marker(marker).evaluate(environment)


@pytest.mark.parametrize(
    "text", ["__import__('os').system('false')", "sys_platform", "unknown == 'x'", "(", "1 < 2 < 3"]
)
def test_what_is_no_marker_is_refused_and_never_executed(text):
    """A lock is data, whoever wrote it."""
    with pytest.raises(locked.LockError, match="is no marker"):
        locked.applies(text, "linux-x86_64")


@pytest.mark.parametrize("platform", locked.PLATFORMS)
@pytest.mark.parametrize(
    "name",
    [
        "a-1.0-py3-none-any.whl",
        "a-1.0-py2.py3-none-any.whl",
        "a-1.0-py2-none-any.whl",
        "a-1.0-cp39-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "a-1.0-cp399-abi3-manylinux_2_17_x86_64.whl",
        "a-1.0-1-cp3X-cp3X-manylinux_2_28_aarch64.whl",
        "a-1.0-cp3X-cp3Xt-manylinux_2_28_aarch64.whl",
        "a-1.0-cp3X-cp3X-macosx_11_0_arm64.whl",
        "a-1.0-cp3X-none-macosx_10_9_universal2.whl",
        "a-1.0-cp3X-cp3X-macosx_10_9_x86_64.whl",
        "a-1.0-cp310-cp310-manylinux_2_28_x86_64.whl",
        "a-1.0-cp3X-cp3X-musllinux_1_2_x86_64.whl",
        "a-1.0-cp3X-cp3X-win_amd64.whl",
    ],
)
def test_a_wheels_name_says_where_it_runs_as_packaging_reads_it(name, platform):
    """Against every tag that `packaging` knows of the platform, with a recent C library."""
    minor = PYTHON.split(".")[1]
    name = name.replace("3X", f"3{minor}")
    machine = locked.PLATFORMS[platform]["platform_machine"]
    systems = [f"manylinux_2_{v}_{machine}" for v in range(40, 16, -1)]
    systems += [f"manylinux2014_{machine}", f"linux_{machine}"]
    if platform == "macos-arm64":
        systems = list(tags.mac_platforms((15, 0), "arm64"))
    known = {*tags.cpython_tags((3, int(minor)), platforms=systems)}
    known |= {*tags.compatible_tags((3, int(minor)), f"cp3{minor}", systems)}
    assert wheels.fits(name, platform) == bool(parse_wheel_filename(name)[3] & known)


def test_packages_become_a_requirements_file_and_come_back():
    """With every hash once, in a fixed order: mirrors and folders are checked against it."""
    files = tuple(locked.Artefact("", letter * 64) for letter in "bab")
    package = locked.Package("some-name", "1.0+cpu", "", files)
    text = locked.requirements([package])
    assert text.count("--hash=sha256:") == 2
    assert list(locked.parse_requirements(text)) == [
        ("some-name", "1.0+cpu", "", ["a" * 64, "b" * 64])
    ]


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.\n"
            "    tqdm==4.0 from https://files.example/tqdm.whl (from -r requirements/cpu.txt):\n"
            "        Expected sha256 aa\n             Got        bb\n",
            "a file is not the one that the lock names (sha256): tqdm==4.0",
        ),
        (
            "error: Failed to download `tqdm==4.0`\n  cause: Hash mismatch for `tqdm==4.0`\n",
            "a file is not the one that the lock names (sha256): tqdm==4.0",
        ),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("error: Failed to fetch: `https://a.example/x`\n  cause: dns error", "cannot be reached"),
        ("The lockfile at `uv.lock` needs to be updated", "the lock is older than pyproject.toml"),
        ("something odd\nerror: all went wrong\n", "all went wrong"),
        ("", "it said nothing"),
    ],
)
def test_a_failure_is_told_in_one_line(log, reason):
    """Common causes are named; others are reported by the manager's own last line."""
    told = failure.explain(log)
    assert reason in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("gpus", "warning"),
    [
        ("NVIDIA H100, 580.95.05, 9.0", ""),
        ("NVIDIA H100, 570.10, 9.0", "driver 570.10 is older than 580.65.06; update it"),
        ("Tesla P100, 580.95.05, 6.0", "Tesla P100 has compute capability 6.0"),
        ("Future GPU, 600.10, 13.0", "Future GPU has compute capability 13.0"),
        ("", "make setup ACCELERATOR=cpu needs about 1.5 GB, and ACCELERATOR=cpu in .env"),
    ],
)
def test_a_driver_or_gpu_that_does_not_fit_is_warned_about(
    gpus, warning, monkeypatch, tmp_path, capsys
):
    """As nvidia-smi reports them, against the facts of the CUDA environment."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho '{gpus}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    facts = {"cuda": "13.0.3", "min_driver": "580.65.06", "compute_capability": ["7.5", "12.0"]}
    monkeypatch.setattr(gpu, "settings", lambda: {"environments": {"cuda": facts}})
    gpu.warn_of_gpus("cuda")
    told = gpu.gpu_report("cuda")
    warned = capsys.readouterr().err
    assert warning in warned
    assert bool(warned) == bool(warning)
    assert told == (f"GPU: {gpus.split(',')[0]}" if gpus else "no GPU seen")


def test_an_environment_that_the_project_lacks_is_refused():
    """One line with the choices, from the command that `make setup` runs."""
    command = [sys.executable, ROOT / "environment" / "setup.py", "tpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ACCELERATOR is tpu; this project has ")
    assert len(done.stderr.splitlines()) == 1


ENDINGS = {
    "in a second": "time.sleep(1)",
    "after more output than a pipe holds": "print('x' * 1_000_000, flush=True)",
    "after a second Ctrl-C": "os.kill(os.getppid(), signal.SIGINT); time.sleep(0.3)",
}
CHILD = """
import os, pathlib, signal, time
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    {ending}
    pathlib.Path("ended").touch()
"""


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_command_that_was_stopped_has_ended(tmp_path, ending):
    """Not a quarter of a second after Ctrl-C, but when it has cleared up."""
    command = [sys.executable, "-c", CHILD.format(ending=ENDINGS[ending])]
    options = {"cwd": tmp_path, "stdout": subprocess.PIPE, "text": True}
    with pytest.raises(KeyboardInterrupt), children.started(command, **options) as process:
        process.stdout.readline()
        raise KeyboardInterrupt
    assert process.returncode == 0
    assert (tmp_path / "ended").is_file()


def test_a_command_that_does_not_stop_is_killed(monkeypatch):
    """It may not keep the user from the prompt."""
    monkeypatch.setattr(children, "GRACE", 0.2)
    command = ["sh", "-c", "trap '' INT; echo ready; exec sleep 60"]
    with pytest.raises(OSError), children.started(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        raise OSError
    assert process.returncode == -signal.SIGKILL
