"""A manifest records exactly what ran: which commit, what differs from it, which lock."""

import os
import py_compile
import shutil
import subprocess

import pytest
from conftest import PACKAGE, commit
from real.repro.git import GitError
from real.repro.run import manifest
from real.repro.run.bytecode import is_outdated
from real.repro.run.manifest import describe_code, describe_environment

WHO = ["-c", "user.name=t", "-c", "user.email=t@t"]


@pytest.fixture
def checkout(tmp_path):
    """A repository with one commit, as a project is after its first."""
    (tmp_path / "pyproject.toml").write_text('[tool.repro]\nlocks = ["*.lock"]\n')
    (tmp_path / "model.py").write_text("width = 32\n")
    (tmp_path / "all.lock").write_text("torch==1\n")
    commit(tmp_path)
    return tmp_path


def state(root):
    """Whether the tree is dirty, and the digest of what differs."""
    code = describe_code(root)
    assert len(code["commit"]) == 40
    return code["dirty"], code["diff_sha256"]


def test_a_clean_tree_is_its_commit(checkout):
    """Nothing differs, so there is nothing to digest."""
    assert state(checkout) == (False, None)


@pytest.mark.parametrize("name", ["model.py", "new.py"])
def test_a_change_is_dirty_and_has_a_digest_of_its_content(checkout, name):
    """For tracked and untracked files alike, different content gives a different digest."""
    seen = set()
    for content in ("width = 33\n", "width = 34\n", "width = 33\n"):
        (checkout / name).write_text(content)
        dirty, digest = state(checkout)
        assert dirty is True
        seen.add(digest)
    assert len(seen) == 2


def test_an_ignored_file_is_no_change(checkout):
    """Data and outputs that git is told to ignore are not code."""
    (checkout / ".gitignore").write_text("outputs\n")
    before = state(checkout)
    (checkout / "outputs").mkdir()
    (checkout / "outputs" / "log").write_text("x")
    assert state(checkout) == before


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('{"template": {"version": "9.8.7"}}', "9.8.7"),
        ('{"template": 1}', None),
        ("{", None),
        ("\udcff", None),
    ],
)
def test_the_version_of_the_template_is_part_of_the_code(checkout, text, version):
    """As named in `.template.json`, which a project may have removed."""
    assert describe_code(checkout)["template"] is None
    (checkout / ".template.json").write_bytes(text.encode(errors="surrogateescape"))
    assert describe_code(checkout)["template"] == version


def test_the_lock_has_a_digest_that_follows_it(checkout):
    """One changed version is another environment; without a lock there is no digest."""
    first = describe_environment(checkout)["lock_sha256"]
    assert len(first) == 64
    (checkout / "all.lock").write_text("torch==2\n")
    assert describe_environment(checkout)["lock_sha256"] not in (first, None)
    (checkout / "all.lock").unlink()
    assert describe_environment(checkout)["lock_sha256"] is None


@pytest.mark.parametrize(
    "config",
    [
        {"color.ui": "always", "color.diff": "always"},
        {"diff.noprefix": "true", "diff.mnemonicPrefix": "true", "diff.context": "9"},
        {"diff.external": "/bin/false", "core.pager": "/bin/false"},
        {"core.autocrlf": "true", "core.eol": "crlf", "core.fileMode": "false"},
        {"core.excludesFile": "/dev/stdin", "status.showUntrackedFiles": "no"},
        {"core.fsmonitor": "/bin/false", "diff.ignoreSubmodules": "all", "core.quotePath": "true"},
    ],
    ids=lambda config: next(iter(config)),
)
def test_gits_configuration_has_no_say(checkout, config):
    """The same tree has the same digest, whatever git is set to, here or for its user."""
    (checkout / "model.py").write_text("width = 33\n")
    (checkout / "näw.py").write_text("new = 1\n")
    before = describe_code(checkout)
    for name, value in config.items():
        subprocess.run(["git", "-C", checkout, "config", name, value], check=True)
    assert describe_code(checkout) == before


def test_what_a_user_ignores_for_himself_counts(checkout, monkeypatch, tmp_path_factory):
    """A `.gitignore` is part of the tree; `.git/info/exclude` and a global one are not."""
    (checkout / "note.py").write_text("x = 1\n")
    before = state(checkout)
    (checkout / ".git" / "info").mkdir(exist_ok=True)
    (checkout / ".git" / "info" / "exclude").write_text("*.py\n")
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text(f"[core]\n    excludesFile = {home / 'ignore'}\n")
    (home / "ignore").write_text("*\n")
    monkeypatch.setenv("HOME", str(home))
    assert state(checkout) == before
    assert before[0] is True


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_a_file_that_git_is_told_to_overlook_is_seen(checkout, flag):
    """By its content, not by what the index remembers."""
    subprocess.run(["git", "-C", checkout, "update-index", flag, "model.py"], check=True)
    (checkout / "model.py").write_text("width = 99\n")
    assert state(checkout)[0] is True


def test_the_repository_of_a_hook_has_no_say(checkout, monkeypatch, tmp_path_factory):
    """git hands its own index, work tree and configuration to what its hooks start."""
    before = describe_code(checkout)
    other = tmp_path_factory.mktemp("other")
    (other / "file").write_text("x")
    commit(other)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.worktree")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(other))
    assert describe_code(checkout) == before


@pytest.mark.parametrize("known", [True, False], ids=["submodule", "nested clone"])
def test_a_repository_inside_is_looked_into(checkout, known, tmp_path_factory):
    """Its commit and its edits, of a submodule and of a clone that nobody added."""
    library = tmp_path_factory.mktemp("library")
    (library / "layer.py").write_text("depth = 1\n")
    commit(library)
    add = ["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", library, "lib"]
    clone = ["clone", "--quiet", library, checkout / "lib"]
    subprocess.run(["git", "-C", checkout, *(add if known else clone)], check=True)
    if known:
        subprocess.run(
            ["git", "-C", checkout, *WHO, "commit", "--quiet", "-m", "with lib"], check=True
        )
        assert state(checkout) == (False, None)
    seen = set()
    for content in ("depth = 1\n", "depth = 2\n", "depth = 3\n"):
        (checkout / "lib" / "layer.py").write_text(content)
        seen.add(state(checkout))
    assert len(seen) == 3
    subprocess.run(["git", "-C", checkout / "lib", *WHO, "commit", "-qam", "3"], check=True)
    assert state(checkout)[0] is True


def test_a_name_that_is_no_text_and_what_is_no_file(checkout):
    """Bytes, a pipe, a dangling link, a script: each has its digest, and none of them blocks."""
    (checkout / os.fsdecode(b"caf\xe9.py")).write_text("x = 1\n")
    os.mkfifo(checkout / "pipe")
    (checkout / "link").symlink_to("nowhere")
    seen = {state(checkout)}
    (checkout / os.fsdecode(b"caf\xe9.py")).write_text("x = 2\n")
    seen.add(state(checkout))
    (checkout / "link").unlink()
    (checkout / "link").symlink_to("elsewhere")
    seen.add(state(checkout))
    (checkout / "model.py").chmod(0o755)
    seen.add(state(checkout))
    assert len(seen) == 4


def test_a_refusal_by_git_is_one_line_and_never_no_commit(checkout, monkeypatch, tmp_path):
    """Somebody else's repository, a damaged one, or no git: refused, and said why."""
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(GitError, match="git is not installed"):
        describe_code(checkout)
    monkeypatch.setenv("CODE_COMMIT", "0123456789-dirty")
    assert describe_code(checkout)["commit"] == "0123456789"
    (tools / "git").write_text(
        "#!/bin/sh\necho \"fatal: detected dubious ownership in repository at 'x'\" >&2\nexit 128\n"
    )
    (tools / "git").chmod(0o755)
    with pytest.raises(GitError, match=r"dubious ownership.*safe\.directory") as error:
        describe_code(checkout)
    assert "\n" not in str(error.value)


def test_every_module_of_the_package_is_recorded(monkeypatch, tmp_path):
    """Sub-packages too: what trains is what the manifest names."""
    package = tmp_path / "src" / PACKAGE
    (package / "models" / "deep").mkdir(parents=True)
    (package / "models" / "deep" / "vit.py").write_text("width = 1\n")
    monkeypatch.setattr(manifest, "PACKAGE", package)
    before = describe_code(tmp_path)["files"]
    assert list(before) == [f"src/{PACKAGE}/models/deep/vit.py"]
    (package / "models" / "deep" / "vit.py").write_text("width = 2\n")
    assert describe_code(tmp_path)["files"] != before


def test_of_two_packages_of_one_name_the_imported_one_is_recorded(checkout, monkeypatch, tmp_path):
    """The first on the path, as for `import`."""
    for folder, version in (("first", "1.0"), ("second", "2.0")):
        info = tmp_path / folder / f"some_thing-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: Some_Thing\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path / "second")
    monkeypatch.syspath_prepend(tmp_path / "first")
    assert describe_environment(checkout)["packages"]["some_thing"] == "1.0"


def test_a_replaced_commit_is_not_the_commit(checkout):
    """`git replace` shows another tree under a commit's name; the record knows only its own."""
    git = ["git", "-C", checkout, *WHO]
    (checkout / "model.py").write_text("width = 64\n")
    subprocess.run([*git, "commit", "--quiet", "-am", "wider"], check=True)
    subprocess.run([*git, "replace", "HEAD~1", "HEAD"], check=True)
    subprocess.run([*git, "reset", "--quiet", "--soft", "HEAD~1"], check=True)
    assert state(checkout)[0] is True


def test_a_git_that_fails_is_no_missing_commit(checkout, tmp_path, monkeypatch):
    """Such as the stand-in of a system without developer tools, which ends with exit code 1."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(GitError, match="git refuses to read"):
        describe_code(checkout)


def test_a_run_in_the_projects_own_folder_is_no_change_of_it(checkout):
    """The run's directory is left out; what lies next to it is the project."""
    (checkout / "myrun").mkdir()
    (checkout / "myrun" / "manifest.json").write_text("{}")
    assert describe_code(checkout, leave_out=checkout / "myrun")["dirty"] is False
    (checkout / "other.py").write_text("")
    assert describe_code(checkout, leave_out=checkout / "myrun")["dirty"] is True


def test_a_source_that_python_does_not_execute_is_noticed(tmp_path):
    """Changed without another time or size, as archives and `rsync -t` can do."""
    path = tmp_path / "module.py"
    path.write_text("width = 32\n")
    py_compile.compile(str(path))
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    assert not is_outdated(path)
    path.write_text("width = 64\n")
    os.utime(path, ns=times)
    assert is_outdated(path)
    os.utime(path, (1, 1))
    assert not is_outdated(path)  # Python will compile it again
    shutil.rmtree(tmp_path / "__pycache__")
    os.utime(path, ns=times)
    assert not is_outdated(path)


def test_a_run_of_an_outdated_compilation_is_refused(monkeypatch):
    """In one line, before anything is recorded."""
    monkeypatch.setattr(manifest, "is_outdated", lambda path: path.name == "model.py")
    with pytest.raises(ValueError, match=r"model\.py was changed and kept its time, so Python"):
        describe_code(manifest.PACKAGE.parents[1])


def test_a_filter_hides_no_edit_of_what_is_executed(checkout):
    """Attributes and a filter of the user's own, which nobody else has; line endings aside."""
    git = ["git", "-C", checkout]
    (checkout / ".git" / "info").mkdir(exist_ok=True)
    (checkout / ".git" / "info" / "attributes").write_text("*.py filter=h\n*.bin filter=h\n")
    subprocess.run([*git, "config", "filter.h.clean", "sed s/64/32/"], check=True)
    (checkout / "model.py").write_bytes(b"width = 32\r\n")
    assert state(checkout)[0] is False
    (checkout / "model.py").write_text("width = 64\n")
    assert state(checkout)[0] is True
