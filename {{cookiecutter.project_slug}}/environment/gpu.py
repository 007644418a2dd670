"""The GPUs and driver of this machine, and whether they support this project's CUDA."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

from locked import settings

QUERY = ("nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader")


def warn_of_gpus(environment: str) -> None:
    """Warn on stderr about incompatible GPUs, before gigabytes are downloaded."""
    for problem in gpu_problems(list(_gpus()), settings()["environments"][environment]):
        print(f"warning: {problem}", file=sys.stderr, flush=True)


def gpu_report(environment: str) -> str:
    """A phrase about the GPUs for the last line of `make setup`."""
    if "cuda" not in settings()["environments"][environment]:
        return "no GPU needed"
    gpus = list(_gpus())
    return f"GPU: {', '.join(name for name, *_ in gpus)}" if gpus else "no GPU seen"


def gpu_problems(gpus: list[tuple[str, str, str]], wanted: dict) -> Iterator[str]:
    """Drivers that are too old, and GPUs for which the wheels contain no code."""
    if "cuda" not in wanted:
        return
    if not gpus:
        whole, small = ("8 GB", "2 GB") if "tensorflow" in wanted else ("6 GB", "1.5 GB")
        yield (
            f"no NVIDIA GPU or driver seen: the CUDA environment ({whole}) trains on the CPU here; "
            f"make setup ACCELERATOR=cpu needs about {small}, and ACCELERATOR=cpu in .env makes it "
            "the default"
        )
    for name, driver, capability in dict.fromkeys(gpus):
        if numbers(driver) < numbers(wanted["min_driver"]):
            yield f"driver {driver} is older than {wanted['min_driver']}; update it"
        low, high = wanted["compute_capability"]
        if not numbers(low) <= numbers(capability) <= numbers(high):
            yield (
                f"{name} has compute capability {capability}; this build has code for "
                f"{low} to {high}: choose another stack"
            )


def _gpus() -> Iterator[tuple[str, str, str]]:
    if not shutil.which(QUERY[0]):
        return
    done = subprocess.run(QUERY, capture_output=True, text=True)
    # If it finds no GPU, it prints a sentence instead.
    yield from re.findall(r"^(.+), ([\d.]+), ([\d.]+)$", done.stdout, re.MULTILINE)


def numbers(version: str) -> tuple[int, ...]:
    """A dotted version number as a tuple that can be compared."""
    return tuple(int(part) for part in re.findall(r"\d+", version))
