"""What this project was generated from: its answers, and the template's repository.

Standard library and git only; rendering is left to cruft, in a separate environment.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from children import started
from failure import SetupError, without_secrets
from project import ROOT
from repository import git

ANSWERS = ROOT / ".template.json"
LINK = ROOT / ".cruft.json"
CRUFT = ROOT / ".envs" / "tool-upgrade" / "bin" / "python"
RELEASE = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")
RELEASED = re.compile(r"^(\w+) Release (\d+\.\d+\.\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Link:
    """`.cruft.json`: the template's address, the commit this project is based on, its answers."""

    template: str
    commit: str
    answers: dict[str, str]

    @classmethod
    def read(cls) -> Self:
        """Read the link; raise a `SetupError` if it is missing or unreadable."""
        if not LINK.is_file():
            raise SetupError("this project is not linked to its template: make link TEMPLATE=…")
        link = read_json(LINK)
        try:
            context = link["context"]["cookiecutter"]
            answers = {k: str(v) for k, v in context.items() if not k.startswith("_")}
            return cls(str(link["template"]), str(link["commit"]), answers)
        except (KeyError, TypeError, AttributeError) as error:
            raise SetupError(f"{LINK.name} is damaged, at {error}; restore it from git") from None


@dataclass(frozen=True)
class Template:
    """A clone of the template's repository."""

    folder: Path

    @classmethod
    def cloned(cls, scratch: Path) -> Self:
        """The clone that the project's command made."""
        template = cls(scratch / "template")
        if not template.releases():
            # A mirror may lack the tags, but releases can also be found by their commit message.
            for commit, version in RELEASED.findall(
                template._git("log", "--all", "--format=%H %s")
            ):
                template._git("update-ref", f"refs/releases/v{version}", commit)
        return template

    def commit(self, reference: str) -> str:
        """Resolve a tag, branch or commit to a commit; raise a `SetupError` if there is none."""
        if found := self.named(reference) or self._commit(f"refs/releases/{reference}"):
            return found
        newest = self.releases()[-1:] or ["none"]
        raise SetupError(f"the template has no {reference}; its newest release is {newest[0]}")

    def named(self, reference: str) -> str:
        """The commit of a tag, a commit or a branch of the remote; empty if there is none."""
        return self._commit(reference) or self._commit(f"origin/{reference}")

    def releases(self) -> list[str]:
        """The template's releases, oldest first."""
        listed = ["for-each-ref", "--format=%(refname:lstrip=2)", "refs/tags", "refs/releases"]
        names = {name for name in self._git(*listed).split() if RELEASE.fullmatch(name)}
        return sorted(names, key=order)

    def target(self, current: str) -> str:
        """The newest release, or `current` if that contains it; the head if there is no release."""
        newest = self.releases()[-1:] or ["HEAD"]
        commit = self.commit(newest[0])
        return current if self._holds(current, commit) else newest[0]

    def _holds(self, commit: str, ancestor: str) -> bool:
        return git(self.folder, "merge-base", "--is-ancestor", ancestor, commit).returncode == 0

    def version(self, commit: str) -> str:
        """The version of the template at a commit."""
        for name, pattern in (
            ("data/template.json", r'"version": "([^"]+)"'),
            ("pyproject.toml", r'(?m)^version = "([^"]+)"'),
        ):
            if match := re.search(pattern, self._git("show", f"{commit}:{name}")):
                return match[1]
        return commit[:12]

    def changes(self, before: str, after: str) -> Iterator[str]:
        """The sections of its changelog that are newer than `before`, up to `after`."""
        text = self._git("show", f"{after}:CHANGELOG.md")
        low, high = order(self.version(before)), order(self.version(after))
        for section in re.split(r"(?m)^(?=## )", text)[1:]:
            # The section of a version under development has no date yet.
            if low < order(section.split()[1]) <= (*high[:3], 1):
                yield section.strip()

    def choices(self, commit: str) -> dict[str, list[str]]:
        """The multiple-choice questions of a version."""
        questions = json.loads(self._git("show", f"{commit}:cookiecutter.json") or "{}")
        return {k: v for k, v in questions.items() if isinstance(v, list) and k[0] != "_"}

    def render(self, commit: str, answers: Mapping[str, str], folder: Path) -> Path:
        """Render a fresh project with these answers, including its `.cruft.json`."""
        options = ["--checkout", commit, "--no-input", "--extra-context", json.dumps(answers)]
        options += ["--output-dir", str(folder)]
        folder.mkdir()
        done = run_cruft("create", str(self.folder), *options)
        made = list(folder.iterdir())
        if done.returncode or len(made) != 1:
            version = self.version(commit)
            raise SetupError(f"template {version} refuses: {complaint(done)}", code=1)
        return made[0]

    def _commit(self, name: str) -> str:
        return self._git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")

    def _git(self, *arguments: str) -> str:
        done = git(self.folder, *arguments)
        return done.stdout.strip() if done.returncode == 0 else ""


def order(version: str) -> tuple[int, ...]:
    """A sort key for versions; development versions come before their release."""
    match = RELEASE.match(version)
    if match is None:
        return (-1,)
    return (*map(int, match.groups()), 0 if ".dev" in version else 1)


def run_cruft(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run cruft in this project, ignoring the user's cookiecutter settings."""
    config = CRUFT.parents[1] / "cookiecutter.yaml"
    config.write_text(f"cookiecutters_dir: {config.parent}/c\nreplay_dir: {config.parent}/replay\n")
    environ = {**os.environ, "COOKIECUTTER_CONFIG": str(config), "PYTHONUTF8": "1"}
    environ["TYPER_STANDARD_TRACEBACK"] = "1"  # from which one line can be extracted
    # -P: no module in the working directory shadows one of the template.
    command = [str(CRUFT), "-P", "-m", "cruft", *arguments]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started(command, cwd=ROOT, env=environ, text=True, **pipes) as running:
        outputs = running.communicate()
    return subprocess.CompletedProcess(command, running.returncode, *outputs)


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The last message of cruft, or of a hook of the template, in one line."""
    text = re.sub(r"(?m)^[\w.]+(?:Exception|Error): ", "", f"{done.stdout}\n{done.stderr}")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it said nothing"])[-1][:300]


def read_json(path: Path) -> dict:
    """Read a JSON file of this project, or raise a one-line `SetupError`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SetupError(f"{path.name} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SetupError(f"{path.name} is not JSON: {error}; restore it from git") from None


def link(address: str, template: Template, reference: str, scratch: Path) -> int:
    """Write `.cruft.json` for a project that was created without cruft."""
    if LINK.exists():
        raise SetupError(f"this project is linked already, to {Link.read().template}")
    file = read_json(ANSWERS)
    try:
        version, answers = str(file["template"]["version"]), file["cookiecutter"]
        answers = {k: v for k, v in answers.items() if not k.startswith("_")}
    except (KeyError, TypeError, AttributeError) as error:
        raise SetupError(f"{ANSWERS.name} is damaged, at {error}; restore it from git") from None
    if not reference and ".dev" in version:
        raise SetupError(
            f"{version} was never released; name its commit: make link TEMPLATE=… TO=…"
        )
    reference = reference or f"v{version}"
    commit = template.commit(reference)
    made = template.render(commit, answers, scratch / "made")
    of_that_version = (made / ANSWERS.name).is_file() and (
        (made / ANSWERS.name).read_bytes() == ANSWERS.read_bytes()
    )
    if not of_that_version:
        raise SetupError(
            f"{ANSWERS.name} is of {version}, {reference} of the template makes another "
            f"({template.version(commit)}); name the version that made this project: TO=…"
        )
    text = json.loads((made / LINK.name).read_text(encoding="utf-8"))
    text["template"] = text["context"]["cookiecutter"]["_template"] = address
    (made / LINK.name).write_text(json.dumps(text, indent=2, ensure_ascii=False) + "\n")
    shutil.copy(made / LINK.name, LINK)
    files = [path.relative_to(made) for path in made.rglob("*") if path.is_file()]
    same = sum(
        (ROOT / f).is_file() and (ROOT / f).read_bytes() == (made / f).read_bytes() for f in files
    )
    where = f"{without_secrets(address)} at {version}"
    print(f"linked to {where}: {same} of {len(files)} files are as it made them")
    print(f"commit it: git add {LINK.name} && git commit -m 'Link to the template'")
    return 0
