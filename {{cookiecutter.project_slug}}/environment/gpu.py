"""What the driver says of the GPUs here, and whether this project's CUDA fits them."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

from locked import settings

QUERY = ("nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader")


def gpu_report(environment: str) -> str:
    """One phrase for the line that `make setup` ends with; warnings go to stderr."""
    gpus = list(_gpus())
    wanted = settings()["environments"][environment]
    for problem in gpu_problems(gpus, wanted):
        print(f"warning: {problem}", file=sys.stderr)
    if "cuda" not in wanted:
        return "no GPU needed"
    return f"GPU: {', '.join(name for name, *_ in gpus)}" if gpus else "no GPU seen"


def gpu_problems(gpus: list[tuple[str, str, str]], wanted: dict) -> Iterator[str]:
    """Drivers that are too old, and GPUs that the wheels hold no code for."""
    if "cuda" not in wanted:
        return
    if not gpus:
        yield "no GPU seen: this environment trains on the CPU here; ACCELERATOR=cpu is smaller"
    for name, driver, capability in dict.fromkeys(gpus):
        if numbers(driver) < numbers(wanted["min_driver"]):
            yield f"driver {driver} is older than {wanted['min_driver']}; update it"
        low, high = wanted["compute_capability"]
        if not numbers(low) <= numbers(capability) <= numbers(high):
            yield (
                f"{name} has compute capability {capability}; this PyTorch has code for "
                f"{low} to {high}: choose another stack"
            )


def _gpus() -> Iterator[tuple[str, str, str]]:
    if not shutil.which(QUERY[0]):
        return
    done = subprocess.run(QUERY, capture_output=True, text=True)
    # It has a sentence where it finds none.
    yield from re.findall(r"^(.+), ([\d.]+), ([\d.]+)$", done.stdout, re.MULTILINE)


def numbers(version: str) -> tuple[int, ...]:
    """A version of digits and dots, as something that compares."""
    return tuple(int(part) for part in re.findall(r"\d+", version))
