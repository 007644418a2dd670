"""`gpu-proof`: the project's own proof on this machine's GPU, and what it costs.

Everything but the device runs without one, too (`--device cpu`): the same code, for a rehearsal.
"""

import datetime
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from ..backend import facts
from ..config.load import config_from_dict, flatten, to_dict
from ..config.run_config import RunConfig
from ..entry import for_children
from ..files import PROJECT, find_project_root, write_whole
from ..proof.readme import around, row
from ..run.manifest import describe_code, describe_environment, describe_hardware
from .probe import SPEED
from .proof import SCENARIOS, Proof

FILE = "gpu-proof.json"
BEGIN, END = "<!-- proved on: make gpu-proof -->", "<!-- end of proved on -->"
HEAD = ["GPU", "driver", "CUDA", facts.NAME, "proof", "loop / plain loop", "deterministic / not"]
PAIRS = 5
TWICE: dict[str, tuple[str, ...]] = {
    "twice in fresh processes": (),
    "TF32 off, twice": ("determinism.matmul_precision=ieee",),
    "TF32 on, twice": ("determinism.matmul_precision=tf32",),
    **({"bfloat16 autocast, twice": ("--probe", "mixed-precision")} if facts.AUTOCAST else {}),
}
"""What is trained twice, each time by a process of its own, and must give the same bits."""

Verdict = dict[str, Any]


def gpu_proof(
    config_class: type[RunConfig], *, config: Path, speed_config: Path, device: str, pairs: int
) -> int:
    """Run everything that must not matter, with the configuration `config` on `device`, and measure
    the loop with `speed_config`; write `gpu-proof.json` and a row into the README. Returns 0 if
    every comparison came out as it must, else 1.

    An environment that is not the lock's is recorded, not refused.

    Raises:
        ValueError: there is no GPU, or a file is missing.
    """
    root = find_project_root()
    hardware = describe_hardware(_accelerator())
    if device == "cuda" and not hardware["gpus"]:
        raise ValueError(
            "this Python sees no GPU (nvidia-smi shows the driver's, and make setup "
            "ACCELERATOR=cuda installs a build for it); --device cpu rehearses the proof"
        )
    for path in (config, speed_config):
        if not path.is_file():
            raise ValueError(f"no configuration {path}")
    overrides = _on(device, config_class)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpu-proof-") as scratch:
        verdicts = _verdicts(config.resolve(), Path(scratch), overrides)
        ratios = _ratios(speed_config.resolve(), Path(scratch), overrides, pairs)
    environment = describe_environment(root)
    report = {
        "schema": 1,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started),
        "device": device,
        "hardware": hardware,
        "environment": environment,
        "differs_from_lock": _differences(root, device),
        "code": describe_code(root),
        "configs": [str(config), str(speed_config)],
        "verdicts": verdicts,
        "ratios": ratios,
    }
    line = _row(report)
    write_whole(root / FILE, json.dumps({**report, "row": line}, indent=2, ensure_ascii=False))
    # A rehearsal proves nothing about a GPU.
    written = device == "cuda" and into_readme(root / "README.md", line)
    print(line)
    print(f"written: {FILE}{', README.md' if written else ''}")
    failed = [name for name, each in verdicts.items() if not each["ok"]]
    print(f"NOT PROVED: {', '.join(failed)}" if failed else "PROVED")
    return 1 if failed else 0


def _accelerator() -> dict[str, Any]:
    # Asked by a process of its own: this one would hold memory of the GPU while others measure.
    lines = ["import json", f"from {PROJECT}.repro.backend.device import describe_accelerator"]
    code = "; ".join([*lines, "print(json.dumps(describe_accelerator()))"])
    done = subprocess.run(
        [sys.executable, "-c", code], env=for_children(), capture_output=True, text=True
    )
    if done.returncode:
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        raise ValueError(f"this Python cannot load the project's packages: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def _on(device: str, config_class: type[RunConfig]) -> tuple[str, ...]:
    keys = flatten(to_dict(config_from_dict(config_class, {"seed": 0})))
    return tuple(f"{key}={device}" for key in keys if key.rpartition(".")[2] == "device")


def _verdicts(config: Path, scratch: Path, overrides: tuple[str, ...]) -> dict[str, Verdict]:
    verdicts: dict[str, Verdict] = {}

    def judge(name: str, compare: Callable[[], object]) -> None:
        started = time.monotonic()
        try:
            ok, reason = bool(compare()), None
        except Exception as error:  # whatever it is, the other verdicts are worth having
            said = " ".join(str(error).split())[-300:]
            ok, reason = False, said or type(error).__name__
        seconds = round(time.monotonic() - started, 1)
        verdicts[name] = {"ok": ok, "reason": reason, "seconds": seconds}
        print(f"{'ok' if ok else 'NO':<3} {name}{f': {reason}' if reason else ''}", flush=True)

    with Proof(config, scratch / "proof", overrides) as proof:
        for name in SCENARIOS:
            judge(name, lambda name=name: proof.bits(name) == proof.bits("plain"))
        # Without this one, a comparison that sees nothing would pass all others.
        judge("another seed", lambda: proof.first_step("seed 1") != proof.first_step("plain"))
        judge("verify", lambda: proof.verify("plain").returncode == 0)
        for name, arguments in TWICE.items():
            folder = scratch / name.replace(" ", "-").replace(",", "")

            def twice(folder: Path = folder, arguments: tuple[str, ...] = arguments) -> bool:
                runs = [folder / "a", folder / "b"]
                for run_dir in runs:
                    _train(config, run_dir, *overrides, *arguments)
                return proof.bits_of(runs[0]) == proof.bits_of(runs[1])

            judge(name, twice)
    return verdicts


def _ratios(
    config: Path, scratch: Path, overrides: tuple[str, ...], pairs: int
) -> dict[str, list[float] | str]:
    """Speeds of neighbours, divided: each pair again, so that a machine that warms up or is busy
    affects both. Or why they cannot be measured: a loop of the task's own, a flag it does not
    have, too little memory."""
    cases = {
        "loop / plain loop": (("--probe", "timed"), ("--probe", "unrecorded")),
        "deterministic / not": (
            ("--probe", "unrecorded"),
            ("--probe", "unrecorded", *facts.FASTEST),
        ),
    }
    found: dict[str, list[float] | str] = {}
    for name, both in cases.items():

        def speed(number: int, side: int, name: str = name, both: tuple = both) -> float:
            run_dir = scratch / f"{name.partition(' ')[0]}-{number}-{side}"
            said = _train(config, run_dir, *overrides, *both[side])
            return float(said.partition(SPEED)[2].split()[0])

        try:
            found[name] = [round(speed(n, 0) / speed(n, 1), 4) for n in range(pairs)]
            shown = f"{median(found[name]):.3f} (median of {pairs})"
        except (ValueError, IndexError) as error:
            found[name] = shown = f"not measured: {error or 'the loop printed no speed'}"
        print(f"{name}: {shown}", flush=True)
    return found


def _train(config: Path, run_dir: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", PROJECT, "train", "--scratch", "--config", str(config)]
    command += ["--run-dir", str(run_dir), *arguments, "tracking.mlflow_uri="]
    done = subprocess.run(command, env=for_children(), capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"exit code {done.returncode}: {done.stderr[-300:]}")
    return done.stdout


def _differences(root: Path, device: str) -> list[str] | None:
    """How the installed packages differ from the lock; `None` if that cannot be told."""
    check = root / "environment" / "check.py"
    command = [sys.executable, str(check), "--json", "--installed", device]
    done = subprocess.run(command, capture_output=True, text=True)
    with suppress(ValueError, KeyError, AttributeError):
        problems = json.loads(done.stdout)["problems"]
        return [f"{title}: {each}" for title, found in problems.items() for each in found]
    return None


def _row(report: Mapping[str, Any]) -> str:
    hardware, verdicts = report["hardware"], report["verdicts"].values()
    packages = report["environment"]["packages"]
    on_gpu = report["device"] == "cuda"
    driver = next(iter((hardware["driver"] or "none").split("  ")[1:2]), hardware["driver"])
    return row(
        [
            ", ".join(dict.fromkeys(hardware["gpus"])) if on_gpu else f"none: {hardware['cpu']}",
            driver if on_gpu else "none",
            hardware["cuda"] if on_gpu else "none",
            next((packages[n] for n in facts.PACKAGES if n in packages), "none"),
            f"{sum(each['ok'] for each in verdicts)} of {len(verdicts)}",
            *(
                "-" if isinstance(values, str) else f"{median(values):.2f}"
                for values in report["ratios"].values()
            ),
        ]
    )


def into_readme(path: Path, line: str) -> bool:
    """Add the row, or replace the one of the same GPU, driver and PyTorch."""
    try:
        text = path.read_text(encoding="utf-8")
        before, after = around(text, BEGIN, END)
    except (OSError, ValueError):
        return False  # a README of the user's own
    lines = text[len(before) : len(text) - len(after)].splitlines()
    same = line.split("|")[1:5]
    rows = [each for each in lines[2:] if each.split("|")[1:5] != same]
    table = [row(HEAD), "|---" * len(HEAD) + "|", *rows, line]
    path.write_text(before + "".join(f"{each}\n" for each in table) + after, encoding="utf-8")
    return True
