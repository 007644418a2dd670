"""A container engine for the tests: the running one, or Debian's, unpacked and started.

Nothing is installed: docker, buildx and compose come from Debian's packages, unpacked into a
separate folder that also holds the engine's data. It needs root and Debian's archive.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SUITE = "trixie"  # its docker runs with the libc of bookworm, which has no buildx
PACKAGES = ("docker.io", "docker-cli", "docker-buildx", "docker-compose", "containerd", "tini")
GPU_HOOK = "nvidia-container-runtime-hook"


class EngineError(Exception):
    """Why there is no engine here, in one line."""


@contextmanager
def running(
    folder: Path, *, gpu: bool = True, programs: Path | None = None
) -> Iterator[dict[str, str]]:
    """Variables under which `docker` answers; an engine that already runs is taken as it is.

    `gpu` gives our own engine a stand-in for NVIDIA's hook; without it another one is started in
    any case, with the programs that were unpacked in `programs`.
    """
    if gpu and _answers(os.environ):
        yield dict(os.environ)
        return
    folder.mkdir(parents=True, exist_ok=True)
    environ = _variables(folder, _unpacked(programs or folder), gpu)
    if _answers(environ):  # left behind by killed tests
        yield environ
        return
    log = (folder / "dockerd.log").open("w")
    # No bridge or firewall rules: builds use the host's network instead.
    command = ["dockerd", f"--data-root={folder}/data", f"--exec-root={folder}/exec"]
    command += ["-H", environ["DOCKER_HOST"], f"--pidfile={folder}/pid", "--bridge=none"]
    command += [f"--init-path={environ['TINI']}", "--iptables=false"]
    command += ["--ip6tables=false", "--ip-forward=false"]
    daemon = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
    try:
        for _ in range(120):
            if _answers(environ):
                break
            if daemon.poll() is not None:
                break
            time.sleep(0.5)
        if not _answers(environ):
            last = (folder / "dockerd.log").read_text().strip().splitlines()[-1:]
            raise EngineError(f"dockerd did not start: {' '.join(last)}")
        yield environ
    finally:
        daemon.terminate()
        daemon.wait()
        log.close()
        _unmount(folder)


def _unmount(folder: Path) -> None:
    """Unmount what the engine left mounted, which would prevent removing the folder."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], capture_output=True)


def _answers(environ: dict[str, str]) -> bool:
    """Whether an engine with buildx and compose answers."""
    try:
        return all(
            subprocess.run(["docker", *words], env=environ, capture_output=True).returncode == 0
            for words in (["info"], ["buildx", "version"], ["compose", "version"])
        )
    except OSError:
        return False


def _unpacked(folder: Path) -> Path:
    """Download and unpack what is missing; return the root of the packages' files."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise EngineError("no container engine answers, and only root on Debian can unpack one")
    if not shutil.which("runc"):
        install("runc", "iptables")
    root = folder / "engine"
    if (root / "usr/sbin/dockerd").exists():
        return root
    debs = folder / "debs"
    for needed in (folder / "lists/partial", folder / "cache/archives/partial", debs):
        needed.mkdir(parents=True, exist_ok=True)
    (folder / "sources.list").write_text(f"deb [signed-by={KEYRING}] {MIRROR} {SUITE} main\n")
    options = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": folder / "cache",
    }
    apt = ["apt-get", *(f"-o{name}={value}" for name, value in options.items())]
    run([*apt, "--quiet", "update"], debs)
    run([*apt, "--quiet", "download", *PACKAGES], debs)
    for deb in sorted(debs.glob("*.deb")):
        run(["dpkg-deb", "--extract", str(deb), f"{root}.partial"], debs)
    Path(f"{root}.partial").rename(root)
    shutil.rmtree(debs)
    return root


def _variables(folder: Path, root: Path, gpu: bool) -> dict[str, str]:
    plugins = folder / "client/cli-plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    for plugin in (root / "usr/libexec/docker/cli-plugins").iterdir():
        (plugins / plugin.name).unlink(missing_ok=True)
        (plugins / plugin.name).symlink_to(plugin)
    path = [root / "usr/bin", root / "usr/sbin", root / "usr/libexec/docker"]
    if gpu:
        # Replaces NVIDIA's: the engine passes `--gpus` to the program of this name on its path.
        hook = folder / "gpu" / GPU_HOOK
        hook.parent.mkdir(exist_ok=True)
        hook.write_text("#!/bin/sh\ncat >/dev/null\nexit 0\n")
        hook.chmod(0o755)
        path.append(hook.parent)
    return {
        **os.environ,
        "PATH": os.pathsep.join([*map(str, path), os.environ["PATH"]]),
        "DOCKER_HOST": f"unix://{folder}/docker.sock",
        "DOCKER_CONFIG": str(folder / "client"),
        "TINI": str(root / "usr/bin/tini-static"),
    }


def install(*packages: str) -> None:
    """Install packages of the machine's own Debian."""
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "--quiet", "update"], environ=environ)
    command = ["apt-get", "--quiet", "install", "--yes", "--no-install-recommends", *packages]
    run(command, environ=environ)


def run(command: list[str], cwd: Path | None = None, environ: dict[str, str] | None = None) -> None:
    """Run a command; its failure is an `EngineError` in one line."""
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["it said nothing"]
        raise EngineError(f"{' '.join(command)[:100]} failed: {lines[-1]}")
