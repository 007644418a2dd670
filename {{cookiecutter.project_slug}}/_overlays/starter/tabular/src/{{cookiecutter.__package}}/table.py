"""Read a table from a CSV or Parquet file, column by column. Yours to change."""

import codecs
import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

MISSING = {"", "na", "n/a", "nan", "null", "none"}
_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf)", re.IGNORECASE)


def read_table(
    path: Path, *, delimiter: str = ",", categories: Iterable[str] = (), drop: Iterable[str] = ()
) -> dict[str, np.ndarray]:
    """The columns of a file: float64 [N] where NaN is missing, or text [N] where None is.

    Raises:
        ValueError: the file cannot be read, a column is named twice or mixes numbers and text, or
            `categories` or `drop` name no column.
    """
    read = {".csv": _csv, ".parquet": _parquet}.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"{path} is no table; data.path takes a .csv or a .parquet file")
    if path.exists() and not path.is_file():
        raise ValueError(f"cannot read {path}: it is not a file")
    try:
        columns = read(path, delimiter)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None
    if not any(map(len, columns.values())):
        raise ValueError(f"{path} has no rows below its header")
    check_names(path, columns, categories=categories, drop=drop)
    return {
        name: _column(path, name, values, as_text=name in set(categories))
        for name, values in columns.items()
        if name not in set(drop)
    }


def check_names(path: Path, columns: Iterable[str], **given: Iterable[str]) -> None:
    """Raise a `ValueError` if a key of the configuration names a column that is not there."""
    for key, names in given.items():
        if unknown := [name for name in names if name not in columns]:
            has = f"{path} has no column {unknown[0]!r}; it has {', '.join(columns)}"
            raise ValueError(f"data.{key}: {has}"[:300])


def _csv(path: Path, delimiter: str) -> Mapping[str, list[str | None]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(rows, [])]
            _check_header(path, header)
            columns: dict[str, list[str | None]] = {name: [] for name in header}
            for row in rows:
                if not row:
                    continue  # an empty line
                if len(row) != len(header):
                    raise ValueError(
                        f"{path}, line {rows.line_num}: {len(row)} fields where the header has "
                        f"{len(header)}; data.delimiter is {delimiter!r}"
                    )
                for name, text in zip(header, row, strict=True):
                    columns[name].append(text)
    except UnicodeDecodeError:
        with path.open("rb") as file:
            found = "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else ""
        raise ValueError(
            f"{path} is not UTF-8 text; convert it, such as with iconv -f {found or 'latin1'} "
            "-t utf-8"
        ) from None
    except csv.Error as error:
        raise ValueError(f"{path} is not a CSV file: line {rows.line_num}: {error}") from None
    return columns


def _parquet(path: Path, _delimiter: str) -> Mapping[str, list[Any]]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ValueError(
            f"{path} needs pyarrow, which is not in the lock: add it to pyproject.toml's "
            "dependencies and run make lock setup, or convert the file to CSV"
        ) from None
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is not a Parquet file: {' '.join(str(error).split())}") from None
    _check_header(path, table.column_names)
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _check_header(path: Path, names: list[str]) -> None:
    if "" in names:
        raise ValueError(f"{path}: column {names.index('') + 1} has no name; name it")
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{path} has the column {min(twice)!r} twice; rename one")


def _column(path: Path, name: str, values: list[Any], *, as_text: bool) -> np.ndarray:
    present = [None if _is_missing(value) else str(value).strip() for value in values]
    if all(text is None for text in present):
        raise ValueError(f"{path}: column {name!r} is empty; leave it out with data.drop")
    if as_text or not any(_is_number(text) for text in present if text is not None):
        return np.array(present, dtype=object)
    is_number = [text is None or _is_number(text) for text in present]
    if not all(is_number):
        row = is_number.index(False)
        raise ValueError(
            f"{path}: column {name!r} mixes numbers and text: {present[row][:40]!r} in row "
            f"{row + 1}; mend it, or name it in data.categories or data.drop"
        )
    numbers = np.array([np.nan if text is None else float(text) for text in present])
    if np.isinf(numbers).any():
        row = int(np.isinf(numbers).argmax())
        raise ValueError(f"{path}: column {name!r} is not finite in row {row + 1}")
    inexact = [text for text in present if text and _is_whole(text) and abs(int(text)) > 2**53]
    if inexact:
        raise ValueError(
            f"{path}: column {name!r} holds {inexact[0][:40]}, more digits than a number keeps; "
            "name it in data.categories or data.drop"
        )
    return numbers


def _is_number(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text))


def _is_whole(text: str) -> bool:
    return text.lstrip("+-").isdecimal()


def _is_missing(value: Any) -> bool:
    return value is None or str(value).strip().lower() in MISSING
