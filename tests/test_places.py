"""Copies, links, worktrees, hooks, git states, limits and habits: whose code runs, what is left."""

import hashlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pytest
from conftest import commit
from house import RESULTS, SMOKE, House
from lent import linked_copy

pytestmark = pytest.mark.surroundings
ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away and mounts")
WHO = ["-c", "user.name=t", "-c", "user.email=t@t"]
THREADS = ({"OMP_THREAD_LIMIT": "1"}, {"OMP_NUM_THREADS": "7"})


def git(folder: Path, *arguments: object) -> str:
    """What git prints; a failure fails the test."""
    environ = {n: v for n, v in os.environ.items() if not n.startswith("GIT_")}
    command = ["git", "-C", str(folder), *WHO, *map(str, arguments)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(house: House, command: list[object], folder: Path, **env: str):
    """A command in `folder`, in a plain shell but for `env`."""
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**house.environ, **env},
        capture_output=True,
        text=True,
        timeout=600,
    )


def make(house: House, folder: Path, *arguments: str, **env: str):
    """make in `folder`, as typed."""
    return run(house, ["make", *arguments, "ACCELERATOR=cpu"], folder, **env)


def copy(house: House, target: Path) -> Path:
    """`cp -a project target`; the environment's files are links to the same bytes."""
    subprocess.run(["cp", "-a", "--reflink=auto", "--no-preserve=context", house.project / ".git",
                    *[p for p in house.project.iterdir() if p.name not in (".envs", ".git")],
                    _made(target)], check=True)  # fmt: skip
    linked_copy(house.project / ".envs", target / ".envs")
    return target


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def edited(project: Path) -> Path:
    """The same project with another learning rate in its source, committed."""
    path = project / "src" / "real" / "optim.py"
    text = path.read_text()
    assert "return config.learning_rate * (step + 1)" in text
    path.unlink()  # not through a link
    path.write_text(text.replace("return config.learn", "return 0.5 * config.learn"))
    git(project, "commit", "--quiet", "--all", "--message", "half")
    return project


def last_run(done: subprocess.CompletedProcess, folder: Path) -> Path:
    """The run directory that a training printed."""
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("run: ")]
    return folder / line.removeprefix("run: ")


def is_of(run_dir: Path, project: Path, house: House) -> None:
    """The run is of this project's source and commit, and not of the original's."""
    manifest = json.loads((run_dir / "manifest.json").read_text())
    source = (project / "src" / "real" / "optim.py").read_bytes()
    assert manifest["code"]["files"]["src/real/optim.py"] == hashlib.sha256(source).hexdigest()
    assert manifest["code"]["commit"] == git(project, "rev-parse", "HEAD").strip()
    assert manifest["code"]["dirty"] is False
    steps = (run_dir / "steps.jsonl").read_bytes()
    assert (steps != (house.reference / "steps.jsonl").read_bytes()) == (b"return 0.5 *" in source)


def refused(done: subprocess.CompletedProcess, pattern: str, code: int = 2) -> None:
    """One line that begins with `error: `, no traceback, and that exit code."""
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert re.search(pattern, error), error


# --- whose code runs --------------------------------------------------------------------------


def test_a_copy_runs_its_own_source(house, tmp_path):
    """`cp -a`, edit, commit, `make train verify`: the copy's code, commit and bits; IDENTICAL."""
    other = edited(copy(house, tmp_path / "copy"))
    done = make(house, other, "train", "verify", f"CONFIG={SMOKE}")
    is_of(last_run(done, other), other, house)
    assert done.stdout.splitlines()[-1] == "IDENTICAL"
    assert run(house, [".venv/bin/python", "-m", "real", "doctor"], other).returncode == 0


def test_a_project_that_was_moved_still_works(house, tmp_path):
    """Renamed: by make, by its interpreter, as a module; `make setup` makes its scripts whole."""
    (moved := copy(house, tmp_path / "before")).replace(tmp_path / "äfter")
    moved = edited(tmp_path / "äfter")
    for command in (
        ["make", "train", f"CONFIG={SMOKE}", "ACCELERATOR=cpu"],
        [".venv/bin/python", "train.py", "--config", SMOKE],
        [".envs/cpu/bin/python", "-m", "real", "train", "--config", SMOKE],
    ):
        is_of(last_run(run(house, command, moved), moved), moved, house)


def test_the_originals_interpreter_runs_the_copys_source_or_refuses(house, tmp_path):
    """As where its environment is active in the shell: `train.py` runs what it stands beside."""
    other = edited(copy(house, tmp_path / "copy"))
    done = run(house, [house.python, "train.py", "--config", SMOKE], other)
    is_of(last_run(done, other), other, house)
    for folder in (other, other / "configs", other / "notebooks"):
        done = run(house, [house.python, "-m", "real", "compare"], folder)
        refused(
            done, f"working directory is in {re.escape(str(other))}, this Python runs the source"
        )
    probe = "import real, pathlib\n\ndef test_mine():\n    assert pathlib.Path(real.__file__)"
    (other / "tests" / "test_mine.py").write_text(f"{probe}.is_relative_to({str(other)!r})\n")
    done = run(house, [house.python, "-m", "pytest", "tests/test_mine.py"], other)
    assert done.returncode == 0, done.stdout
    cells = json.loads((other / "notebooks" / "explore_run.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"][:1]
    code += ["import real", "print(real.__file__)"]
    done = run(house, [house.python, "-c", "\n".join(code)], other / "notebooks")
    assert done.stdout.startswith(str(other))


def test_a_link_leads_to_the_project(house, tmp_path):
    """The same bits and record, by whatever name the folder is reached."""
    (tmp_path / "link").symlink_to(house.project)
    done = make(
        house, tmp_path / "link", "train", f"CONFIG={SMOKE}", f"ARGS=--run-dir {tmp_path}/r"
    )
    assert done.returncode == 0, done.stderr
    assert house.differences(tmp_path / "r") == []


def test_a_worktree_with_a_linked_environment_runs_its_own_source(house, tmp_path):
    """`git worktree add`, and the main one's `.envs` by a link."""
    main = copy(house, tmp_path / "main")
    git(main, "worktree", "add", "--quiet", "-b", "half", tmp_path / "tree")
    (tmp_path / "tree" / ".envs").symlink_to(main / ".envs")
    tree = edited(tmp_path / "tree")
    done = make(house, tree, "train", "verify", f"CONFIG={SMOKE}")
    is_of(last_run(done, tree), tree, house)
    done = run(house, [".envs/cpu/bin/python", "train.py", "--config", SMOKE], tree)
    is_of(last_run(done, tree), tree, house)


def test_a_checkout_inside_another_runs_its_own_source(house, tmp_path):
    """Nearest first: the outer one's interpreter is refused for the inner one's files."""
    outer = copy(house, tmp_path / "outer")
    inner = edited(copy(house, outer / "outputs" / "inner"))
    done = make(house, inner, "train", f"CONFIG={SMOKE}")
    is_of(last_run(done, inner), inner, house)
    done = run(house, [outer / ".venv/bin/python", "-m", "real", "doctor"], inner)
    refused(done, "working directory is in .*inner, this Python runs the source of .*outer")


def test_an_environment_on_another_disk_finds_its_project(house, tmp_path):
    """`.envs` is a link to a scratch folder: common where homes are small."""
    other = copy(house, tmp_path / "project")
    (other / ".envs").replace(tmp_path / "scratch")
    (other / ".envs").symlink_to(tmp_path / "scratch")
    other = edited(other)
    done = make(house, other, "train", f"CONFIG={SMOKE}")
    is_of(last_run(done, other), other, house)


def test_an_editable_install_of_the_same_name_is_not_run(house, tmp_path):
    """Its path comes first; `train.py` takes its own, `-m` refuses."""
    other = copy(house, tmp_path / "project")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(other / "src", elsewhere / "src")
    (site,) = (other / ".envs").glob("cpu-*/lib/python*/site-packages")
    (site / "__editable__.real.pth").write_text(f"{elsewhere / 'src'}\n")
    python = other / ".venv/bin/python"
    found = run(house, [python, "-c", "import real; print(real.__file__)"], tmp_path).stdout
    assert found.startswith(str(elsewhere)), "the other one is not found first"
    done = run(house, [python, "train.py", "--config", SMOKE, "--run-dir", tmp_path / "r"], other)
    assert done.returncode == 0, done.stderr
    assert house.differences(tmp_path / "r") == []
    refused(run(house, [python, "-m", "real", "doctor"], other), "runs the source of .*elsewhere")


# --- git --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["no repository", "no commit yet"])
def test_a_run_without_a_commit_says_so(house, tmp_path, state):
    """One line at the start, and again when it is verified."""
    other = copy(house, tmp_path / "project")
    shutil.rmtree(other / ".git")
    if state == "no commit yet":
        git(other, "init", "--quiet")
    done = make(house, other, "train", "verify", f"CONFIG={SMOKE}")
    assert done.stderr.count("this run names no commit, so nobody can go back to its code") == 2
    assert done.stderr.count("warning: the run names no commit") == 1
    assert done.stdout.splitlines()[-1] == "IDENTICAL"


def test_a_commit_that_is_gone_is_said_to_be_missing(house, tmp_path):
    """Before a reviewer reads a difference as a fault of the run."""
    other = copy(house, tmp_path / "project")
    shutil.rmtree(other / ".git")
    commit(other)
    done = run(house, [".venv/bin/python", "-m", "real", "verify", house.reference], other)
    assert "of the run is not in this repository; git fetch --all may bring it" in done.stderr
    assert done.stdout.splitlines()[-1] == "IDENTICAL"


@ROOT_ONLY
def test_somebody_elses_repository_is_refused(house, tmp_path):
    """git does not read it: one line with the way out, no run, and never "no commit"."""
    other = copy(house, tmp_path / "project")
    for path in (other, other / ".git"):
        os.chown(path, 12345, 12345)
    refused(
        run(house, [".venv/bin/python", "train.py", "--config", SMOKE], other),
        r"git refuses to read .*dubious ownership.*safe\.directory",
    )
    assert not list((other / "outputs").glob("*"))
    done = run(house, [".venv/bin/python", "-m", "real", "doctor"], other)
    assert (done.returncode, "dubious ownership" in done.stdout) == (1, True)
    assert "Traceback" not in done.stderr
    refused(make(house, other, "upgrade-check"), "git refuses to read .*another user", 2)
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f"[safe]\n    directory = {other}\n")
    command = [".venv/bin/python", "train.py", "--config", SMOKE]
    done = run(house, command, other, HOME=str(home))
    for path in (other, other / ".git"):
        os.chown(path, 0, 0)
    is_of(last_run(done, other), other, house)


# A commit in each kind of checkout, each other hook in one; the rest with `make test-slow`, and so
# the whole proof in a hook: what a hook sets is set in `test_proof_elsewhere.py`, too.
_OFTEN = [("pre-push", "worktree"), ("post-checkout", "submodule")]
HOOKS = [
    pytest.param(
        *pair, False, marks=[] if pair[0] == "pre-commit" or pair in _OFTEN else pytest.mark.slow
    )
    for pair in product(
        ["pre-commit", "pre-push", "post-checkout"], ["clone", "worktree", "submodule"]
    )
]
HOOKS += [pytest.param("pre-commit", "worktree", True, marks=pytest.mark.slow)]


def snapshot(repository: Path) -> dict[str, object]:
    """What a hook must not change: branch, index, work tree, configuration."""
    folder = Path(git(repository, "rev-parse", "--absolute-git-dir").strip())
    common = Path(
        git(repository, "rev-parse", "--path-format=absolute", "--git-common-dir").strip()
    )
    return {
        "branch": git(repository, "symbolic-ref", "HEAD"),
        "refs": git(repository, "for-each-ref"),
        "index": git(repository, "ls-files", "--stage"),
        "tree": git(repository, "status", "--porcelain", "--ignored=no"),
        "config": [
            (p / "config").read_text() for p in (folder, common) if (p / "config").is_file()
        ],
    }


def checkout_of(kind: str, house: House, scratch: Path) -> tuple[Path, Path]:
    """A checkout of a kind, with the project's environment, and the folder of its hooks."""
    origin = scratch / "origin.git"
    git(house.project, "clone", "--quiet", "--bare", house.project, origin)
    if kind == "submodule":
        above = _made(scratch / "above")
        git(above, "init", "--quiet")
        git(
            above, "-c", "protocol.file.allow=always", "submodule", "add", "--quiet", origin, "part"
        )
        git(above, "commit", "--quiet", "--message", "with part")
        checkout = above / "part"
    else:
        git(scratch, "clone", "--quiet", origin, scratch / "clone")
        checkout = scratch / "clone"
    if kind == "worktree":
        git(checkout, "worktree", "add", "--quiet", "-b", "side", scratch / "tree")
        checkout = scratch / "tree"
    linked_copy(house.project / ".envs", checkout / ".envs")
    common = git(checkout, "rev-parse", "--path-format=absolute", "--git-common-dir").strip()
    return checkout, Path(common) / "hooks"


@pytest.mark.parametrize(("hook", "kind", "proof"), HOOKS)
def test_a_hook_that_runs_the_tests_leaves_the_repository_alone(house, tmp_path, kind, hook, proof):
    """Style, the tests that read files and train once, or all, and the doctor, started by git:
    nothing of the repository is theirs."""
    checkout, hooks = checkout_of(kind, house, tmp_path)
    verb = "make ACCELERATOR=cpu check DOCTOR_ARGS=--uncommitted"
    if not proof:
        verb = f"env PYTEST_ADDOPTS='tests/test_config.py tests/test_train.py' {verb}"
    script = f'cd "{checkout}" && env > "{tmp_path}/seen" && exec {verb}'
    hooks.mkdir(exist_ok=True)
    (hooks / hook).write_text(f"#!/bin/sh\n{script}\n")
    (hooks / hook).chmod(0o755)
    if hook == "pre-commit":
        with (checkout / "README.md").open("a") as readme:
            readme.write("\nA sentence more.\n")
    before = snapshot(checkout)
    what = {
        "pre-commit": ["commit", "--quiet", "--all", "--message", "note"],
        "pre-push": ["push", "--quiet", "origin", "HEAD:refs/heads/pushed"],
        "post-checkout": ["checkout", "--quiet", "-b", "another"],
    }[hook]
    environ = {**house.environ, "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z"}
    done = subprocess.run(
        ["git", *WHO, *what], cwd=checkout, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", told)[1]) >= (40 if proof else 6)
    assert "items, 0 fail" in told
    seen = (tmp_path / "seen").read_text()
    assert "GIT_" in seen.replace("GIT_AUTHOR_DATE", ""), "git handed nothing to its hook"
    after = snapshot(checkout)
    assert after["config"] == before["config"]
    if hook == "pre-commit":
        assert git(checkout, "show", "--stat", "--format=", "HEAD").count("|") == 1
        assert after["tree"] == ""
        assert len(after["index"].splitlines()) == len(before["index"].splitlines())
    else:
        assert after["index"] == before["index"]
        assert after["tree"] == before["tree"] == ""
    left = git(checkout, "rev-list", "--count", "HEAD").strip()
    assert left == ("2" if hook == "pre-commit" else "1")


# --- make -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    ["SEED=1", "LR=0.01", "training.learning_rate=0.01", "seed=1", "CONFG=x", "GPU=0", "A=1"],
)
def test_make_refuses_a_variable_that_nobody_reads(house, given):
    """With the right spelling; nothing is trained."""
    before = sorted(house.project.glob("outputs/*"))
    done = make(house, house.project, "train", given)
    refused(done, rf'knows no variable {given.split("=")[0]}.*ARGS="--seed 1 training')
    assert sorted(house.project.glob("outputs/*")) == before


def test_options_in_args_arrive(house, tmp_path):
    """The spelling that the refusal names."""
    args = f"--run-dir {tmp_path}/r --seed 3 training.num_epochs=1"
    done = make(house, house.project, "train", f"CONFIG={SMOKE}", f"ARGS={args}")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text())
    assert (manifest["seed"], manifest["config"]["training"]["num_epochs"]) == (3, 1)


@pytest.mark.parametrize("flags", ["-j4", pytest.param("-k -j", marks=pytest.mark.slow), "-s -B"])
def test_train_verify_verifies_what_was_trained(house, tmp_path, flags):
    """In the order typed, by its name, wherever the run lies."""
    args = f"ARGS=--run-dir {tmp_path}/r"
    done = make(house, house.project, "train", "verify", f"CONFIG={SMOKE}", args, MAKEFLAGS=flags)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "IDENTICAL"
    assert lines.index(f"run: {tmp_path}/r") < lines.index(f"executing again: {tmp_path}/r")


def test_nothing_is_verified_where_training_failed(house, tmp_path):
    """Not even with `make -k`: the run before would be called IDENTICAL."""
    done = make(house, house.project, "-k", "train", "verify", "CONFIG=none.yaml")
    assert done.returncode == 2
    assert "IDENTICAL" not in done.stdout


def test_an_outer_make_may_have_variables_of_its_own(house, tmp_path):
    """What it hands down is not typed for us; what is typed here is still refused."""
    outer = tmp_path / "Makefile"
    inner = f"$(MAKE) -C {house.project} help"
    outer.write_text(f"good:\n\t{inner}\nbad:\n\t{inner} LR=3\n")
    assert run(house, ["make", "good", "VERSION=3"], tmp_path).returncode == 0
    done = run(house, ["make", "bad", "VERSION=3"], tmp_path)
    assert "make knows no variable LR" in done.stderr


# --- setting up -------------------------------------------------------------------------------


def test_no_password_of_an_index_is_shown(house, tmp_path):
    """Neither on the screen nor in the log that is kept."""
    other = copy(house, tmp_path / "project")
    shutil.rmtree(other / ".envs")
    secret = {"PACKAGE_INDEX": "http://user:hunter2@127.0.0.1:9/simple?token=hunter2"}
    secret |= {"PYTORCH_INDEX_CPU": "http://hunter2@127.0.0.1:9/whl"}
    retries = {"PIP_RETRIES": "0", "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
    done = make(house, other, "setup", f"PYTHON={sys.executable}", **secret, **retries)
    assert done.returncode == 2
    assert "hunter2" not in done.stdout + done.stderr
    assert "hunter2" not in (other / ".envs" / "setup-cpu.log").read_text()


def test_no_token_of_the_template_is_shown(house, tmp_path):
    """Its address is in `.cruft.json`, with the token of whoever made the project."""
    other = copy(house, tmp_path / "project")
    address = "http://user:hunter2@127.0.0.1:9/template.git"
    link = {"template": address, "commit": "0" * 40, "context": {"cookiecutter": {}}}
    (other / ".cruft.json").write_text(json.dumps(link))
    git(other, "add", "--all")
    git(other, "commit", "--quiet", "--message", "linked")
    for verb in ("upgrade", "upgrade-check"):
        done = make(house, other, verb)
        assert done.returncode == 2
        assert "the template http://127.0.0.1:9/template.git cannot be cloned" in done.stderr
        assert "hunter2" not in done.stdout + done.stderr


def test_no_password_of_a_tracking_server_is_shown_or_recorded(house, tmp_path):
    """From the shell: neither printed nor in any file of the run."""
    environ = {"MLFLOW_TRACKING_URI": "http://user:hunter2@127.0.0.1:9", "TRACKING_PATIENCE": "1"}
    command = [house.python, "train.py", "--config", SMOKE, "--run-dir", tmp_path / "r"]
    done = run(house, command, house.project, **environ)
    assert done.returncode == 0
    assert "http://127.0.0.1:9" in done.stderr
    texts = [path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()]
    assert b"hunter2" not in b"".join([done.stdout.encode(), done.stderr.encode(), *texts])


# --- limits, signals, terminals ---------------------------------------------------------------


def limited(house: House, lines: str, *arguments: object, wrap: tuple[str, ...] = ()):
    """A training under what a shell has set, which must work: else exit code 97."""
    script = f'{lines} || exit 97\nexec "$@"\n'
    command = [*wrap, "/bin/sh", "-c", script, "sh", house.python, "train.py", *arguments]
    return run(house, command, house.project)


@ROOT_ONLY
@pytest.mark.parametrize("option", ["size=64k", "ro"])
def test_a_small_or_closed_dev_shm_is_refused_at_once(house, tmp_path, option):
    """With loader processes, before anything is recorded; without them it is not needed."""
    mount = f"mount -t tmpfs -o {option} tmpfs /dev/shm"
    unshare = ("unshare", "--mount")
    if limited(house, mount, "--help", wrap=unshare).returncode == 97:
        pytest.skip("no mount is allowed here")
    run_dir = tmp_path / "r"
    arguments = ["--config", SMOKE, "--run-dir", run_dir]
    big = ["data.num_workers=2", "training.global_batch_size=256"]
    done = limited(house, mount, *arguments, *big, wrap=unshare)
    refused(done, "hand batches over in /dev/shm, which .*; set data.num_workers=0")
    assert not run_dir.exists()
    done = limited(house, mount, *arguments, wrap=unshare)
    assert done.returncode == 0, done.stderr
    assert house.differences(run_dir) == []


def test_too_little_memory_is_one_line(house, tmp_path):
    """`ulimit -v`: the libraries do not even load, one or the other, or the model does not fit."""
    arguments = ["--config", SMOKE, "--run-dir", tmp_path / "r", "model.width=4096"]
    for kilobytes in (300_000, 500_000, 700_000, 2_000_000):
        done = limited(house, f"ulimit -v {kilobytes}", *arguments)
        assert done.returncode == 1, done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: out of memory")
        assert "Traceback" not in done.stderr


def test_files_that_may_not_grow_are_one_line(house, tmp_path):
    """`ulimit -f`: what was written before stays, and can be resumed."""
    done = limited(house, "ulimit -f 8", "--config", SMOKE, "--run-dir", tmp_path / "r")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr.splitlines()[-1]


def test_a_limit_of_cpu_time_saves_first(house, tmp_path):
    """`ulimit -t`: the kernel sends XCPU, every second again; 152, and a checkpoint."""
    arguments = ["--config", "configs/baseline.yaml", "training.num_epochs=9999"]
    arguments += ["--run-dir", tmp_path / "r"]
    done = limited(house, "ulimit -S -t 15", *arguments)
    assert done.returncode == 128 + signal.SIGXCPU, done.stderr
    assert "resume with train --resume" in done.stderr
    assert list((tmp_path / "r" / "checkpoints").glob("step-*.pt"))


def test_a_terminal_that_is_closed_saves_first(house, tmp_path):
    """The progress bar loses its screen, the run gets HUP: 129, and a checkpoint."""
    run_dir = tmp_path / "r"
    command = [house.python, "train.py", "--config", "configs/baseline.yaml"]
    command += ["--run-dir", run_dir, "training.num_epochs=9999"]
    pid, screen = pty.fork()
    if pid == 0:
        os.chdir(house.project)
        os.execve(command[0], list(map(str, command)), house.environ)
    steps, deadline = run_dir / "steps.jsonl", time.monotonic() + 120
    while not (steps.exists() and steps.stat().st_size) and time.monotonic() < deadline:
        os.read(screen, 1 << 16)
    os.close(screen)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert list((run_dir / "checkpoints").glob("step-*.pt"))


def test_a_verification_that_is_ended_takes_its_training_along(house, tmp_path):
    """SIGTERM to it alone: no training continues in the background, no folder is left."""
    scratch = _made(tmp_path / "scratch")
    mark = f"mark{os.getpid()}"
    shutil.copytree(house.reference, tmp_path / mark)
    command = [house.python, "-m", "real", "verify", tmp_path / mark]
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=house.project,
        env={**house.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list(scratch.glob("verify-*/run/steps.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None, "it had ended before"
    process.terminate()
    assert process.wait(30) == 143
    assert list(scratch.glob("verify-*")) == []
    running = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(scratch) not in running


def test_fewer_threads_than_the_configuration_asks_for(house, tmp_path):
    """By OpenMP's limit, or with one processor: no waiting for ever, the same bits."""
    options = ["--config", SMOKE, "determinism.num_threads=2", "model.width=128"]
    options += ["training.num_epochs=1", "--run-dir"]
    plain, *tight = (tmp_path / name for name in ("plain", "limit", "processor"))
    house.plain("train.py", *options, plain)
    command = [house.python, "train.py", *options]
    for run_dir, wrap, env in zip(tight, ([], ["taskset", "-c", "0"]), THREADS, strict=True):
        done = run(house, [*wrap, *command, run_dir], house.project, **env)
        assert done.returncode == 0, done.stderr
        for name in RESULTS:
            assert (run_dir / name).read_bytes() == (plain / name).read_bytes(), name


def test_a_matplotlibrc_where_the_command_is_typed(house, tmp_path):
    """Another folder's settings: curves are drawn by matplotlib's own, the run is the same."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nbackend: nonsense\n")
    options = ["--config", house.project / SMOKE, "--run-dir", tmp_path / "r"]
    done = run(house, [house.python, house.project / "train.py", *options], tmp_path)
    assert (done.returncode, "warning" in done.stderr) == (0, False), done.stderr
    assert (tmp_path / "r" / "curves.png").stat().st_size > 10_000
    assert house.differences(tmp_path / "r") == []
