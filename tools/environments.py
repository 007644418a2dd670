"""The table of stack x manager x platform: locked, hashed, installed, trained, or why not.

python tools/environments.py                                             (`make environments`)

Every cell is checked: each project is baked and runs its own lock check, for each Python; those
whose PyTorch wheel is available here are also set up, train and verify. Writes the page
docs/environments.md.
"""

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import template_logic as logic  # noqa: E402  (the template's root is not a package)
from tools import demo, project_locks, pytorch_index  # noqa: E402

PAGE = ROOT / "docs" / "environments.md"
REAL = "torch-2.13.0-cpu"
HERE = ".".join(map(str, sys.version_info[:2]))
HEAD = f"""# Stacks, managers, platforms

Written by `make environments`. A cell names the Pythons for which a project is born with the whole
lock of that environment, every file with its sha256; the project's own `make lock-check` found
nothing wrong with it on that platform. `make lock`: the project starts without a lock and makes it
in one command, since conda-forge is out of reach of the template's authors (channel), or since the
hashes of the PyTorch index's builds are not known ahead (index).

- Installed, trained and verified on the machine that wrote this (Linux x86_64, Python {HERE}):
  `{REAL}` with pip, uv and poetry; what poetry had locked was installed by pip, as
  from any mirror. Nothing else was installed: no GPU, no other wheel.
- CUDA builds that PyPI serves are locked from metadata. The hashes of the PyTorch index's builds
  come from public lock files (`data/stacks.json` says how many agree).
- `make lock` of conda and pixi was never run: no conda channel at hand. What reads their locks is
  tested on made-up files in the published formats.

"""


def locked(job: tuple[str, str, str]) -> dict[str, bool]:
    """Whether a new project has a lock, for each environment and platform; a wrong lock aborts."""
    manager, stack, python = job
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        answers = {"dependency_manager": manager, "stack": stack, "python_version": python}
        project = project_locks.bake(scratch, **answers)
        for name in logic.stack(stack)["accelerators"]:
            command = [sys.executable, project / "environment" / "check.py", "--json"]
            done = subprocess.run([*command, "--environment", name], capture_output=True, text=True)
            problems = json.loads(done.stdout)["problems"]
            if done.returncode == 1:
                sys.exit(f"error: {job}: {problems}")
            assert (done.returncode == 0) == logic.lock_is_shipped(answers, name)
            found |= dict.fromkeys(problems, done.returncode == 0)
    return found


def trained(manager: str) -> str:
    """Set up, train and verify the stack whose wheel is here; return the verdict of `verify`."""
    with tempfile.TemporaryDirectory() as scratch:
        answers = {"dependency_manager": manager, "stack": REAL, "python_version": HERE}
        project = project_locks.bake(scratch, **answers)
        torch = logic.stack(REAL)["torch"]
        with demo.local_torch(project, torch, locks=False):
            verbs = ["setup", "lock-check", "train", "verify", "CONFIG=configs/smoke.yaml"]
            command = ["make", *verbs, "ACCELERATOR=cpu", f"PYTHON={sys.executable}"]
            done = subprocess.run(
                command, cwd=project, env=demo.environment(), capture_output=True, text=True
            )
    return done.stdout.splitlines()[-1] if done.returncode == 0 else f"failed: {done.stderr[-300:]}"


def managers(release: dict) -> list[str]:
    """The managers that a row of the matrix may have."""
    return release.get("managers") or list(logic._data("managers")["managers"])


def rows(results: dict[tuple[str, str, str], dict[str, bool]], done: list[str]) -> list[str]:
    """The table, one line per stack, manager and environment; `done` trained with `REAL`."""
    platforms = logic.LOCKED_PLATFORMS
    lines = ["| stack | manager | environment | " + " | ".join(platforms) + " |", "|---" * 6 + "|"]
    for stack, (release, _) in logic.stack_names().items():
        for manager in managers(release):
            for name in logic.stack(stack)["accelerators"]:
                cells = [_cell(results, manager, stack, name, p, release) for p in platforms]
                if (stack, name) == (REAL, "cpu") and manager in done:
                    cells[0] += f"; with {HERE} installed, trained, verified"
                lines.append(f"| `{stack}` | {manager} | {name} | {' | '.join(cells)} |")
    return lines


def _cell(results, manager, stack, name, platform, release) -> str:
    title = f"{name} {platform}"
    jobs = {python: results[manager, stack, python] for python in release["python"]}
    if not any(title in found for found in jobs.values()):
        return "not for this platform"
    pythons = [python for python, found in jobs.items() if found.get(title)]
    if pythons:
        return ", ".join(pythons)
    conda = manager in ("conda", "pixi")
    return f"`make lock` ({'channel' if conda else 'index'})"


def main() -> int:
    """Check every cell and write the page."""
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    jobs = [
        (manager, stack, python)
        for stack, (release, _) in logic.stack_names().items()
        for manager in managers(release)
        for python in release["python"]
    ]
    with ProcessPoolExecutor(max_workers=2) as pool:
        results = dict(zip(jobs, pool.map(locked, jobs, chunksize=8), strict=True))
    verdicts = {}
    if pytorch_index.find_wheel(logic.stack(REAL)["torch"]):
        verdicts = {manager: trained(manager) for manager in ("pip", "uv", "poetry")}
    table = rows(results, [m for m, verdict in verdicts.items() if verdict == "IDENTICAL"])
    print("\n".join(table))
    for manager, verdict in verdicts.items():
        print(f"{REAL}, {manager}, Python {HERE}: {verdict}")
    cells = sum(sum(found.values()) for found in results.values())
    print(f"{len(jobs)} projects checked, {cells} locks of an environment on a platform hold")
    if not verdicts or set(verdicts.values()) != {"IDENTICAL"}:
        print("error: not every project trained; the page is not written", file=sys.stderr)
        return 1
    PAGE.write_text(HEAD + "\n".join(table) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
