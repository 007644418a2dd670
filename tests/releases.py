"""A repository of the template with every release, the tree as it is now, and a made-up next one.

What is not committed here counts: it is what the tests are about.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from conftest import REAL_STACK, ROOT, THIS_PYTHON

from tools import demo

NOW, NEXT = "v98.0.0", "v99.0.0"
ANSWERS = {"project_slug": "probe", "stack": REAL_STACK, "python_version": THIS_PYTHON}
RELEASE = re.compile(r"Release (\d+\.\d+\.\d+)")
LOCKS = re.compile(r"requirements/.*\.txt|uv\.lock|poetry\.lock")
# -P: the working directory is a template too, and not the one that is meant.
CRUFT = [sys.executable, "-P", "-m", "cruft"]
WHO = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]


def git(folder: Path, *arguments: str) -> str:
    """Run git; its failure fails the test."""
    command = ["git", "-C", str(folder), *WHO, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def released() -> list[str]:
    """The tags of all releases: a release is a commit that says so, with or without its tag."""
    subjects = git(ROOT, "log", "--format=%s").splitlines()
    return [f"v{match[1]}" for subject in subjects if (match := RELEASE.fullmatch(subject))][::-1]


RELEASED = released()


def build(folder: Path) -> Path:
    """Clone the template into `folder` and add the two versions that are not released."""
    git(ROOT, "clone", "--quiet", "--no-hardlinks", str(ROOT), str(folder))
    lines = git(folder, "log", "--format=%H %s").splitlines()
    for line in lines:
        commit, _, subject = line.partition(" ")
        if match := RELEASE.fullmatch(subject):
            git(folder, "tag", "--force", f"v{match[1]}", commit)
    for name in git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        target = folder / name
        if (ROOT / name).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
        elif target.exists():
            target.unlink()
    release(folder, NOW, "Everything as it is now.")
    change(folder)
    release(folder, NEXT, "Everything that can change did.")
    return folder


def release(folder: Path, tag: str, note: str) -> None:
    """Commit and tag a version, with its section of the changelog."""
    path = folder / "data" / "template.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "version": tag[1:]}, indent=2))
    edit(folder / "CHANGELOG.md", r"(?=^## )", f"## {tag[1:]} (2030-01-01)\n\n- {note}\n\n")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", f"Version {tag}")
    git(folder, "tag", tag)


def change(folder: Path) -> None:
    """A release that renames, removes, adds and edits files, and renders by new functions."""
    project = folder / "{{cookiecutter.project_slug}}"
    git(folder, "mv", str(project / "docs/containers.md"), str(project / "docs/images.md"))
    edit(project / "docs/images.md", r"\A", "<!-- renamed -->\n")
    (project / ".editorconfig").unlink()
    (project / "docs" / "new.md").write_text("# {{ novelty() }}\n")
    edit(project / "Makefile", r"\A", "# The verbs, in a newer version.\n")
    starter = project / "_overlays" / "starter" / "image_classification"
    model = starter / "src" / "{{cookiecutter.__package}}" / "model.py"
    edit(model, r'\A"""The models', '"""New models')
    readme = folder / "templates" / "base" / "README.md"
    edit(readme, r"^## What is whose$", "## What is whose, newly")
    edit(project / "notebooks" / "explore_run.ipynb", r"Loads the", "Newly loads the")
    # The functions of the new version, not of the one that was imported first.
    logic = folder / "template_logic.py"
    edit(logic, r'"problems": problems,', '"problems": problems,\n            "novelty": novelty,')
    logic.write_text(f'{logic.read_text()}\n\ndef novelty():\n    """It."""\n    return "New"\n')


def edit(path: Path, pattern: str, replacement: str) -> None:
    """Replace the first match; there must be one."""
    text, count = re.subn(pattern, replacement, path.read_text(), count=1, flags=re.MULTILINE)
    assert count == 1, (path, pattern)
    path.write_text(text)


def create(template: Path, tag: str, folder: Path, **answers: str) -> Path:
    """A fresh project of a version, by cruft."""
    command = [*CRUFT, "create", str(template), "--checkout", tag, "--no-input"]
    command += ["--extra-context", json.dumps(answers), "--output-dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = (path for path in folder.iterdir() if path.name == answers["project_slug"])
    return made


def lend(environment: Path, project: Path) -> None:
    """Give `project` the environment of its upgrades' tool, which was made once for all of them,
    marked in the way that the project's own version knows it by."""
    folder = project / ".envs" / "tool-upgrade"
    folder.mkdir(parents=True)
    for part in environment.iterdir():
        if part.name != ".complete":
            (folder / part.name).symlink_to(part)
    lock = project / "environment" / "upgrade.txt"
    if not lock.exists():
        return  # of 0.1.0, which has no such verb
    tool = (project / "environment" / "tool.py").read_text()
    where = str(folder.resolve()) if "prefix.resolve()" in tool else ""
    digest = hashlib.sha256(lock.read_bytes() + f"{sys.version}{where}".encode()).hexdigest()
    (folder / ".complete").write_text(digest)


def commit(project: Path, message: str = "first") -> None:
    """Put all of a project under version control."""
    if not (project / ".git").exists():
        git(project, "init", "--quiet", "--initial-branch", "main")
        git(project, "config", "user.name", "t")
        git(project, "config", "user.email", "t@example.org")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", message)


def tree(project: Path, *, without: tuple[str, ...] = (".cruft.json",)) -> dict[str, tuple]:
    """Mode and content of every file that is not ignored for being an environment."""
    files = {}
    for path in sorted(project.rglob("*")):
        name = path.relative_to(project).as_posix()
        if path.is_file() and not name.startswith((".git/", ".envs/")) and name not in without:
            files[name] = (path.stat().st_mode & 0o111, path.read_bytes())
    return files


def upgrade(project, *arguments, verb="upgrade", check="CHECK=no", **options):
    """`make upgrade` as a user runs it."""
    command = ["make", verb, f"PYTHON={sys.executable}", "ACCELERATOR=cpu", check, *arguments]
    environ = {**demo.environment(), **options.pop("env", {})}
    options = {"capture_output": True, "text": True, **options}
    return subprocess.run(command, cwd=project, env=environ, **options)


def succeeds(done):
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def merges(done):
    """It succeeds, or lacks only a lock, which no index or tool at hand can make.

    A project with a dependency of its own has a lock of its own, and 0.3.0 has a dependency more.
    """
    if done.returncode:
        assert "error: make lock fails after the upgrade" in errors(done)[-1], done.stderr
    return done.stdout


def errors(done):
    """The lines that say what is wrong; the exit code says so too, and no traceback is there."""
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def conflicting(born):
    """A project that changed the very line that the next version changes."""
    project = born(NOW)
    edit(project / "src/probe/model.py", r'\A"""The', '"""Our')
    (project / "outputs").mkdir()
    (project / "outputs" / "kept").write_text("ignored by git, and ours")
    commit(project, "ours")
    return project


def linked(project, template):
    """Point a project to another repository of the template."""
    path = project / ".cruft.json"
    path.write_text(re.sub(r'"template": "[^"]*"', f'"template": "{template}"', path.read_text()))
    commit(project, "other template")
    return project


def make_edits(project, manager):
    """What users do to a project; returns what must still be there after an upgrade."""
    package = project / "src" / "probe"
    edit(package / "model.py", r"\Z", '\n\nMINE = "model"\n')
    edit(project / "docs" / "reproducibility.md", r"\Z", "\nOurs.\n")
    (project / "configs" / "mine.yaml").write_text("seed: 7\n")
    edit(project / "README.md", r"^## Setup$", "Our team's own words.\n\n## Setup")
    edit(project / "pyproject.toml", r"(?<=^dependencies = \[\n)", '    "einops==0.8.1",\n')
    git(project, "mv", "notebooks/explore_run.ipynb", "notebooks/ours.ipynb")
    edit(project / "Makefile", r"\Z", "\nours: ## our own verb\n\techo ours\n")
    git(project, "rm", "--quiet", "docs/environments.md")
    lock = next(iter(sorted(p for p in tree(project) if LOCKS.fullmatch(p))), None)
    if lock:
        edit(project / lock, r"\Z", "# locked by us\n")
    commit(project, "ours")
    kept = {
        "src/probe/model.py": 'MINE = "model"',
        "configs/mine.yaml": "seed: 7",
        "README.md": "Our team's own words.",
        "pyproject.toml": "einops==0.8.1",
        "notebooks/ours.ipynb": "Look at runs",
        "Makefile": "ours: ## our own verb",
    }
    return kept | ({lock: "# locked by us"} if lock else {})
