"""The commands of an upgrade, which `environment/upgrade.py` of the project starts.

cruft merges the changes between two versions of the template into the tree, and reports success
whatever the outcome. This does the rest: it refuses to start on a tree with changes, checks every
file against what it should be, names conflicts, and until the user commits, everything can be
undone. `--set STACK` takes the answer `stack` from the variable STACK.
"""

import argparse
import json
import os
import shutil
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

from children import started
from failure import SetupError
from merge import Merge, is_clean, refuse_unready
from project import ROOT
from template import Link, Template, complaint, link, run_cruft


def main() -> int:
    """Run the command; return the exit code: 0, 1 for something to fix, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--scratch", type=Path, help="holds a clone of the template; removed at the end"
    )
    parser.add_argument("--to", default="")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--no-check", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--abort", action="store_true")
    parser.add_argument("--link", metavar="TEMPLATE")
    options = parser.parse_args()
    try:
        # Held back while one program became the other.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
        return run(options)
    finally:
        if options.scratch.name:
            shutil.rmtree(options.scratch, ignore_errors=True)


def run(options: argparse.Namespace) -> int:
    """Run the command that the options name."""
    if options.abort:
        return Merge.pending(or_refuse=True).abort()
    if options.check:
        return check(Template.cloned(options.scratch), options.to)
    if options.link is not None:
        tool()
        return link(options.link, Template.cloned(options.scratch), options.to, options.scratch)
    merge = Merge.pending() or start(options.scratch, options.to, changed(options.set))
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


def refuse_another_framework(before: str, after: str) -> None:
    """Refuse an upgrade from one framework to another: what the user wrote is for one of them."""
    had, wanted = (stack.partition("-")[0] for stack in (before, after))
    if after and had != wanted:
        raise SetupError(
            f"this project is written for {had}, and {after} is another framework: generate a new "
            "project and move the task there"
        )


def check(template: Template, reference: str) -> int:
    """Report whether there is an update; return 1 if so."""
    current = Link.read()
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
    # It starts with signals held back, until its imports are done: no traceback from those.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    with started(command, cwd=ROOT) as running:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        running.wait()
    if running.returncode:
        raise SystemExit(running.returncode)


def start(scratch: Path, reference: str, answers: dict[str, str]) -> Merge | None:
    """Merge the newer version into a clean tree, completely or not at all."""
    if not is_clean():
        raise SetupError("the tree has changes; commit or stash them first")
    current = Link.read()
    template = Template.cloned(scratch)
    commit = template.commit(current.commit)
    wanted = reference or template.target(commit)
    target = template.commit(wanted)
    answers = {name: value for name, value in answers.items() if current.answers.get(name) != value}
    refuse_another_framework(current.answers.get("stack", ""), answers.get("stack", ""))
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
        merge.undo()
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
        with (
            merge.locking() if verb == "lock" else nullcontext(),
            # make passes on SIGTERM, but not SIGINT.
            started(command, stop=signal.SIGTERM, cwd=ROOT) as running,
        ):
            running.wait()
        if running.returncode:
            raise SetupError(f"make {verb} fails after the upgrade; {ways}", code=1)
        if verb == "lock":
            merge.locked()
    merge.done()
    print(f"upgraded to template {merge.version}: look at git diff HEAD and commit it")
    print("make upgrade-abort takes it back until then")
    return 0
