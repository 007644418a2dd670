"""A Slurm of one machine for the tests: Debian's packages, started on loopback in a folder.

Controller, nodes and munge run with a configuration, a key and a socket of their own, so that a
Slurm that this machine may already be part of is not touched. It needs root and Debian's archive.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tools.engine import EngineError, install, run

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
PORT = 16817
PATIENCE = 30
"""Seconds until all nodes are ready."""
CONFIG = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldLogFile={folder}/log/slurmctld
SlurmdLogFile={folder}/log/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
JobRequeue=1
KillWait=20
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
"""`cred_expire` is how long a job that was taken back waits: 120 seconds by default."""


@contextmanager
def running(folder: Path, *, nodes: int = 2, cpus: int = 4) -> Iterator[dict[str, str]]:
    """Variables under which `sbatch` reaches a cluster of `nodes` nodes, all on this machine.

    Raises:
        EngineError: there are no packages, or a daemon does not start; one line.
    """
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            raise EngineError(f"no {missing[0]}: only root on Debian can install Slurm")
        install(*PACKAGES)
    names = [f"n{number}" for number in range(1, nodes + 1)]
    for name in ("state", "log", *(f"spool/{name}" for name in names)):
        (folder / name).mkdir(parents=True, exist_ok=True)
    host = socket.gethostname().partition(".")[0]
    lines = [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={PORT + number} CPUs={cpus} "
        "RealMemory=2000 State=UNKNOWN"
        for number, name in enumerate(names, start=1)
    ]
    text = CONFIG.format(host=host, port=PORT, folder=folder, nodes="\n".join(lines))
    (folder / "slurm.conf").write_text(text)
    environ = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    try:
        _start(folder, names, environ)
        yield environ
    finally:
        for file in sorted(folder.glob("*.pid"), reverse=True):
            with suppress(OSError, ValueError):
                os.kill(int(file.read_text()), signal.SIGTERM)


def _start(folder: Path, names: list[str], environ: dict[str, str]) -> None:
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    paths = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid"}
    paths |= {"log-file": "log/munge", "seed-file": "munge.seed"}
    # Forced: it wants folders that only its own user can write to.
    run(["munged", "--force", *(f"--{name}={folder / path}" for name, path in paths.items())])
    run(["slurmctld", "-c"], environ=environ)
    for name in names:
        run(["slurmd", "-N", name], environ=environ)
    deadline = time.monotonic() + PATIENCE
    states = ""
    while time.monotonic() < deadline:
        command = ["sinfo", "--noheader", "--Node", "--format=%T"]
        done = subprocess.run(command, env=environ, capture_output=True, text=True)
        states = done.stdout.split() or done.stderr
        if states == ["idle"] * len(names):
            return
        time.sleep(0.2)
    raise EngineError(f"the nodes of Slurm are not ready: {states}")
