"""What reproducibility needs, inspected item by item, for this checkout on this machine.

Nothing here imports torch, so that it answers at once.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from . import inspect_environment, inspect_repository
from .common import CannotTellError
from ..run.manifest import find_project_root

CLEAN = "git tree is clean"
HOLDS, FAILS, UNKNOWN = "holds", "fails", "cannot tell here"

ITEMS: dict[str, Callable[[Path], str]] = {
    "Python is the project's": inspect_environment.python_version,
    "lock fits the project": inspect_environment.lock_fits,
    "installed packages equal the lock": inspect_environment.installed_equals_lock,
    "CUDA version is documented": inspect_environment.cuda_documented,
    "driver is new enough": inspect_environment.driver,
    "system dependencies are listed": inspect_repository.system_listed,
    "hardware requirements are stated": inspect_repository.hardware_stated,
    "deterministic algorithms are on": inspect_repository.deterministic,
    "data loaders are seeded": inspect_repository.loaders_seeded,
    "configs and seeds are in git": inspect_repository.seeds_committed,
    "configuration keys are documented": inspect_repository.keys_documented,
    "environment variables are documented": inspect_repository.variables_documented,
    "expected results are documented": inspect_repository.expected_documented,
    "known limits are listed": inspect_repository.limits_listed,
    "README says what a stranger needs": inspect_repository.readme_sections,
    "README's commands exist": inspect_repository.readme_commands,
    "images are pinned by digest": inspect_repository.images_pinned,
    CLEAN: inspect_repository.git_clean,
}
"""Each returns what is wrong and what to do about it, or nothing."""


@dataclass(frozen=True)
class Finding:
    """One item of the list; `detail` says what to do, or why it cannot be told."""

    item: str
    status: str
    detail: str = ""


def doctor(*, as_json: bool, uncommitted: bool = False) -> int:
    """Print every item and its finding; 0 when none fails, else 1.

    What is about to be committed, such as an upgrade, cannot be a clean tree: `uncommitted`.
    """
    leave_out = {CLEAN} if uncommitted else set()
    findings = [f for f in examine(find_project_root()) if f.item not in leave_out]
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
    for item, inspect in ITEMS.items():
        try:
            problem = inspect(root)
        except CannotTellError as reason:
            yield Finding(item, UNKNOWN, str(reason))
        except Exception as error:  # a file can be damaged in any way; the list continues
            reason = f"{type(error).__name__}: {error}"
            yield Finding(item, FAILS, f"a file is missing or damaged ({reason}); restore it")
        else:
            yield Finding(item, FAILS if problem else HOLDS, problem)
