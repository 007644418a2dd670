"""Faults from outside, in generation, upgrade and training: signals, full and read-only disks.

A fresh folder is whole or not there; in an existing one nothing of the user's is lost; a second run
makes whole what the first one left.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, make
from releases import ANSWERS, NOW, conflicting, errors, tree, upgrade

from tools import demo

pytestmark = pytest.mark.faults
GENERATE = [sys.executable, "-P", "-m", "cookiecutter", str(ROOT)]
GIVEN = [f"{name}={value}" for name, value in ANSWERS.items()]
MOUNTS = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]
CAN_MOUNT = not subprocess.run(
    [*MOUNTS, "mount -t tmpfs none /mnt"], stderr=subprocess.DEVNULL
).returncode
needs_mounts = pytest.mark.skipif(not CAN_MOUNT, reason="no mounts in namespaces here")


def generate(out, *options, **how):
    how = {"capture_output": True, "text": True, **how}
    command = [*GENERATE, "--no-input", "--output-dir", str(out), *options, *GIVEN]
    return subprocess.run(command, env=os.environ, **how)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The project as it must be, and each change that makes it, in order."""
    out = tmp_path_factory.mktemp("whole")
    done = stopped_at(out, "never", "SIGINT")
    assert done.returncode == 0, done.stderr
    return tree(out / "probe"), json.loads(done.stdout.splitlines()[-1])


CUT_OFF = b"half a l"
"""What `stop_at.py` leaves of a file."""


def stopped_at(out, change, name, *options):
    """Generation that gets a signal just before that change, or in the midst of that file."""
    command = [sys.executable, "-P", ROOT / "tests" / "stop_at.py", out, str(change), name, ROOT]
    command += ["--no-input", "--output-dir", out, *options, *GIVEN]
    return subprocess.run(command, env=os.environ, capture_output=True, text=True)


def moments(changes):
    """The first and last change of each kind and of each run of a kind, and those next to the sums,
    when all files have been put in place."""
    kinds = [change.split()[0] for change in changes]
    ends = {n for n in range(1, len(kinds)) if kinds[n] != kinds[n - 1]} | {0, len(kinds) - 1}
    sums = changes.index(next(change for change in changes if change.endswith("repro.sum")))
    spread = sorted(ends)[:: max(1, len(ends) // 8)]
    return sorted({0, *spread, sums - 1, sums, sums + 1, sums + 2, len(kinds) - 1})


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_generation_that_is_stopped_is_all_or_nothing(whole, tmp_path, name):
    """Between any two changes, and in the midst of a file. SIGKILL may leave a part, which a second
    run makes whole."""
    wanted, changes = whole
    cut_off = ["/environment/mlflow.txt", "/environment/setup.py", "/pyproject.toml"]
    assert all(any(change.endswith(end) for change in changes) for end in cut_off)
    for number, change in enumerate([*moments(changes), *cut_off]):
        out = tmp_path / str(number)
        out.mkdir()
        done = stopped_at(out, change, name)
        assert done.returncode != 0, "it was done before the signal came"
        assert "Traceback" not in done.stderr
        left = tree(out / "probe") if (out / "probe").exists() else {}
        assert name == "SIGKILL" or not left, (change, sorted(left))
        if left:  # no verb works: it cannot be taken for a project
            assert "environment.mk" not in left or (out / "probe" / "_overlays").exists()
        assert generate(out, "--overwrite-if-exists").returncode == 0
        assert tree(out / "probe") == wanted


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_in_an_existing_folder_nothing_of_the_users_is_lost(whole, tmp_path, name):
    """Files that were there stay as they were, whenever it stops; the second run adds the rest."""
    wanted, changes = whole
    mine = {"notes.txt": b"mine", "README.md": b"my own", "src/probe/model.py": b"my = 1\n"}
    mine |= {"Dockerfile": b"FROM mine\n", ".github/actions/setup/action.yml": b"name: mine\n"}
    options = ["--overwrite-if-exists", "--skip-if-file-exists"]
    cut_off = ["environment/mlflow.txt", "environment/setup.py", "Makefile"]
    late = [len(changes) * part // 8 for part in (3, 5, 6)]
    for number, change in enumerate([*late, *(f"/{name}" for name in cut_off)]):
        project = tmp_path / str(number) / "probe"
        for path, text in mine.items():
            (project / path).parent.mkdir(parents=True, exist_ok=True)
            (project / path).write_bytes(text)
        assert stopped_at(project.parent, change, name, *options).returncode != 0
        assert {path: (project / path).read_bytes() for path in mine} == mine
        assert generate(project.parent, *options).returncode == 0
        left = {path: content for path, (_, content) in tree(project).items()}
        all_of_it = {path: content for path, (_, content) in wanted.items()} | mine
        differ = {path for path in left.keys() | all_of_it if left.get(path) != all_of_it.get(path)}
        # The file that was being written is cut off; told to skip what exists, the second run does.
        assert differ == {path for path, content in left.items() if content == CUT_OFF}
        assert differ == {change[1:]} if isinstance(change, str) else len(differ) <= 1


def test_a_file_that_was_cut_off_and_is_kept_does_not_count_as_the_templates(whole, tmp_path):
    """Told to skip it, the second run keeps it; `repro.sum` has the digests of whole files."""
    wanted, _ = whole
    cut = [tmp_path / "probe" / name for name in ("src/probe/repro/git.py", "environment/setup.py")]
    for path in cut:
        path.parent.mkdir(parents=True)
        path.write_text("half a l")
    assert generate(tmp_path, "--overwrite-if-exists", "--skip-if-file-exists").returncode == 0
    assert [path.read_text() for path in cut] == ["half a l"] * 2
    assert (tmp_path / "probe" / "repro.sum").read_bytes() == wanted["repro.sum"][1]


def test_the_hook_in_a_process_of_its_own_makes_the_same_project(whole, tmp_path):
    """As cookiecutter runs it, should one of its versions call hooks by another way."""
    plain = "import sys; from cookiecutter import cli, hooks; run = hooks.run_script_with_context; "
    plain += "hooks.run_hook = lambda n, *w: [run(s, *w) for s in hooks.find_hook(n) or []]; "
    plain += "cli.main()"
    command = [sys.executable, "-P", "-c", plain, ROOT, "--no-input", "-o", tmp_path, *GIVEN]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "probe") == whole[0]


@needs_mounts
@pytest.mark.parametrize("size", ["16k", "200k", "500k", "900k"])
def test_a_full_disk_leaves_no_half_project(tmp_path, size):
    """One line, and the folder is gone again."""
    mount = f"mount -t tmpfs -o size={size} none {tmp_path}"
    script = f"{mount}; {_words(tmp_path)} && exit 9; ls {tmp_path}"
    done = subprocess.run([*MOUNTS, script], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stdout
    assert "error: No space left on device" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert "probe" not in done.stdout.splitlines()


@needs_mounts
def test_a_read_only_folder_is_named(tmp_path):
    """One line, nothing made."""
    script = f"mount -t tmpfs -o ro none {tmp_path}; {_words(tmp_path)}"
    done = subprocess.run([*MOUNTS, script], capture_output=True, text=True, env=os.environ)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "probe" in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("error: ")


def test_a_folder_without_permission_is_named(tmp_path):
    """One line, nothing made; root is nobody special once it has no capabilities."""
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    command = [*powerless, *GENERATE, "--no-input", "--output-dir", str(locked), *GIVEN]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert list(locked.iterdir()) == []


def _words(out):
    return " ".join([*GENERATE, "--no-input", "--output-dir", str(out), *GIVEN])


@needs_mounts
@pytest.mark.parametrize("room", [0, 40, 150])
def test_an_upgrade_on_a_full_disk_is_taken_back(born, tmp_path, room):
    """With so many kilobytes left: it says so, and the tree is as it was, or abort makes it so."""
    project = conflicting(born)
    before = tree(project, without=())
    small, after = tmp_path / "small", tmp_path / "after"
    small.mkdir()
    command = f"make upgrade CHECK=no PYTHON={sys.executable}"
    script = f"""
        mount -t tmpfs -o size=64m none {small}
        cp -a {project} {small}/probe
        used=$(df -k --output=used {small} | tail -1)
        mount -o remount,size=$((used + {room}))k {small}
        cd {small}/probe
        {command} && exit 9
        mount -o remount,size=64m {small}
        test ! -e .git/repro-upgrade.json || make upgrade-abort PYTHON={sys.executable}
        git status --porcelain
        cp -a {small}/probe {after}
    """
    done = subprocess.run([*MOUNTS, script], capture_output=True, text=True, env=demo.environment())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert any(line.startswith("error: ") for line in done.stderr.splitlines())
    assert tree(after, without=()) == before


@needs_mounts
def test_an_upgrade_of_a_read_only_project_changes_nothing(born):
    """One line."""
    project = born(NOW)
    before = tree(project, without=())
    command = f"make upgrade CHECK=no PYTHON={sys.executable}"
    mount = f"mount --bind {project} {project}; mount -o remount,ro,bind {project}"
    script = f"{mount}; cd {project}; {command}"
    done = subprocess.run([*MOUNTS, script], capture_output=True, text=True, env=demo.environment())
    assert len(errors(done)) == 1
    assert tree(project, without=()) == before


@needs_mounts
@pytest.mark.parametrize("how", ["size=16k", "size=60k", "ro"])
def test_training_on_a_full_or_read_only_disk_fails_in_one_line(pip_project, tmp_path, how):
    """Runs elsewhere are as they were."""
    make(pip_project, "train", "CONFIG=configs/smoke.yaml")
    before = tree(pip_project / "outputs")
    command = f".venv/bin/python train.py --config configs/smoke.yaml --run-dir {tmp_path}/disk/run"
    script = f"mkdir {tmp_path}/disk; mount -t tmpfs -o {how} none {tmp_path}/disk; {command}"
    done = subprocess.run(
        [*MOUNTS, script], cwd=pip_project, capture_output=True, text=True, env=demo.environment()
    )
    assert done.returncode == (2 if how == "ro" else 1), done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "No space left" in lines[0] or "Read-only" in lines[0]
    assert "Traceback" not in done.stderr
    assert tree(pip_project / "outputs") == before


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_training_that_is_asked_to_stop_saves_and_resumes_to_equal_bits(
    pip_project, tmp_path, name, code
):
    """In mid-epoch, by Ctrl-C or by a cluster: one line with the way to resume, no traceback."""
    steps = ["training.num_epochs=20", "record.checkpoint_every=1000"]

    def train(*arguments, **how):
        command = [".venv/bin/python", "train.py", *map(str, arguments)]
        return subprocess.Popen(command, cwd=pip_project, env=demo.environment(), **how)

    def bits(run):
        names = ("steps.jsonl", "metrics.csv", "model.safetensors")
        return [(run / each).read_bytes() for each in names]

    smoke = ["--config", "configs/smoke.yaml", *steps, "--run-dir"]
    assert train(*smoke, tmp_path / "whole").wait() == 0
    run = tmp_path / "stopped"
    running = train(*smoke, run, stderr=subprocess.PIPE, text=True)
    log = run / "steps.jsonl"
    while not (log.exists() and log.read_text().count("\n") > 15):
        assert running.poll() is None
    running.send_signal(getattr(signal, name))
    _, told = running.communicate()
    assert running.returncode == code
    assert f"resume with train --resume {run}" in told
    assert "Traceback" not in told
    assert json.loads((run / "manifest.json").read_text())["results"]["completed"] is False
    assert train("--resume", run).wait() == 0
    assert bits(run) == bits(tmp_path / "whole")


@pytest.mark.parametrize("module", ["pydantic", "numpy", "torch", "torch._dynamo"])
def test_ctrl_c_while_libraries_are_imported_leaves_nothing(pip_project, tmp_path, module):
    """Of which they make other errors: exit code 130 all the same, no traceback, no run."""
    command = [".venv/bin/python", "-X", "importtime", "train.py", "--config", "configs/smoke.yaml"]
    command += ["--run-dir", str(tmp_path / "run")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = subprocess.Popen(command, cwd=pip_project, env=demo.settled(), **pipes)
    for line in running.stderr:
        if f" {module}." in line:  # a part of it is there, and the rest comes
            break
    else:
        raise AssertionError(f"{module} was not imported")
    running.send_signal(signal.SIGINT)
    _, told = running.communicate()
    assert running.returncode == 130, told[-3000:]
    assert "Traceback" not in told
    assert not (tmp_path / "run").exists()


def test_an_upgrade_leaves_ignored_files_alone(born):
    """Data, runs and `.env` are not the upgrade's business, and not the abort's."""
    project = conflicting(born)
    kept = {
        ".env": b"JUPYTER_TOKEN=x\n",
        "data/set.bin": b"\0" * 10,
        "outputs/run/steps.jsonl": b"{}",
    }
    for name, text in kept.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(text)
    errors(upgrade(project))
    upgrade(project, verb="upgrade-abort")
    assert {name: (project / name).read_bytes() for name in kept} == kept
    assert json.loads((project / ".template.json").read_text())["template"]["version"] == NOW[1:]
    assert Path(project, "outputs", "kept").exists()


def test_a_folder_of_the_users_own_name_is_left(tmp_path):
    """Refused for being there, or because the template works in a folder that is called so."""
    (tmp_path / "probe" / "_overlays").mkdir(parents=True)
    mine = tmp_path / "probe" / "_overlays" / "important.txt"
    mine.write_text("mine")
    for options in ([], ["--overwrite-if-exists"], ["--overwrite-if-exists", "-s"]):
        assert generate(tmp_path, *options).returncode != 0
        assert mine.read_text() == "mine"
        assert len(list((tmp_path / "probe").iterdir())) == 1
