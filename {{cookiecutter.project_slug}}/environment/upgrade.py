"""Take a newer version of the template, keeping every edit of this project.

python environment/upgrade.py [--to REF] [--set NAME …] [--no-check]           (`make upgrade`)
python environment/upgrade.py --check                                   (`make upgrade-check`)
python environment/upgrade.py --abort                                   (`make upgrade-abort`)
python environment/upgrade.py --link TEMPLATE [--to REF]                         (`make link`)

The code that does it is the template's own, of the version that the project becomes: what has been
mended there is mended for this upgrade too. This file fetches that version and starts its code.
From before anything changes until the upgrade is committed, a copy of the code is in `.git`; it
continues the upgrade or takes it back without a network.
"""

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from failure import SetupError, explain, one_line
from locked import ROOT
from repository import TRANSPORT, git

LINK = ROOT / ".cruft.json"
CODE = "upgrade"
"""A folder of the template, and of its copy in `.git`."""
HOSTS = {
    "gh": "https://github.com/{}.git",
    "gl": "https://gitlab.com/{}.git",
    "bb": "https://bitbucket.org/{}.git",
}
"""cookiecutter's abbreviations, which git does not understand."""


def main() -> int:
    """Start the code, which takes this process over; return only for an error's sake."""
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
    pending = is_pending(in_git("repro-upgrade.json"))
    if options.abort and not pending:
        raise SetupError("there is no upgrade to take back: it is committed, or never was one")
    if pending and not options.check and options.link is None:
        kept = in_git("repro-upgrade")
        if (kept / CODE).is_dir():  # not if 0.2.0 began it
            return start(kept, "")
    address, own = (options.link, "") if options.link is not None else link()
    if not address:
        raise SetupError("name the template: make link TEMPLATE=https://…")
    scratch = tempfile.mkdtemp(prefix="upgrade-")
    try:
        template = clone(address, Path(scratch, "template"))
        named = [options.to, f"origin/{options.to}"] if options.to else []
        check_out(template, [*named, *newest(template), own])
        return start(template, scratch)
    except BaseException:
        shutil.rmtree(scratch)
        raise


def in_git(name: str) -> Path:
    """The path of a file in the repository's own folder."""
    done = git(ROOT, "rev-parse", "--git-path", name)
    if done.returncode:
        raise SetupError("this project is not in git, which an upgrade is merged with: git init")
    return ROOT / done.stdout.rstrip("\n")


def is_pending(state: Path) -> bool:
    """Whether an upgrade is in the tree; the state of one that was committed is removed."""
    try:
        upgrade = json.loads(state.read_text(encoding="utf-8"))
        head, done = upgrade["head"], upgrade["state"] == "done"
    except FileNotFoundError:
        return False
    except (ValueError, TypeError, KeyError) as error:
        raise SetupError(f"{state} is damaged: {error}; git status shows what changed") from None
    clean = not git(ROOT, "status", "--porcelain", "--untracked-files=all").stdout
    if head == git(ROOT, "rev-parse", "HEAD").stdout.strip() and not (done and clean):
        return True
    state.unlink()
    return False


def link() -> tuple[str, str]:
    """The template's address and the commit that this project is of."""
    try:
        text = json.loads(LINK.read_text(encoding="utf-8"))
        return str(text["template"]), str(text["commit"])
    except FileNotFoundError:
        raise SetupError(
            "this project is not linked to its template: make link TEMPLATE=…"
        ) from None
    except ValueError as error:
        raise SetupError(f"{LINK.name} is not JSON: {error}; restore it from git") from None
    except (KeyError, TypeError) as error:
        raise SetupError(f"{LINK.name} is damaged, at {error}; restore it from git") from None


def clone(address: str, folder: Path) -> Path:
    """Clone the template's repository, without files."""
    short, _, rest = address.partition(":")
    address = HOSTS[short].format(rest) if short in HOSTS else address
    command = ["clone", "--quiet", "--no-checkout", "--", address, folder]
    done = git(ROOT, *command, transport=True)
    if done.returncode:
        reason = explain(re.sub(r"(?m)^fatal: ", "error: ", done.stderr))
        raise SetupError(f"the template {address} cannot be cloned: {reason}", code=1)
    return folder


def newest(template: Path) -> Iterator[str]:
    """The releases, newest first, then the head."""
    listed = ["for-each-ref", "--sort=-version:refname", "--format=%(refname:lstrip=2)"]
    yield from git(template, *listed, "refs/tags/v*").stdout.split()
    yield "HEAD"


def check_out(template: Path, versions: list[str]) -> None:
    """Check out the first of these versions that exists and has the code."""
    for version in versions:
        if git(template, "cat-file", "-e", f"{version}:{CODE}/__main__.py").returncode == 0:
            done = git(template, "checkout", "--quiet", "--detach", version)
            if done.returncode:
                raise SetupError(f"the template cannot be read: {explain(done.stderr)}", code=1)
            return
    raise SetupError("no version of that template has make upgrade")


def start(where: Path, scratch: str) -> int:
    """Run the code instead of this file; it removes `scratch` at its end."""
    os.chdir(ROOT)
    sys.stdout.flush()
    # -B: the copy in .git stays as it was made.
    command = [sys.executable, "-B", str(where / CODE), "--scratch", scratch, *sys.argv[1:]]
    # It lets them in when it is ready to undo what they interrupt.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    os.execv(sys.executable, command)


if __name__ == "__main__":
    sys.exit(one_line(main, "the tree"))
