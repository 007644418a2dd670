"""Take a newer version of the template, keeping every edit of this project.

python environment/upgrade.py [--to REF] [--set NAME …] [--no-check]           (`make upgrade`)
python environment/upgrade.py --check                                   (`make upgrade-check`)
python environment/upgrade.py --abort                                   (`make upgrade-abort`)
python environment/upgrade.py --link TEMPLATE [--to REF]                         (`make link`)

cruft merges the changes between two versions of the template into this tree, and reports success
whatever the outcome. This file does the rest: it refuses to start on a tree with changes, checks
every file against what it should be, names conflicts, and until the user commits, everything can be
undone. `--set STACK` takes the answer `stack` from the variable STACK.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from failure import SetupError, one_line
from locked import ROOT
from merge import Merge, git, is_clean, refuse_unready
from repository import TRANSPORT
from template import Link, Template, complaint, link, run_cruft


def main() -> int:
    """Run the command; return the exit code: 0, 1 for something to fix, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--to", default="", help="a release, a branch or a commit of the template")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME", help="answers to change")
    parser.add_argument("--no-check", action="store_true", help="leave make setup and make check")
    parser.add_argument("--check", action="store_true", help="only say whether there is an update")
    parser.add_argument("--abort", action="store_true", help="take back what is not committed")
    parser.add_argument("--link", metavar="TEMPLATE", help="write .cruft.json")
    options = parser.parse_args()
    for name in [n for n in os.environ if n.startswith("GIT_") and not TRANSPORT.match(n)]:
        del os.environ[name]  # in a hook or rebase, they name another repository
    # Like Ctrl-C: what was started is undone.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if git("rev-parse", "--show-toplevel", check=False) is None:
        raise SetupError("this project is not in git, which an upgrade is merged with: git init")
    if options.abort:
        return Merge.pending(or_refuse=True).abort()
    with tempfile.TemporaryDirectory(prefix="upgrade-") as scratch:
        if options.check:
            return check(Path(scratch), options.to)
        if options.link is not None:
            if not options.link:
                raise SetupError("name the template: make link TEMPLATE=https://…")
            tool()
            return link(options.link, options.to, Path(scratch))
        merge = Merge.pending()
        if merge is None:
            merge = start(Path(scratch), options.to, changed(options.set))
    try:
        return finish(merge, with_check=not options.no_check) if merge else 0
    except KeyboardInterrupt:
        ways = "make upgrade continues, make upgrade-abort goes back"
        raise SetupError(f"stopped; the upgrade is in the tree: {ways}", code=130) from None


def changed(names: list[str]) -> dict[str, str]:
    """The answers to be changed by this upgrade."""
    answers = {name.lower(): os.environ.get(name, "") for name in names}
    if "project_slug" in answers:
        raise SetupError("project_slug names folders: rename them yourself, an upgrade does not")
    return answers


def check(scratch: Path, reference: str) -> int:
    """Report whether there is an update; return 1 if so."""
    current = Link.read()
    template = Template.clone(current.template, scratch / "template")
    commit = template.commit(current.commit)
    target = template.commit(reference or template.target(commit))
    before, after = template.version(commit), template.version(target)
    if target == commit:
        print(f"up to date: template {before}")
        return 0
    print(f"template {after} is there, this project is of {before}: make upgrade")
    return 1


def tool() -> None:
    """Make sure that cruft is installed, as locked in `environment/upgrade.txt`."""
    command = [sys.executable, str(ROOT / "environment" / "tool.py"), "upgrade"]
    if code := subprocess.run(command, cwd=ROOT).returncode:
        raise SystemExit(code)


def start(scratch: Path, reference: str, answers: dict[str, str]) -> Merge | None:
    """Merge the newer version into a clean tree, completely or not at all."""
    if not is_clean():
        raise SetupError("the tree has changes; commit or stash them first")
    current = Link.read()
    template = Template.clone(current.template, scratch / "template")
    commit = template.commit(current.commit)
    wanted = reference or template.target(commit)
    target = template.commit(wanted)
    answers = {name: value for name, value in answers.items() if current.answers.get(name) != value}
    before, after = template.version(commit), template.version(target)
    if target == commit and not answers:
        print(f"up to date: template {before}")
        return None
    for name, allowed in template.choices(target).items():
        given = {**current.answers, **answers}.get(name, allowed[0])
        if given not in allowed:
            raise SetupError(
                f"template {after} has no {name} {given!r}; choose another with make upgrade "
                f"{name.upper()}=…: {', '.join(allowed)}"
            )
    tool()
    print(f"template {before} -> {after}", *(f"{n}: {v}" for n, v in answers.items()), sep="\n  ")
    print(*template.changes(commit, target), sep="\n\n", flush=True)
    old = template.render(commit, current.answers, scratch / "old")
    new = template.render(target, {**current.answers, **answers}, scratch / "new")
    refuse_unready(old, new)
    merge = Merge.begin(old, new, after)
    try:
        # cruft makes its own clone, and records the address it was given.
        name = wanted if target != commit and template.named(wanted) else target
        options = ["--skip-apply-ask", "--checkout", name]
        if answers:
            options += ["--variables-to-update", json.dumps(answers)]
        done = run_cruft("update", *options)
        if done.returncode or Link.read().commit != target:
            raise SetupError(f"cruft failed: {complaint(done)}; the tree is as it was", code=1)
        merge.settle(old, new)
        for note in merge.notes(old, new):
            print(note)
    except BaseException:
        merge.restore()
        raise
    return merge


def finish(merge: Merge, *, with_check: bool) -> int:
    """Check the result against what it should be, and prove that the project works."""
    ways = "mend that and run make upgrade again, or make upgrade-abort"
    if problems := list(merge.problems()):
        for problem in problems:
            print(f"error: {problem}", file=sys.stderr)
        print(f"{len(problems)} to mend; {ways}", file=sys.stderr)
        return 1
    merge.stage_all()
    verbs = [*(["lock"] if merge.needs_lock else []), *(["setup", "check"] if with_check else [])]
    for verb in verbs:
        command = ["make", "--no-print-directory", verb, "DOCTOR_ARGS=--uncommitted"]
        with merge.locking() if verb == "lock" else nullcontext():
            done = subprocess.run(command, cwd=ROOT)
        if done.returncode:
            raise SetupError(f"make {verb} fails after the upgrade; {ways}", code=1)
        if verb == "lock":
            merge.locked()
    merge.done()
    print(f"upgraded to template {merge.version}: look at git diff HEAD and commit it")
    print("make upgrade-abort takes it back until then")
    return 0


if __name__ == "__main__":
    sys.exit(one_line(main, "the tree"))
