"""`slurm/train.sbatch` without a Slurm: what it asks Slurm for when it is signalled.

`tests/test_slurm.py` submits it to a real one, where an array of several tasks that all reach their
limit would take minutes.
"""

import os
import signal
import subprocess
import time

import pytest
from conftest import ROOT

TORCH = ROOT / "{{cookiecutter.project_slug}}" / "_overlays" / "__framework" / "torch"
SCRIPT = TORCH / "slurm" / "train.sbatch"
SRUN = """#!/bin/sh
echo "srun $*" >> calls
touch started
until [ -e asked ]; do sleep 0.02; done
sleep 0.2
exit {code}
"""
SCANCEL = '#!/bin/sh\necho "scancel $*" >> calls\ntouch asked\n'
# As Slurm does, which ends the script that it takes back.
SCONTROL = '#!/bin/sh\necho "scontrol $*" >> calls\n[ "$1" != requeue ] || kill -9 $PPID\necho n1\n'
JOB = {"SLURM_JOB_ID": "70", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "n1"}
TASK = {"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "2"}


def started(folder, code, **variables):
    """The script, with programs in place of Slurm's; the training ends with `code` if asked to."""
    programs = {"srun": SRUN.format(code=code), "scancel": SCANCEL, "scontrol": SCONTROL}
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    environ = {"PATH": f"{folder}:{os.environ['PATH']}", **JOB, **variables}
    return subprocess.Popen(
        ["bash", SCRIPT, "--config", "c.yaml"], cwd=folder, env=environ, stdout=subprocess.DEVNULL
    )


def signalled(folder, code, **variables):
    """The exit code and what was asked of Slurm, after its signal before the limit."""
    job = started(folder, code, **variables)
    deadline = time.monotonic() + 30
    while not (folder / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    ended = job.wait(timeout=30)
    return ended, (folder / "calls").read_text().splitlines()


@pytest.mark.parametrize(("variables", "job"), [({}, "70"), (TASK, "70_2")])
def test_a_job_that_is_cut_short_takes_itself_back_and_no_other(tmp_path, variables, job):
    """Of an array the task: the number of its last task is that of all of them."""
    ended, calls = signalled(tmp_path, 143, **variables)
    assert ended == -signal.SIGKILL
    assert calls[-2:] == [f"scancel --signal=TERM {job}", f"scontrol requeue {job}"]
    (line,) = [call for call in calls if call.startswith("srun ")]
    assert f"--auto-resume --run-dir outputs/slurm-{job} --config c.yaml" in line
    assert ("--seed 2" in line) == bool(variables)


def test_a_job_that_ends_well_though_it_was_signalled_does_not_return(tmp_path):
    """Its last step was the last one of all."""
    ended, calls = signalled(tmp_path, 0)
    assert ended == 0
    assert calls[-1] == "scancel --signal=TERM 70"


def test_a_job_that_fails_has_its_exit_code(tmp_path):
    """And does not return: it would fail again."""
    (tmp_path / "asked").touch()
    assert started(tmp_path, 3).wait(timeout=30) == 3
    assert "requeue" not in (tmp_path / "calls").read_text()
