"""Upgrade many projects of this template, each on a branch of its own.

python tools/upgrade_projects.py [--to REF] [--no-check] [--python PYTHON] PROJECT …

In each project: `make upgrade` on the branch `upgrade-<version>`, and a commit if all went well.
If a human has to decide something, the project is restored to its previous state and branch. Prints
one line per project at the end; exit code 1 if one of them was not upgraded.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

STATE = "repro-upgrade.json"
"""What `make upgrade` keeps in `.git` until the upgrade is committed."""


def main() -> int:
    """Upgrade all and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("projects", nargs="+", type=Path, metavar="PROJECT")
    parser.add_argument("--to", default="", help="a release, a branch or a commit of the template")
    parser.add_argument("--no-check", action="store_true", help="leave make check to CI")
    parser.add_argument("--python", default="", help="the interpreter, where it is another one")
    options = parser.parse_args()
    variables = [f"TO={options.to}"] if options.to else []
    variables += ["CHECK=no"] if options.no_check else []
    variables += [f"PYTHON={options.python}"] if options.python else []
    results = {}
    for project in options.projects:
        print(f"== {project}", flush=True)
        results[project] = upgrade(project, variables)
    print()
    for project, (_, told) in results.items():
        print(f"{project.name:<20} {told}")
    return 0 if all(well for well, _ in results.values()) else 1


def upgrade(project: Path, variables: list[str]) -> tuple[bool, str]:
    """Upgrade one project; return whether it is up to date now, and a message about it."""
    try:
        if git(project, "status", "--porcelain", "--untracked-files=all"):
            return False, "the tree has changes; commit or stash them first"
        if (git_folder(project) / STATE).exists():
            return False, "an upgrade waits here: commit it, or make upgrade-abort"
        return _upgrade(project, variables)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or str(error)).strip().splitlines() or ["it said nothing"]
        return False, f"{' '.join(map(str, error.cmd[:4]))}: {reason[-1]}"
    except OSError as error:
        return False, f"{error.strerror}: {error.filename}"


def _upgrade(project: Path, variables: list[str]) -> tuple[bool, str]:
    before = git(project, "branch", "--show-current") or git(project, "rev-parse", "HEAD")
    done = subprocess.run(
        ["make", "upgrade", *variables], cwd=project, stderr=subprocess.PIPE, text=True
    )
    sys.stderr.write(done.stderr)
    if done.returncode:
        reasons = re.findall(r"^error: (.*)$", done.stderr, re.MULTILINE) or ["make upgrade failed"]
        try:
            _take_back(project, variables)
        except subprocess.CalledProcessError as error:
            sys.stderr.write(error.stderr)
            reasons.append("and make upgrade-abort failed: the upgrade is in the tree")
        return False, "; ".join(reasons)
    if not git(project, "status", "--porcelain"):
        return True, "up to date"
    version = json.loads((project / ".template.json").read_text())["template"]["version"]
    branch = f"upgrade-{version}"
    if git(project, "branch", "--list", branch):
        _take_back(project, variables)
        return False, f"there is a branch {branch} already"
    git(project, "switch", "--quiet", "--create", branch)
    try:
        git(project, "commit", "--quiet", "--message", f"Upgrade to template {version}")
    except subprocess.CalledProcessError:
        _take_back(project, variables)
        git(project, "switch", "--quiet", before)
        git(project, "branch", "--quiet", "--delete", branch)
        raise
    return True, f"upgraded to {version} on {branch}"


def _take_back(project: Path, variables: list[str]) -> None:
    # If it was refused before anything was done, there is nothing to undo.
    if (git_folder(project) / STATE).exists():
        command = ["make", "upgrade-abort", *variables]
        subprocess.run(command, cwd=project, check=True, stderr=subprocess.PIPE, text=True)


def git_folder(project: Path) -> Path:
    """The git folder of the repository, also for a linked work tree."""
    return Path(project, git(project, "rev-parse", "--git-dir"))


def git(project: Path, *arguments: str) -> str:
    """The output of git in a project; if it fails, the script stops."""
    command = ["git", "-C", str(project), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
