"""Splits are disjoint and stable, only `train` shapes the numbers, a bad table is one line."""

import sys

import numpy as np
import pytest
import torch

from {{ cookiecutter.__package }}.config import Data
from {{ cookiecutter.__package }}.data import (
    TrainSet,
    load_data,
    prepare,
    split_by_content,
)
from {{ cookiecutter.__package }}.repro import SampleStreams

LETTERS = "abcdefghijklmnopqrst"
ROWS = [(f"{n}.5", LETTERS[n % 3], n * n % 7) for n in range(60)]


def table(folder, rows=ROWS, header="size,kind,price", name="table.csv", encoding="utf-8"):
    """A CSV file, and the configuration that reads it."""
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    (folder / name).write_text("\n".join(lines) + "\n", encoding=encoding)
    return Data(name="file", path=name, target="price")


@pytest.mark.parametrize("name", ["diabetes", "breast_cancer"])
def test_splits_share_no_row_and_hold_every_sample(name, tmp_path):
    """No training row, not even a copy of one, is in validation or test."""
    data = load_data(Data(name=name), tmp_path)
    train, val, test = (
        {row.tobytes() for row in split.features} for split in (data.train, data.val, data.test)
    )
    assert not (train & val or train & test or val & test)
    assert data.describe()["num_samples"] == {"diabetes": 442, "breast_cancer": 569}[name]


def test_only_the_training_split_shapes_the_numbers():
    """Mean 0 and deviation 1 in `train`; an outlier outside of it moves none of its numbers."""
    size, price = np.arange(60) + 0.5, np.arange(60) * 1.0
    data = prepare({"size": size, "price": price}, "price", "regression", Data(), "t", {})
    for array in (data.train.features, data.train.targets):
        assert array.mean() == pytest.approx(0, abs=1e-6)
        assert array.std() == pytest.approx(1, abs=1e-6)
    for outlier in range(10**6, 10**6 + 50):
        columns = {"size": np.append(size, outlier), "price": np.append(price, 7.0)}
        other = prepare(columns, "price", "regression", Data(), "t", {})
        if len(other.train) == len(data.train):  # by its hash, the new row is in another split
            assert np.array_equal(other.train.features, data.train.features)
            return
    pytest.fail("no outlier fell outside of the training split")


def test_a_row_keeps_its_side_when_the_table_grows():
    """Splitting by content: more or reordered rows move none of the others."""
    size = np.arange(60) + 0.5
    few, more = (
        set(values[split_by_content({"size": values}, 0.15, 0.15)["test"]])
        for values in (size[:40], size[::-1])
    )
    assert few
    assert few <= more


def test_names_become_columns_of_zero_and_one(tmp_path):
    """One column for each name that `train` has; a name it lacks is zero in all of them."""
    data = load_data(table(tmp_path), tmp_path)
    ones = data.train.features[:, 1:]
    assert ones.shape[1] == 3
    assert set(ones.sum(axis=1)) == {1.0}
    assert set(np.unique(ones)) == {0.0, 1.0}


def test_one_changed_number_changes_the_digest(tmp_path):
    """The data's sha256 covers every feature and target."""
    before = load_data(table(tmp_path), tmp_path).describe()["sha256"]
    assert load_data(table(tmp_path), tmp_path).describe()["sha256"] == before
    changed = [*ROWS[:-1], ("59.6", *ROWS[-1][1:])]
    assert load_data(table(tmp_path, changed), tmp_path).describe()["sha256"] != before


def test_noise_depends_on_the_key_and_nothing_else(tmp_path):
    """Alone or in a batch, the same (epoch, index) gives the same row; another epoch another."""
    train = load_data(Data(), tmp_path).train
    samples = TrainSet(train, 0.5, SampleStreams(0))
    features, targets = samples.__getitems__([(2, 7), (0, 3)])
    alone, its_target = samples[0, 3]
    assert torch.equal(features[1], alone)
    assert targets[1] == its_target == train.targets[3]
    assert not torch.equal(samples[1, 3][0], alone)


def test_what_is_missing_is_filled_from_train_if_asked(tmp_path):
    """A number becomes the training mean, which is 0; a name becomes a name of its own."""
    rows = [*ROWS, ("", "a", 3), ("61.5", "", 4), ("62.5", "", 4), ("NA", "b", 1)]
    config = table(tmp_path, rows).model_copy(update={"missing": "fill"})
    data = load_data(config, tmp_path)
    assert np.isfinite(data.train.features).all()
    assert data.describe()["num_samples"] == 64


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([*ROWS, ("", "a", 1)], "size,kind,price", "column 'size' lacks 1 of 61 values, first"),
        ([*ROWS, ("1.5", "a", "")], "size,kind,price", "the target is missing in 1 rows"),
        ([*ROWS, ("big", "a", 1)], "size,kind,price", "mixes numbers and text: 'big' in row 61"),
        ([*ROWS, ("1e999", "a", 1)], "size,kind,price", "'size' is not finite in row 61"),
        ([*ROWS, ("1", "a", 1, 2)], "size,kind,price", "line 62: 4 fields where the header has 3"),
        ([*ROWS, ("1", '"a', 1)], "size,kind,price", "is not a CSV file: line 62"),
        (ROWS, "size,size,price", "has the column 'size' twice"),
        (ROWS, "size,kind,cost", "has no column 'price'; it has size, kind, cost"),
        ([(1, *row[1:]) for row in ROWS], "size,kind,price", "column 'size' is 1.0 in every row"),
        ([("", *row[1:]) for row in ROWS], "size,kind,price", "column 'size' is empty"),
        ([(n, n, n % 5) for n in range(60)], "a,b,price", "columns 'a' and 'b' are the same"),
        (ROWS[:1], "size,kind,price", "which takes at least two: more rows"),
        ([], "size,kind,price", "has no rows below its header"),
        ([(n,) for n in range(60)], "price", "has no column beside its target"),
        ([(n, LETTERS[n % 9]) for n in range(60)], "size,price", "target 'price' is text"),
        ([(n, f"{n}%") for n in range(60)], "size,price", "is text, such as '0%'; numbers are"),
        ([(n, 0.1) for n in range(60)], "size,price", "target 'price' is 0.1 in every row"),
        ([(f'"{n},5"', n) for n in range(60)], "size,price", "'size' has 60 texts in 60 rows"),
        ([(f"{n}e306", n) for n in range(60)], "size,price", "of column 'size' are too large"),
        ([(n, f"{n}e306") for n in range(60)], "size,price", "of column 'price' are too large"),
        ([(2**53 + n, n) for n in range(60)], "size,price", "more digits than a number keeps"),
        ([(n, n, n % 5) for n in range(60)], ",b,price", "column 1 has no name"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path, rows, header, message):
    """What is wrong, where, and what to do; nothing is trained."""
    config = table(tmp_path, rows, header)
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refused:
        load_data(config, tmp_path)
    assert message in str(refused.value)


def test_a_class_is_whole_and_has_company(tmp_path):
    """A target with fractions is no class, and one class alone teaches nothing."""
    update = {"task": "classification"}
    halves = table(tmp_path, [(n, "a", n / 2) for n in range(60)]).model_copy(update=update)
    halves = halves.model_copy(update={"drop": ("kind",)})
    with pytest.raises(ValueError, match=r"has fractions; data\.task=regression fits"):
        load_data(halves, tmp_path)
    single = table(tmp_path, [(n, LETTERS[n % 2], 3) for n in range(60)])
    with pytest.raises(ValueError, match="one class only, 3"):
        load_data(single.model_copy(update=update), tmp_path)


def test_a_column_that_hardly_varies_in_train_is_not_blown_up(tmp_path):
    """The deviation of equal numbers may be rounded to a tiny one instead of zero."""
    for odd in range(0, 60, 4):  # in one split or another
        rows = [(0.2 if n == odd else 0.1, *row) for n, row in enumerate(ROWS)]
        data = load_data(table(tmp_path, rows, "flag,size,kind,price"), tmp_path)
        for side in (data.train, data.val, data.test):
            assert np.abs(side.features).max() < 100


def test_the_target_and_unknown_columns_are_not_dropped(tmp_path):
    """Of a bundled table as of a file; and a file needs its name."""
    for update in ({"drop": ("price",)}, {"drop": ("cost",)}):
        with pytest.raises(ValueError, match=r"data\.drop"):
            load_data(table(tmp_path).model_copy(update=update), tmp_path)
    for options in ({"drop": ("target",)}, {"drop": ("cost",)}, {"categories": ("cost",)}):
        with pytest.raises(ValueError, match=r"data\.(drop|categories)"):
            load_data(Data(**options), tmp_path)
    with pytest.raises(ValueError, match="name: diabetes has no path and no target"):
        Data(path="my.csv", target="price")


@pytest.mark.parametrize("given", ["\t", "tab", r"\t"])
def test_a_tab_can_be_named(given):
    """On a command line, it is hard to type."""
    assert Data(delimiter=given).delimiter == "\t"


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_another_encoding_is_named(tmp_path, encoding):
    """A file of Latin-1 is not read as something else; a byte-order mark is no part of a name."""
    rows = [*ROWS, ("1", "é", 1)]
    name = encoding.replace("latin-", "latin")
    with pytest.raises(ValueError, match=f"is not UTF-8 text; convert it, .* iconv -f {name} "):
        load_data(table(tmp_path, rows, encoding=encoding), tmp_path)
    load_data(table(tmp_path, header="\ufeffsize,kind,price"), tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone.csv", "cannot read .*gone"), ("data.txt", "takes a .csv or a .parquet file")],
)
def test_a_file_that_is_none_is_named(tmp_path, name, message):
    """By its whole path."""
    with pytest.raises(ValueError, match=message):
        load_data(Data(name="file", path=name, target="y"), tmp_path)


def test_parquet_without_pyarrow_says_what_to_add(tmp_path, monkeypatch):
    """The lock has no reader of Parquet; the message says how to get one."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="needs pyarrow, which is not in the lock"):
        load_data(Data(name="file", path="t.parquet", target="y"), tmp_path)
