"""Files are read into typed columns; an error is one line that names file and row."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from stream.errors import UsageError
from stream.jobs.files.event_files import read_catalog, read_clicks, read_orders

ORDERS = {
    "event_id": ["a", "b"],
    "ts": [1_322_728_000_000, 1_322_727_000_000],
    "sku": ["00123", "85048"],
    "quantity": [3, -1],
    "unit_price": [1.5, 2.0],
}


def write(folder: Path, frame: pl.DataFrame, kind: str) -> Path:
    path = folder / f"lines.{kind}"
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_both_kinds_of_file_give_the_same_frame_sorted_by_time(tmp_path: Path, kind: str) -> None:
    read = read_orders(write(tmp_path, pl.DataFrame(ORDERS), kind))

    assert read["event_id"].to_list() == ["b", "a"]
    assert read["sku"].to_list() == ["85048", "00123"], "leading zeros of a SKU are kept"
    assert read.schema["ts"] == pl.Int64
    assert read.schema["quantity"] == pl.Int64


def test_rows_without_event_id_are_named_by_file_and_row(tmp_path: Path) -> None:
    frame = pl.DataFrame(ORDERS).drop("event_id")

    assert read_orders(write(tmp_path, frame, "csv"))["event_id"].to_list() == [
        "lines-2",
        "lines-1",
    ]


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2011-12-01T08:26:00Z", 1_322_727_960_000),
        ("2011-12-01T08:26:00.250+00:00", 1_322_727_960_250),
        ("2011-12-01 10:26:00+02:00", 1_322_727_960_000),
        ("1322727960000", 1_322_727_960_000),
    ],
)
def test_times_are_milliseconds_or_rfc_3339(tmp_path: Path, text: str, ms: int) -> None:
    frame = pl.DataFrame(ORDERS).with_columns(ts=pl.lit(text))

    assert read_orders(write(tmp_path, frame, "csv"))["ts"].to_list() == [ms, ms]


def test_parquet_datetimes_are_read_whatever_their_zone(tmp_path: Path) -> None:
    when = datetime(2011, 12, 1, 8, 26, tzinfo=UTC)
    frame = pl.DataFrame(ORDERS).with_columns(
        ts=pl.lit(when).dt.convert_time_zone("Europe/Helsinki")
    )

    assert read_orders(write(tmp_path, frame, "parquet"))["ts"][0] == 1_322_727_960_000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ts": "yesterday"}, ["row 1", "column ts", "'yesterday'"]),
        ({"ts": "2011-12-01 08:26:00"}, ["row 1", "column ts"]),
        ({"ts": "1322727960"}, ["milliseconds"]),
        ({"ts": ""}, ["row 1", "no ts"]),
        ({"quantity": "1.5"}, ["row 1", "column quantity", "'1.5'", "whole number"]),
        ({"unit_price": "£2"}, ["row 1", "column unit_price", "number"]),
    ],
)
def test_a_value_that_does_not_fit_is_named(
    tmp_path: Path, change: dict[str, str], words: list[str]
) -> None:
    frame = pl.DataFrame(ORDERS).with_columns(
        **{name: pl.lit(value or None, pl.String) for name, value in change.items()}
    )
    path = write(tmp_path, frame, "csv")

    with pytest.raises(UsageError) as caught:
        read_orders(path)

    text = str(caught.value)
    assert "\n" not in text
    assert all(word in text for word in [str(path), *words]), text


def test_missing_columns_are_named_with_those_found(tmp_path: Path) -> None:
    path = write(tmp_path, pl.DataFrame({"date": ["x"], "sku": ["1"]}), "csv")

    with pytest.raises(UsageError, match=r"no column ts, action.*found date, sku"):
        read_clicks(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.csv", None, "no such file"),
        ("lines.txt", b"a,b", r"\.csv or \.parquet"),
        ("lines.parquet", b"not parquet at all", "not a readable parquet"),
        ("lines.csv", b"", "empty"),
        ("lines.csv", b"ts,sku\n1,\xff\xfe\n", "not a readable csv"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(UsageError, match=words) as caught:
        read_orders(path)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "orders.parquet"
    folder.mkdir()

    with pytest.raises(UsageError):
        read_orders(folder)


def test_invalid_values_pass_for_the_worker_to_reject(tmp_path: Path) -> None:
    """A quantity of 0 or a missing SKU ends in the dead-letter topic, not in an error here."""
    frame = pl.DataFrame(ORDERS).with_columns(quantity=pl.lit(0), sku=pl.lit(None, pl.String))

    read = read_orders(write(tmp_path, frame, "parquet"))

    assert read["quantity"].to_list() == [0, 0]
    assert read["sku"].null_count() == 2


def test_a_catalog_needs_only_skus(tmp_path: Path) -> None:
    path = write(tmp_path, pl.DataFrame({"sku": ["2", "1"], "colour": ["red", "blue"]}), "csv")

    assert read_catalog(path).to_dict(as_series=False) == {"sku": ["2", "1"]}
