"""Coverage-guided fuzzing of a generated project's config loader, for a fixed number of inputs.

python tools/fuzz_config.py COUNT            (`make test`: thousands, `make test-slow`: many)

A config is taken or refused with a `ValueError` of one line; anything else stops the fuzzer, which
prints the input. libFuzzer mutates the shipped configs and keeps what reaches new branches.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.unrendered import DEFAULT, copy_package  # noqa: E402  (the root is not a package)


def run(count: int, folder: Path) -> subprocess.CompletedProcess[str]:
    """Fuzz in a process of its own; exit code 0 if nothing was found."""
    copy_package(folder / "fuzzed_package")
    corpus = Path(shutil.copytree(DEFAULT / "configs", folder / "corpus"))
    command = [sys.executable, str(Path(__file__).resolve()), "--child", str(folder), str(corpus)]
    command += [
        f"-runs={count}",
        "-seed=1",
        "-max_len=2000",
        "-timeout=20",
        f"-artifact_prefix={folder}/",
    ]
    return subprocess.run(command, capture_output=True, text=True)


def child(folder: str, *options: str) -> None:
    """The fuzzer itself."""
    import atheris

    sys.path.insert(0, folder)
    with atheris.instrument_imports(include=["fuzzed_package", "yaml"]):
        from fuzzed_package import config
        from fuzzed_package.repro.config import load
    path = Path(folder) / "config.yaml"

    def one(data: bytes) -> None:
        # The first byte decides whether the rest is a file, or an override of a minimal one.
        as_override = data[:1] == b"="
        path.write_bytes(b"seed: 0\n" if as_override else data)
        overrides = [data[1:].decode(errors="replace")] if as_override else []
        try:
            loaded = config.load_config(path, overrides)
        except ValueError as error:
            assert len(str(error).splitlines()) == 1, str(error)
            return
        assert load.config_from_dict(config.Config, load.to_dict(loaded)) == loaded

    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        child(*sys.argv[2:])
    with tempfile.TemporaryDirectory() as scratch:
        done = run(int(sys.argv[1]), Path(scratch))
    print(*re.findall(r"^(?:#\d+\s+DONE.*|Done .*|==.*)$", done.stderr, re.MULTILINE), sep="\n")
    sys.exit(done.returncode)
