"""Encodes the records of the output topics: features, forecasts, dead letters. Pure.

Axes: S = series, H = horizon steps, Q = quantiles, F = features.
"""

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from model.contract import SUM_NAMES, FeatureSpec, QuantileForecast
from stream.decoding.refusals import Refused
from stream.features.definitions import N_SUMS
from stream.features.derived import named_values, stock_of
from stream.privacy import Pseudonyms
from stream.series_ids import split_series
from stream.sinks.redaction import redacted, redacted_detail

_encode = msgspec.json.Encoder().encode
_SPEC_HASH = FeatureSpec().hash
#: Longer raw values are cut in the dead letter; its detail states the full length.
MAX_RAW_CHARS = 200_000
MAX_DETAIL_CHARS = 1_000


class FeatureRecord(msgspec.Struct):
    """A closed bucket of one series."""

    series_id: str
    bucket_start_ms: int
    bucket_ms: int
    values: dict[str, float]
    spec_hash: str


class FeatureRecords:
    """Records of closed buckets. Those of silent series, nearly all, are made from a template.

    Values are those of the stored float32 block, so a repeated record is identical.

    >>> records = FeatureRecords(bucket_ms=60_000)
    >>> block = np.zeros((1, 11), np.float32)
    >>> [(name, record)] = records.of(["A"], block, start_ms=0)
    >>> name, msgspec.json.decode(record)["values"]["units"]
    ('A', 0.0)
    """

    def __init__(self, *, bucket_ms: int) -> None:
        self._bucket_ms = bucket_ms
        silent = dict.fromkeys(SUM_NAMES, 0.0)
        record = _encode(FeatureRecord("", 0, bucket_ms, silent, _SPEC_HASH))
        head = b'{"series_id":"","bucket_start_ms":0'
        self._silent_tail = record[len(head) :]
        self._silent_sums, self._end = self._silent_tail.split(b"}", 1)
        self._heads: dict[str, bytes] = {}

    def of(
        self, series: Sequence[str], values_SF: NDArray[np.float32], *, start_ms: int
    ) -> Iterator[tuple[str, bytes]]:
        """Series id and record of every series of a closed bucket, silent ones included."""
        tail = b"%d" % start_ms + self._silent_tail
        stocked = b"%d" % start_ms + self._silent_sums + b","
        heads = self._heads
        nonzero_S: NDArray[np.bool_] = (values_SF != 0).any(axis=1)
        sold_R: list[bool] = (values_SF[nonzero_S, :N_SUMS] != 0).any(axis=1).tolist()
        rows = zip(
            np.round(values_SF[nonzero_S].astype(np.float64), 4).tolist(), sold_R, strict=True
        )
        for name, nonzero in zip(series, nonzero_S.tolist(), strict=False):
            head = heads.get(name)
            if head is None:
                head = heads[name] = b'{"series_id":%b,"bucket_start_ms":' % _encode(name)
            if not nonzero:
                yield name, head + tail
                continue
            row, sold = next(rows)
            if sold:
                values = named_values(row)
                record = FeatureRecord(name, start_ms, self._bucket_ms, values, _SPEC_HASH)
                yield name, _encode(record)
            else:
                yield name, head + stocked + _encode(stock_of(row))[1:] + self._end


def forecast_records(
    series: Sequence[str],
    forecast: QuantileForecast,
    *,
    watermark_ms: int,
    emitted_ms: int,
    calibrated: bool,
    reason: str,
) -> Iterator[tuple[str, bytes]]:
    """Series id and record of every series of a forecast; quantiles rounded to 1/1,000.

    Means are not, as they add up. Each further target of the model is a field of its own name.

    orjson encodes the arrays directly, at a fifth of the cost of Python floats.
    """
    common = {
        "origin_ms": forecast.origin_ms,
        "bucket_ms": forecast.bucket_ms,
        "quantiles": forecast.quantiles,
        "nowcast": None,
        "model_id": forecast.model_id,
        "calibrated": calibrated,
        "watermark_ms": watermark_ms,
        "emitted_ms": emitted_ms,
        "reason": reason,
    }
    units_SHQ = np.ascontiguousarray(np.round(forecast.units_SHQ, 3))
    cumulative_SHQ = np.ascontiguousarray(np.round(forecast.cumulative_SHQ, 3))
    extras = {
        target: np.ascontiguousarray(np.round(block_SHQ, 3))
        for target, block_SHQ in forecast.extras.items()
    }
    mean_SH = np.ascontiguousarray(forecast.mean_SH)
    mean_sums_SH = mean_SH.cumsum(axis=1, dtype=np.float64).astype(np.float32)
    rows = zip(series, units_SHQ, cumulative_SHQ, mean_SH, mean_sums_SH, strict=False)
    for slot, (name, units_HQ, cumulative_HQ, mean_H, mean_sum_H) in enumerate(rows):
        sku, location = split_series(name)
        record = {
            "series_id": name,
            "sku": sku,
            "location": location,
            "units": units_HQ,
            "cumulative_units": cumulative_HQ,
            "mean_units": mean_H,
            "mean_cumulative": mean_sum_H,
            **{target: block_SHQ[slot] for target, block_SHQ in extras.items()},
            **common,
        }
        yield name, orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY)


def dead_letter(
    refused: Refused,
    value: bytes | None,
    *,
    topic: str,
    partition: int,
    offset: int,
    received_ms: int,
    pseudonyms: Pseudonyms,
) -> bytes:
    """Encode the dead letter of a refused record, redacted (`stream.sinks.redaction`)."""
    detail = redacted_detail(refused.detail, pseudonyms)
    if len(detail) > MAX_DETAIL_CHARS:
        detail = f"{detail[:MAX_DETAIL_CHARS]}…"
    raw = None
    if value is not None:
        raw = redacted(value.decode("utf-8", "backslashreplace"), pseudonyms)
        if len(raw) > MAX_RAW_CHARS:
            detail += f"; raw cut to {MAX_RAW_CHARS} of {len(raw)} characters"
            raw = raw[:MAX_RAW_CHARS]
    return _encode(
        {
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "reason": refused.reason,
            "detail": detail,
            "received_ms": received_ms,
            "raw": raw,
        }
    )
