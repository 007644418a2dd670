"""Imports by the names of the last release work for one more, and warn with the new location."""

import importlib

import pytest
from real.repro.moved import MOVED


@pytest.mark.parametrize("name", MOVED)
def test_an_old_module_hands_on_what_has_moved(name):
    """Every place that it names is there."""
    importlib.import_module(f"real.{name}")
    for place in MOVED[name]:
        importlib.import_module(f"real.repro.{place}")


def test_the_warning_names_the_new_place():
    """In a form that can be pasted; a name that exists nowhere is an ordinary error."""
    with pytest.warns(FutureWarning, match=r"from real\.repro\.random\.streams import derive"):
        from real.seeding import derive

    assert derive(0, "x") != derive(1, "x")
    with pytest.raises(ImportError, match="nothing"):
        from real.seeding import nothing  # noqa: F401
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("real.nonsense")
