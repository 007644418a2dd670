"""What reproducibility needs, inspected item by item, for this checkout on this machine.

Nothing here imports torch: a checkout is examined before its environment works.
"""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from .config import Config, load_config
from .manifest import find_project_root, lock_files

HOLDS, FAILS, UNKNOWN = "holds", "fails", "cannot tell here"
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)(?: ; ([^\\]+?))?(?: \\)?$", re.MULTILINE)


@dataclass(frozen=True)
class Finding:
    """One item of the list; `detail` says what to do, or why it cannot be told."""

    item: str
    status: str
    detail: str = ""


def doctor(*, as_json: bool) -> int:
    """Print every item and its finding; 0 when none fails, else 1."""
    findings = list(examine(find_project_root()))
    failed = sum(finding.status == FAILS for finding in findings)
    if as_json:
        print(json.dumps({"ok": not failed, "items": [asdict(f) for f in findings]}))
    else:
        for finding in findings:
            detail = f": {finding.detail}" if finding.detail else ""
            print(f"{finding.item:<40} {finding.status}{detail}")
        print(f"{len(findings)} items, {failed} fail")
    return 1 if failed else 0


def examine(root: Path) -> Iterator[Finding]:
    """Inspect the checkout at `root`."""
    for item, inspect in _ITEMS.items():
        try:
            problem = inspect(root)
        except CannotTellError as reason:
            yield Finding(item, UNKNOWN, str(reason))
        except (OSError, KeyError, ValueError) as error:
            yield Finding(item, FAILS, f"a file is missing or damaged ({error}); restore it")
        else:
            yield Finding(item, FAILS if problem else HOLDS, problem)


class CannotTellError(Exception):
    """The item cannot be inspected on this machine."""


def _python_version(root: Path) -> str:
    wanted = (root / ".python-version").read_text().strip()
    running = ".".join(map(str, sys.version_info[:3]))
    if f"{running}.".startswith(f"{wanted}."):
        return ""
    return f"the project asks for Python {wanted}, this is {running}; run make setup with PYTHON=…"


def _lock_hashed(root: Path) -> str:
    files = _environment_locks(root)
    if not files:
        return "no lock of an environment; run make lock and commit what it writes"
    for path in files:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".txt":
            blocks = re.split(r"\n(?=[A-Za-z0-9])", text)
            bare = [b.split("==")[0] for b in blocks if "==" in b and "--hash=sha256:" not in b]
        else:
            bare = [] if re.search(r"sha256[:=\"]", text) else ["everything"]
        if bare:
            return f"{path.name} holds no sha256 for {', '.join(bare)}; run make lock"
    return ""


def _installed_equals_lock(root: Path) -> str:
    from packaging.markers import Marker

    versions: dict[str, set[str]] = {}
    counts: dict[str, int] = {}
    files = _environment_locks(root)
    for path in files:
        names = set()
        for name, version, marker in _locked(path):
            if not marker or Marker(marker).evaluate():
                versions.setdefault(_normal(name), set()).add(version)
                names.add(_normal(name))
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    if not versions:
        raise CannotTellError("this lock format is checked by its own manager")
    installed = {_normal(d.metadata["Name"]): d.version for d in metadata.distributions()}
    # CPU and CUDA environments differ; what stands in the lock of both must be there in each.
    in_all = len([path for path in files if not path.name.startswith("torch-")])
    pip = any(path.suffix == ".txt" for path in files)
    missing = sorted(n for n, c in counts.items() if pip and c >= in_all and n not in installed)
    wrong = [
        f"{name} {installed[name]} instead of {' or '.join(sorted(found))}"
        for name, found in sorted(versions.items())
        if name in installed and installed[name] not in found
    ]
    wrong += [f"{name} is missing" for name in missing]
    return f"{'; '.join(wrong)}; run make setup" if wrong else ""


def _environment_locks(root: Path) -> list[Path]:
    # The notebook's tools and the MLflow server have environments of their own.
    return [path for path in lock_files(root) if path.name not in ("notebook.txt", "mlflow.txt")]


def _locked(path: Path) -> Iterator[tuple[str, str, str]]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".txt":
        yield from _REQUIREMENT.findall(text)
    elif path.name in ("uv.lock", "poetry.lock"):
        for package in tomllib.loads(text)["package"]:
            yield package["name"], package["version"], ""


def _deterministic(root: Path) -> str:
    for path, config in _configs(root):
        switches = config.determinism
        if not switches.deterministic_algorithms or switches.cudnn_benchmark:
            return f"{path.name} turns it off; set deterministic_algorithms, unset cudnn_benchmark"
    return ""


def _loaders_seeded(root: Path) -> str:
    for path in sorted(root.glob("src/*/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("DataLoader"):
                given = {keyword.arg for keyword in node.keywords}
                if missing := {"generator", "worker_init_fn"} - given:
                    return f"{path.name}, line {node.lineno}: give DataLoader {sorted(missing)}"
    return ""


def _seeds_committed(root: Path) -> str:
    names = [str(path.relative_to(root)) for path, _ in _configs(root)]
    known = _git(root, "ls-files", "--", *names).splitlines()
    missing = sorted(set(names) - set(known))
    return f"not in git: {', '.join(missing)}; commit them" if missing else ""


def _images_pinned(root: Path) -> str:
    text = (root / "Dockerfile").read_text(encoding="utf-8")
    stages = set(re.findall(r" AS ([\w-]+)$", text, re.MULTILINE))
    named = re.findall(r"^ARG \w*IMAGE\w*=(\S+)$", text, re.MULTILINE)
    named += [n for n in re.findall(r"^FROM (\S+)", text, re.MULTILINE) if "$" not in n]
    loose = [name for name in named if name not in stages and "@sha256:" not in name]
    return f"no digest: {', '.join(loose)}; pin tag@sha256:…" if loose else ""


def _variables_documented(root: Path) -> str:
    sources = [*root.glob("configs/*.yaml"), *root.glob("compose*.yaml")]
    used = {
        name
        for path in sources
        for name in re.findall(r"\$\{([A-Z][A-Z0-9_]*)", path.read_text(encoding="utf-8"))
    }
    used -= {"ACCELERATOR", "CONFIG", "HOST_UID", "HOST_GID", "CODE_COMMIT"}  # set by the Makefile
    text = (root / ".env.example").read_text(encoding="utf-8")
    missing = sorted(used - set(re.findall(r"^([A-Z][A-Z0-9_]*)=", text, re.MULTILINE)))
    return f"not in .env.example: {', '.join(missing)}; add them" if missing else ""


def _readme_sections(root: Path) -> str:
    text = (root / "README.md").read_text(encoding="utf-8")
    wanted = ("Requirements", "Setup", "Reproduce a run", "Expected results", "Known limits")
    missing = [title for title in wanted if f"\n## {title}\n" not in text]
    return f"README.md lacks the sections {', '.join(missing)}; write them" if missing else ""


def _readme_commands(root: Path) -> str:
    files = [root / name for name in ("Makefile", "environment.mk")]
    targets = {
        target
        for path in files
        for target in re.findall(r"^([a-z]+):", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    text = (root / "README.md").read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```(?:bash|sh)?\n(.*?)```", text, re.DOTALL))
    used = {
        word
        for line in re.findall(r"^make (.*?)(?: #.*)?$", blocks, re.MULTILINE)
        for word in line.split()
        if re.fullmatch("[a-z]+", word)
    }
    missing = sorted(used - targets)
    return f"README.md names make {', '.join(missing)}, which do not exist" if missing else ""


def _driver(root: Path) -> str:
    with (root / "pyproject.toml").open("rb") as file:
        minimum = tomllib.load(file)["tool"]["repro"].get("min_driver")
    if not minimum:
        raise CannotTellError("this project has no CUDA environment")
    if not shutil.which("nvidia-smi"):
        raise CannotTellError(f"no NVIDIA driver here; CUDA runs need {minimum} or newer")
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True).stdout.split()
    if not found:
        raise CannotTellError("nvidia-smi names no driver")
    if _numbers(found[0]) < _numbers(minimum):
        return f"driver {found[0]} is older than {minimum}; update it"
    return ""


def _git_clean(root: Path) -> str:
    changed = _git(root, "status", "--porcelain").splitlines()
    return f"{len(changed)} files differ from the commit; commit them" if changed else ""


_ITEMS: dict[str, Callable[[Path], str]] = {
    "Python is the project's": _python_version,
    "lock is present and hashed": _lock_hashed,
    "installed packages equal the lock": _installed_equals_lock,
    "deterministic algorithms are on": _deterministic,
    "data loaders are seeded": _loaders_seeded,
    "configs and seeds are in git": _seeds_committed,
    "images are pinned by digest": _images_pinned,
    "environment variables are documented": _variables_documented,
    "README says what a stranger needs": _readme_sections,
    "README's commands exist": _readme_commands,
    "driver is new enough": _driver,
    "git tree is clean": _git_clean,
}


def _configs(root: Path) -> list[tuple[Path, Config]]:
    return [(path, load_config(path)) for path in sorted(root.glob("configs/*.yaml"))]


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    except OSError:
        raise CannotTellError("git is not installed") from None
    top = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "--show-prefix"], capture_output=True, text=True
    )
    inside_another = top.stdout.strip() and not done.stdout and arguments[0] == "ls-files"
    if done.returncode or inside_another:
        raise CannotTellError("not a git repository; git init and commit")
    return done.stdout


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
