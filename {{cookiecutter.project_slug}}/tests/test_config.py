"""The configurations of this project are valid for its classes and its editor schema."""

from pathlib import Path

import pytest

from {{ cookiecutter.__package }}.config import Config, load_config
from {{ cookiecutter.__package }}.repro.config.schema import NAME, schema_text

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_config_is_taken(path):
    """No key is unknown, and no value is out of range."""
    load_config(path)


def test_the_editors_schema_is_of_this_config():
    """After a change of `config.py` the command `schema` writes it again."""
    assert (CONFIGS / NAME).read_text(encoding="utf-8") == schema_text(Config)
