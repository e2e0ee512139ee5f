"""Records of the topic `features`: the names, the omitted values, one meaning for every row."""

import msgspec
import numpy as np

from model.contract import FEATURE_NAMES, SUM_NAMES, FeatureSpec
from model.durations import HOUR_MS
from stream.sinks.topic_records import FeatureRecord, FeatureRecords

ROWS: dict[str, list[float]] = {
    "silent": [0.0] * 11,
    "sold out": [0.0] * 9 + [1.0, 1.0],
    "in stock, silent": [0.0] * 9 + [13.0, 51 / 255],
    "sold": [4, 1, 9, 2, 10, 3, 1, 2, 7, 41, 0],
    "looked at": [0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0],
    "only returns": [0, 2, -8, 1, 0, 0, 0, 0, 0, 0, 0],
}


def values() -> dict[str, dict[str, float]]:
    """Record values by the name of the row."""
    block = np.array(list(ROWS.values()), np.float32)
    records = FeatureRecords(bucket_ms=HOUR_MS).of(list(ROWS), block, start_ms=HOUR_MS)
    decoded = {}
    for name, raw in records:
        record = msgspec.json.decode(raw, type=FeatureRecord)
        assert (record.series_id, record.bucket_start_ms, record.bucket_ms) == (
            name,
            HOUR_MS,
            HOUR_MS,
        )
        assert record.spec_hash == FeatureSpec().hash
        decoded[name] = record.values
    return decoded


def test_every_row_has_the_nine_sums_and_the_stock_if_known() -> None:
    """Silent rows made from a template have the same values as encoded ones."""
    found = values()

    for name, row in ROWS.items():
        assert [found[name][column] for column in SUM_NAMES] == row[:9]
        assert ("on_hand" in found[name]) == (row[FEATURE_NAMES.index("stock")] > 0)
    assert (found["sold out"]["on_hand"], found["sold out"]["stockout_share"]) == (0.0, 1.0)
    assert found["in stock, silent"] == dict.fromkeys(SUM_NAMES, 0.0) | {
        "on_hand": 12.0,
        "stockout_share": 0.2,
    }
    assert found["sold"]["on_hand"] == 40.0


def test_derived_values_are_omitted_if_their_divisor_is_zero() -> None:
    """A price needs units that were not returned, a conversion needs views."""
    found = values()

    assert (found["sold"]["mean_price"], found["sold"]["conversion"]) == (3.0, 0.2)
    assert found["looked at"]["conversion"] == 0.0
    assert "mean_price" not in found["looked at"]
    assert not {"mean_price", "conversion"} & found["only returns"].keys()
