"""The tabular starter reads Parquet, whose reader is no part of any project's lock."""

import datetime
import decimal
import importlib.util
import math

import pyarrow
import pyarrow.parquet
import pytest
from conftest import ROOT

STARTER = ROOT / "{{cookiecutter.project_slug}}" / "_overlays" / "starter" / "tabular"


@pytest.fixture(scope="module")
def read_table():
    """The starter's own function; its module imports nothing of the project."""
    path = STARTER / "src" / "{{cookiecutter.__package}}" / "table.py"
    spec = importlib.util.spec_from_file_location("table", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.read_table


def written(folder, **columns):
    """A Parquet file with these columns."""
    path = folder / "table.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_every_kind_of_column_is_read(read_table, tmp_path):
    """Numbers of any kind are float64 with NaN for what is missing; the rest is text with None."""
    columns = read_table(
        written(
            tmp_path,
            whole=[1, 2, None],
            real=[0.1, math.nan, 1e-8],
            exact=[decimal.Decimal("1.50")] * 3,
            text=["a", None, "b"],
            truth=[True, False, True],
            day=[datetime.date(2020, 1, 2)] * 3,
            names=pyarrow.array(["x", "y", "x"]).dictionary_encode(),
        )
    )
    numbers = {n: [None if math.isnan(x) else x for x in columns[n]] for n in list(columns)[:3]}
    assert numbers == {"whole": [1, 2, None], "real": [0.1, None, 1e-8], "exact": [1.5] * 3}
    assert {name: list(columns[name]) for name in list(columns)[3:]} == {
        "text": ["a", None, "b"],
        "truth": ["True", "False", "True"],
        "day": ["2020-01-02"] * 3,
        "names": ["x", "y", "x"],
    }


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1.0, math.inf]}, "column 'a' is not finite in row 2"),
        ({"a": [2**53 + 1, 1]}, "more digits than a number keeps"),
        ({"": [1, 2]}, "column 1 has no name"),
        ({"a": []}, "has no rows below its header"),
        ({"a": [None, None]}, "column 'a' is empty"),
    ],
)
def test_a_bad_file_is_one_line(read_table, tmp_path, columns, message):
    """As for CSV."""
    with pytest.raises(ValueError, match=message) as refused:
        read_table(written(tmp_path, **columns))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("size", [0, 3, 100])
def test_a_damaged_file_is_one_line(read_table, tmp_path, size):
    """Cut off anywhere."""
    path = written(tmp_path, a=[1, 2, 3])
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"table\.parquet") as refused:
        read_table(path)
    assert "\n" not in str(refused.value)
