"""Environment variables of a run: `.env`, `${NAME}`, and what must be set before the start."""

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dotenv import dotenv_values

from .backend import facts
from .redact import without_secrets
from .shell import imports, is_foreign

if TYPE_CHECKING:  # `--help` needs no pydantic
    from .config.base import Paths, Tracking
    from .config.run_config import RunConfig

MAX_HASH = 2**32 - 1
"""Largest PYTHONHASHSEED that Python accepts."""
_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")

_CPU_NUMBERS = ("cpu family", "model", "stepping")


def load_env_file(path: str | Path = ".env") -> None:
    """Load `.env` into the environment variables; those already set keep their values.

    Variables that choose threads, instruction sets or imports are skipped: `.env` has no say in
    them.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise ValueError(f"{path} is not a file; a pipe would be waited for, without an end")
    try:
        values = dotenv_values(path, encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    for name, value in values.items():
        allowed = name in facts.SETTINGS or not is_foreign(name)
        if value is not None and allowed and name not in imports({}):
            os.environ.setdefault(name, value)


def resolve(config: "RunConfig", environ: Mapping[str, str]) -> "tuple[Paths, Tracking]":
    """The `paths` and `tracking` sections with every `${NAME}` replaced by its value.

    Raises:
        ValueError: variables have neither a value nor a default (all are named at once), or an
            address contains a password that would end up in the record.
    """
    if without_secrets(config.tracking.mlflow_uri) != config.tracking.mlflow_uri:
        raise ValueError(
            "tracking.mlflow_uri holds a user or password, and a run's record keeps the "
            "configuration; set it as MLFLOW_TRACKING_URI, in the shell or in .env"
        )
    both = (config.paths, config.tracking)
    texts = [text for section in both for _, text in section]
    missing = {
        match["name"]
        for text in texts
        for match in _REFERENCE.finditer(text)
        if match["default"] is None and not environ.get(match["name"])
    }
    if missing:
        raise ValueError(
            f"missing environment variables: {', '.join(sorted(missing))}; "
            "set them in .env (.env.example lists them)"
        )
    paths, tracking = (
        section.replace(**{key: resolve_text(text, environ) for key, text in section})
        for section in both
    )
    return paths, tracking


def resolve_text(text: str, environ: Mapping[str, str]) -> str:
    """`text` with every `${NAME}` and `${NAME:-default}` replaced; empty if there is no value."""
    return _REFERENCE.sub(lambda found: environ.get(found["name"]) or found["default"] or "", text)


def wanted_environment(config: "RunConfig", environ: Mapping[str, str]) -> dict[str, str | None]:
    """Variables that only take effect if set before the interpreter and its libraries start.

    `None` means that a variable must be unset. The hash seed and cuBLAS's workspace are filled in
    only if unset: a run must give the same bits with any value of them. Threads,
    instruction sets and precision belong to the configuration, which wins (`shell.py`).

    Raises:
        ValueError: Python would refuse the hash seed, or this CPU cannot run the profile.
    """
    threads = str(config.determinism.num_threads)
    hash_seed = environ.get("PYTHONHASHSEED", "0")
    if hash_seed != "random" and not (hash_seed.isdecimal() and int(hash_seed) <= MAX_HASH):
        raise ValueError(f"PYTHONHASHSEED must be random or 0 to {MAX_HASH}, got {hash_seed!r}")
    portable = config.determinism.profile == "portable"
    if portable:
        check_portable()
    fixed = {
        "PYTHONHASHSEED": hash_seed,
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "OMP_DYNAMIC": "FALSE",
        **facts.variables(environ, config.determinism),
        **{name: value if portable else None for name, value in facts.PORTABLE.items()},
    }
    foreign = (name for name in environ if is_foreign(name) and name not in fixed)
    return {**dict.fromkeys(foreign), **imports(environ), **fixed}


def check_portable() -> None:
    """Raise a `ValueError` unless this machine can run the portable profile."""
    processor, flags = read_cpu()
    if "avx2" not in flags:
        raise ValueError(
            "determinism.profile is portable, which needs an x86-64 CPU with AVX2; this is "
            f"{processor}; use determinism.profile=fast"
        )


def read_cpu() -> tuple[str, set[str]]:
    """Name of the processor, and its instruction-set flags: an empty set outside Linux.

    A virtual machine may report one name for many models, so family, model and stepping follow.
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
