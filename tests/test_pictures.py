"""The README's pictures are there, small, and tell nothing of the machine that drew them."""

import re
from xml.etree import ElementTree

import pytest
from conftest import ROOT

from tools import pictures

README = (ROOT / "README.md").read_text(encoding="utf-8")
NAMES = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)


def test_the_readme_shows_all_pictures():
    """None is missing, none is left over."""
    assert {ROOT / name for name in NAMES} == set(pictures.PICTURES.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_small_and_clean(name):
    """Well-formed, below 30 kB, without a path or a script."""
    text = (ROOT / name).read_text(encoding="utf-8")
    ElementTree.fromstring(text)
    assert len(text) < 30_000
    assert not re.search(r"/(home|root|tmp|Users)/|<script|href=", text)


def test_the_pictures_show_the_verdicts():
    """A kill, a resume and IDENTICAL; a difference, its step and its cause."""
    resume, compare = (
        (pictures.PICTURES / f"{name}.svg").read_text() for name in ("resume", "compare")
    )
    for said in ("Killed", "--resume outputs/killed", "IDENTICAL"):
        assert said in resume
    for said in ("first differs at step", "training.learning_rate was 0.004", "DIFFERENT"):
        assert said in compare


def test_a_terminal_shows_what_was_printed():
    """Markup is text, long lines break, colours stand for verdicts."""
    drawn = pictures.terminal(["$ x <y> & z", "a" * (pictures.WIDTH + 5), "IDENTICAL"])
    lines = [node.text for node in ElementTree.fromstring(drawn) if node.tag.endswith("text")]
    assert lines == ["$ x <y> & z", "a" * pictures.WIDTH, "a" * 5, "IDENTICAL"]
    assert pictures.COLOURS["IDENTICAL"] in drawn
