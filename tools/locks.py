"""Make all locks that the template ships, `data/locks/`, and `data/reserved.json`.

python tools/locks.py UV [pip|tools|uv|poetry …]
                         (UV: the uv of the version that data/packages.json names; default: all)

For pip, each release is resolved once from PyPI for all its Pythons and platforms; for uv and
poetry, each stack and Python (`project_locks.py`): metadata only, with nothing newer than the
cut-off date. Hashes of files on the PyTorch index come from `data/stacks.json`; if there are none,
no lock is shipped and `make lock` creates it.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import template_logic as logic  # noqa: E402  (the template's root is not a package)
from tools import project_locks  # noqa: E402

LOCKS = ROOT / "data" / "locks" / "pip"
ONLY_CUDA = re.compile(r"(nvidia-|cuda-|triton)")
SIMPLE = ("--no-header", "--no-annotate", "--no-config", "--quiet")


def resolve(
    uv: str,
    requirements: list[str],
    python: str,
    *options: str,
    without: Collection[str] = (),
) -> dict[str, str]:
    """Resolve for all platforms and all Pythons from `python` on; one block of text per package.
    What only `without` needs stays; those packages themselves are left out."""
    command = [uv, "pip", "compile", "-", "--universal", "--generate-hashes", "--only-binary=:all:"]
    command += ["--python-version", python, "--exclude-newer", logic.cutoff(), *SIMPLE, *options]
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("UV_", "PIP_"))}
    # From 2.12 on, PyTorch's macOS wheels require macOS 14; uv's own target is older.
    environ["MACOSX_DEPLOYMENT_TARGET"] = "14.0"
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as nowhere:
        nowhere.write("".join(f"{name} ; sys_platform == 'none'\n" for name in without))
        nowhere.flush()
        command += ["--overrides", nowhere.name] if without else []
        done = subprocess.run(
            command, input="\n".join(requirements), capture_output=True, text=True, env=environ
        )
    if done.returncode:
        sys.exit(f"error: {' '.join(requirements)}: {done.stderr.strip()}")
    blocks: dict[str, str] = {}
    for block in re.split(r"\n(?=\S)", done.stdout.strip()):
        name = re.match(r"[A-Za-z0-9._-]+", block)[0].lower()
        if name in without:
            continue
        blocks[name] = blocks.get(name, "") + block + "\n"
    return blocks


def write(name: str, title: str, blocks: dict[str, str]) -> None:
    """Write one lock with a comment at the top."""
    path = LOCKS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# {title}\n{''.join(blocks.values())}", encoding="utf-8")


def lock_release(uv: str, release: dict) -> None:
    """Lock one release."""
    if logic.framework_of(release) != "torch":
        _lock_from_pypi(uv, release)
        return
    torch = release["torch"]
    pins = logic.pins("runtime", "dev") | {"numpy": release["numpy"], "torch": torch}
    blocks = resolve(uv, [f"{n}=={v}" for n, v in pins.items()], release["python"][0])
    folder = f"torch-{torch}"
    rest = {name: block for name, block in blocks.items() if name != "torch"}
    write(f"{folder}/torch-cuda.txt", f"PyTorch {torch} from PyPI.", {"torch": blocks["torch"]})
    write(
        f"{folder}/cuda.txt",
        f"What PyTorch {torch} and this project need, CUDA libraries too.",
        rest,
    )
    wheels = release["index_wheels"].get("cpu")
    if wheels:
        plain = {n: b for n, b in rest.items() if not ONLY_CUDA.match(n)}
        write(
            f"{folder}/cpu.txt", f"What PyTorch {torch} and this project need, without CUDA.", plain
        )
        (LOCKS / folder / "torch-cpu.txt").write_text(_index_lock(torch, wheels, blocks["torch"]))


def _lock_from_pypi(uv: str, release: dict) -> None:
    folder, title = logic.release_name(release), logic.release_title(release)
    pins = logic.pins("runtime", "dev") | {"numpy": release["numpy"]}
    stack = f"{folder}-{release['pypi_default']}"
    for environment in ("cpu", "cuda"):
        answers = {"stack": stack, "dependency_manager": "pip"}
        needs = [f"{n}=={v}" for n, v in pins.items()] + logic.requirements(answers, environment)
        blocks = resolve(uv, needs, release["python"][0])
        text = f"What {title} and this project need, {environment} environment."
        write(f"{folder}/{environment}.txt", text, blocks)


def _index_lock(torch: str, wheels: dict, from_pypi: str) -> str:
    hashes = [
        f"    --hash=sha256:{digest}"
        for platform in logic.PYTORCH_PLATFORMS
        for digest in wheels.get(platform, {}).values()
    ]
    requirement = f"torch=={torch}+cpu ; sys_platform == 'linux'"
    # On macOS there is one build, for PyPI and for the index; both list the same versions.
    on_macos = from_pypi.replace(f"torch=={torch}", f"torch=={torch} ; sys_platform == 'darwin'", 1)
    return (
        f"# PyTorch {torch}, CPU build, from the PyTorch index.\n"
        f"--index-url {logic._data('stacks')['accelerators']['cpu']['index']}\n"
        + " \\\n".join([requirement, *hashes])
        + f"\n{on_macos}"
    )


def main(uv: str, *chosen: str) -> None:
    """Create the requested kinds of locks, or all."""
    for kind, make in KINDS.items():
        if kind in chosen or not chosen:
            make(uv)
    _write_names()


def lock_for_pip(uv: str) -> None:
    """Every release, and the notebook's tools."""
    releases = logic.releases()
    for release in releases:
        print(logic.release_title(release), flush=True)
        lock_release(uv, release)
    oldest = min((r["python"][0] for r in releases), key=lambda v: int(v.split(".")[1]))
    newest = LOCKS / logic.release_name(releases[0]) / "cuda.txt"
    pins = [f"{n}=={v}" for n, v in logic.pins("notebook").items()]
    notebook = resolve(uv, pins, oldest, "--constraint", str(newest))
    write("notebook.txt", "Jupyter, for `make notebook`.", notebook)


def lock_tools(uv: str) -> None:
    """Lock the tools that every project runs in separate environments."""
    oldest = min(logic._data("packages")["pythons"], key=lambda v: int(v.split(".")[1]))
    titles = {
        "mlflow": "The MLflow server, for `make mlflow`.",
        "upgrade": "cruft, for `make upgrade`.",
        "audit": "cyclonedx-bom and pip-audit, for `make sbom` and `make audit`.",
        "dvc": "DVC with S3, for `make data`.",
    }
    for name, title in titles.items():
        # Needed only by DVC's experiments, which this project has no use for, and served only as
        # source, which would be built by whatever setuptools is the newest.
        without = {"antlr4-python3-runtime"} if name == "dvc" else set()
        pins = [f"{n}=={v}" for n, v in logic.pins(name).items()]
        blocks = resolve(uv, pins, oldest, without=without)
        write(f"../tools/{name}.txt", title, blocks)


KINDS = {
    "pip": lock_for_pip,
    "tools": lock_tools,
    "uv": lambda uv: project_locks.write_all("uv"),
    "poetry": lambda uv: project_locks.write_all("poetry"),
}


def _write_names() -> None:
    """Write the reserved names: everything that may be installed together with a project."""
    # These tools never share an environment with the project.
    apart = {"upgrade.txt", "dvc.txt"}
    paths = sorted(p for p in (ROOT / "data/locks").rglob("*.txt") if p.name not in apart)
    texts = [path.read_text(encoding="utf-8") for path in paths]
    found = {n for text in texts for n in re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE)}
    names = {name.lower().replace("-", "_").replace(".", "_") for name in found}
    path = ROOT / "data" / "reserved.json"
    reserved = json.loads(path.read_text(encoding="utf-8"))
    reserved["dependencies"] = sorted(names)
    text = json.dumps(reserved, indent=2)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
