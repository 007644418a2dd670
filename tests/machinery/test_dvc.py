"""Files of DVC are read without DVC, and what cannot be checked is an error."""

import hashlib

import pytest
from conftest import commit
from real.repro.run.dvc import changed_data, describe_dvc

MD5 = hashlib.md5(b"1,2\n").hexdigest()
PINNED = f"outs:\n- md5: {MD5}\n  size: 4\n  hash: md5\n  path: t.csv\n"


@pytest.fixture(params=["in git", "outside git"])
def project(request, tmp_path):
    """A project with one file under DVC."""
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/t.csv").write_text("1,2\n")
    (tmp_path / "data/t.csv.dvc").write_text(PINNED)
    (tmp_path / ".envs").mkdir()
    (tmp_path / ".envs/other.dvc").write_text(PINNED)
    (tmp_path / ".gitignore").write_text("/.envs\n")
    if request.param == "in git":
        commit(tmp_path)
    return tmp_path


def test_what_is_pinned_and_what_is_here(project):
    """The same, a change, and nothing; an environment's own files are not the project's."""
    assert describe_dvc(project) == {"data/t.csv": {"pinned": MD5, "workspace": MD5}}
    (project / "data/t.csv").write_text("1,3\n")
    assert changed_data(describe_dvc(project)) == ["data/t.csv"]
    (project / "data/t.csv").unlink()
    assert describe_dvc(project)["data/t.csv"]["workspace"] is None
    assert changed_data(describe_dvc(project)) == []
    (project / "data/t.csv").mkdir()
    assert changed_data(describe_dvc(project)) == ["data/t.csv"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "outs: 3",
        "outs:\n- path: t.csv",
        "outs:\n- [1]",
        "a: b: c",
        "\x00",
        PINNED.replace("  hash: md5\n", ""),
        PINNED.replace(MD5, "3"),
    ],
)
def test_a_file_that_pins_nothing_is_one_line(project, text):
    """Damaged, or made by a version of DVC whose digest cannot be checked here."""
    (project / "data/t.csv.dvc").write_text(text)
    with pytest.raises(ValueError, match=r"t\.csv\.dvc") as raised:
        describe_dvc(project)
    assert "\n" not in str(raised.value)
