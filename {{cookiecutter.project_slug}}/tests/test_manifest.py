"""A manifest says truly what ran: which commit, what differs from it, which lock."""

import pytest
from conftest import commit

from {{ cookiecutter.__package }}.manifest import describe_code, describe_environment


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
    """A file that git knows and one that it does not: every other content is another digest."""
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
    """As `.template.json` names it; a project may have gone its own way without one."""
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
