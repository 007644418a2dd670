"""The reproducibility checklist for this checkout on this machine, item by item.

Nothing here imports a framework, so that it answers at once.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ..config.run_config import RunConfig
from ..files import find_project_root
from . import installation, repository
from .common import CannotTellError, Checked, NotApplicableError

CLEAN = "git tree is clean"
HOLDS, FAILS, UNKNOWN = "holds", "fails", "cannot tell here"

ITEMS: dict[str, Callable[[Checked], str]] = {
    "Python is the project's": installation.python_version,
    "lock fits the project": installation.lock_fits,
    "installed packages equal the lock": installation.installed_equals_lock,
    "CUDA version is documented": installation.cuda_documented,
    "driver is new enough": installation.driver,
    "system dependencies are listed": repository.system_listed,
    "hardware requirements are stated": repository.hardware_stated,
    "deterministic algorithms are on": repository.deterministic,
    "data loaders are seeded": repository.loaders_seeded,
    "configs and seeds are in git": repository.seeds_committed,
    "configuration keys are documented": repository.keys_documented,
    "environment variables are documented": repository.variables_documented,
    "expected results are documented": repository.expected_documented,
    "known limits are listed": repository.limits_listed,
    "README says what a stranger needs": repository.readme_sections,
    "README's commands exist": repository.readme_commands,
    "images are pinned by digest": repository.images_pinned,
    "data is what DVC pins": repository.data_pinned,
    "machinery is the template's": repository.machinery_unedited,
    CLEAN: repository.git_clean,
}
"""Each item returns what is wrong and what to do about it, or nothing."""


@dataclass(frozen=True)
class Finding:
    """The result of one item; `detail` says what to do, or why it cannot be checked."""

    item: str
    status: str
    detail: str = ""


def doctor(config_class: type[RunConfig], *, as_json: bool, uncommitted: bool = False) -> int:
    """Print every item and its finding; return 0 if none fails, else 1.

    `uncommitted` allows for changes that are about to be committed, such as an upgrade.
    """
    leave_out = {CLEAN} if uncommitted else set()
    findings = [f for f in examine(find_project_root(), config_class) if f.item not in leave_out]
    failed = sum(finding.status == FAILS for finding in findings)
    if as_json:
        print(json.dumps({"ok": not failed, "items": [asdict(f) for f in findings]}))
    else:
        for finding in findings:
            detail = f": {finding.detail}" if finding.detail else ""
            print(f"{finding.item:<40} {finding.status}{detail}")
        print(f"{len(findings)} items, {failed} fail")
    return 1 if failed else 0


def examine(root: Path, config_class: type[RunConfig]) -> Iterator[Finding]:
    """Inspect the checkout at `root`, whose configurations are of `config_class`."""
    checked = Checked(root, config_class)
    for item, inspect in ITEMS.items():
        try:
            problem = inspect(checked)
        except NotApplicableError:
            continue
        except CannotTellError as reason:
            yield Finding(item, UNKNOWN, str(reason))
        except Exception as error:  # a file can be damaged in any way; the list continues
            reason = f"{type(error).__name__}: {error}"
            yield Finding(item, FAILS, f"a file is missing or damaged ({reason}); restore it")
        else:
            yield Finding(item, FAILS if problem else HOLDS, problem)
