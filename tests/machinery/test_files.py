"""Files that are written whole or not at all, and found in their order."""

import errno
import os

import pytest
from real.repro.files import checkpoint_path, list_checkpoints, write_whole


@pytest.mark.parametrize("content", ["new", b"new"])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch, content):
    """A disk that is full at the last moment leaves what was there."""
    path = tmp_path / "file"
    path.write_text("before")

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            write_whole(path, content)
    assert path.read_text() == "before"
    write_whole(path, content)
    assert path.read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_checkpoints_are_listed_by_their_step(tmp_path):
    """A folder lists its files in any order; and what is half-written does not count."""
    steps = [7, 100_000_000, 9, 10, 1, 99_999_999, 8, 30, 2, 3]
    for step in steps:
        checkpoint_path(tmp_path, step).touch()
    partial = checkpoint_path(tmp_path, 11)
    partial.with_name(f"{partial.name}.partial").touch()
    assert list_checkpoints(tmp_path) == [checkpoint_path(tmp_path, step) for step in sorted(steps)]
