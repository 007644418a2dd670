"""The portable profile on processors of other makers and years, emulated; `fast` as the control.

Needs qemu-user (`qemu-x86_64`), and the demo's environment (`make demo` makes it).
An emulator executes the instructions that a processor of that name has, so libraries choose their
code as they would there; it cannot show what a chip's own approximate instructions give.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools import demo  # noqa: E402  (the root is not a package)

PROJECT = ROOT / "build" / "demo" / "demo-project"
CPUS = ("Haswell", "Skylake-Client", "EPYC-Rome", "EPYC-Milan")
WORKLOADS = {
    "smoke": ["--config", "configs/smoke.yaml"],
    "baseline, 2 epochs": ["--config", "configs/baseline.yaml", "training.num_epochs=2"],
}


def main() -> None:
    """Print, for each workload and profile, which processors give this machine's weights."""
    if not shutil.which("qemu-x86_64"):
        sys.exit("error: qemu-x86_64 is missing; install qemu-user")
    for name, arguments in WORKLOADS.items():
        for profile in ("portable", "fast"):
            here = weights(None, profile, arguments)
            for cpu in CPUS if profile == "portable" else CPUS[::2]:
                started = time.monotonic()
                equal = weights(cpu, profile, arguments) == here
                seconds = time.monotonic() - started
                verdict = "equal bits" if equal else "different bits"
                print(f"{name}, {profile}: {cpu} emulated, {verdict} ({seconds:.0f} s)", flush=True)


def weights(cpu: str | None, profile: str, arguments: list[str]) -> bytes:
    """The final weights of a run on this processor, or on an emulated one."""
    emulator = ["qemu-x86_64", "-cpu", cpu] if cpu else []
    with tempfile.TemporaryDirectory() as scratch:
        run_dir = Path(scratch) / "run"
        command = [*emulator, ".venv/bin/python", "-m", "demo_project", "train"]
        command += ["--run-dir", run_dir, *arguments, f"determinism.profile={profile}"]
        environ = {**demo.settled(), **(demo.PORTABLE if profile == "portable" else {})}
        subprocess.run(command, cwd=PROJECT, env=environ, check=True, capture_output=True)
        return (run_dir / "model.safetensors").read_bytes()


if __name__ == "__main__":
    main()
