"""What a run takes from the environment: `.env`, `${NAME}`, variables set before the start."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from .config import MAX_SEED, Config, Paths, Tracking

_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")

PORTABLE = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    # MKL chooses its code by the CPU's maker as well; only this value is the same on all of them.
    "MKL_CBWR": "COMPATIBLE",
}
"""What makes torch, oneDNN and MKL take the same instructions on every CPU that has AVX2."""

FOREIGN = (
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_DISABLE_CPU_FEATURES",
    "NPY_ENABLE_CPU_FEATURES",
    "OPENBLAS_CORETYPE",
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
"""Variables of the caller that would change bits behind the configuration's back."""

_AT_START = dict(os.environ)
"""What this process was started with, before `.env` was read."""

_CPU_NUMBERS = ("cpu family", "model", "stepping")


def load_env_file(path: str | Path = ".env") -> None:
    """Read `.env` into the environment; what is set there already stays as it is.

    Instruction sets are the configuration's business: variables that choose them are left out.
    """
    try:
        values = dotenv_values(path)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    for name, value in values.items():
        if value is not None and name not in (*PORTABLE, *FOREIGN):
            os.environ.setdefault(name, value)


def resolve(config: Config, environ: Mapping[str, str]) -> tuple[Paths, Tracking]:
    """The `paths` and `tracking` sections with every `${NAME}` replaced by its value.

    Raises:
        ValueError: variables without a value or a default, all of them named at once.
    """
    missing: set[str] = set()

    def value(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        if not environ.get(name) and default is None:
            missing.add(name)
        return environ.get(name) or default or ""

    paths, tracking = (
        type(section)(**{k: _REFERENCE.sub(value, text) for k, text in vars(section).items()})
        for section in (config.paths, config.tracking)
    )
    if missing:
        raise ValueError(
            f"missing environment variables: {', '.join(sorted(missing))}; "
            "set them in .env (.env.example lists them)"
        )
    return paths, tracking


def wanted_environment(config: Config, environ: Mapping[str, str]) -> dict[str, str | None]:
    """Variables that act only when they are set before the interpreter and its libraries start.

    `None` stands for a variable that must not be set. The hash seed and cuBLAS's workspace are
    filled in where they are unset: a run must give the same bits under any of them. The threads
    and the instruction sets belong to the configuration, which wins.

    Raises:
        ValueError: a hash seed that Python refuses, or a profile that this CPU cannot run.
    """
    threads = str(config.determinism.num_threads)
    hash_seed = environ.get("PYTHONHASHSEED", "0")
    if hash_seed != "random" and not (hash_seed.isdecimal() and int(hash_seed) <= MAX_SEED):
        raise ValueError(f"PYTHONHASHSEED must be random or 0 to {MAX_SEED}, got {hash_seed!r}")
    portable = config.determinism.profile == "portable"
    if portable:
        check_portable()
    return {
        "PYTHONHASHSEED": hash_seed,
        # Required by torch before 2.10 for deterministic matrix products on CUDA, harmless later.
        "CUBLAS_WORKSPACE_CONFIG": environ.get("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "OMP_DYNAMIC": "FALSE",
        "MKL_DYNAMIC": "FALSE",
        **{name: value if portable else None for name, value in PORTABLE.items()},
        **dict.fromkeys(FOREIGN),
    }


def check_portable() -> None:
    """Raise a `ValueError` unless this machine can run the portable profile."""
    processor, flags = read_cpu()
    if "avx2" not in flags:
        raise ValueError(
            "determinism.profile is portable, which needs an x86-64 CPU with AVX2; this is "
            f"{processor}; use determinism.profile=fast"
        )


def read_cpu() -> tuple[str, set[str]]:
    """Name of the processor and its instruction-set flags; no flags where Linux is not.

    A virtual machine may show one name for many models, so family, model and stepping follow it.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine(), set()
    fields = {
        key.strip().lower(): value.strip()
        for key, _, value in (line.partition(":") for line in text.splitlines())
    }
    flags = fields.get("flags") or fields.get("features") or ""
    numbers = [f"{key} {fields[key]}" for key in _CPU_NUMBERS if key in fields]
    name = " ".join([fields.get("model name") or platform.machine(), *numbers])
    return name, set(flags.split())


def restart_with(wanted: Mapping[str, str | None]) -> None:
    """Start this program again with `wanted` in its environment, unless it is so already."""
    if all(environ.get(n) == v for environ in (_AT_START, os.environ) for n, v in wanted.items()):
        return
    command = [sys.executable, *sys.orig_argv[1:]]
    merged = {**os.environ, **wanted}
    environ = {name: value for name, value in merged.items() if value is not None}
    if os.name == "nt":
        # On Windows execve returns to the shell before the new program ends.
        sys.exit(subprocess.run(command, env=environ).returncode)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, command, environ)
