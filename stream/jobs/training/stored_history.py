"""Training history from the store, extended into the past by the archive.

One dense block of the roll-ups and the largest other series of all partitions. Reads portions of
buckets, so that memory depends on the chosen series, not on all stored ones.

Axes: T = buckets, S = series, F = features.
"""

import json
from dataclasses import replace
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray
from redis import Redis

from model.contract import FeatureSpec
from model.errors import HistoryTooShort
from model.training.dataset import History
from stream.errors import IncompatibleState, UsageError
from stream.features.definitions import N_FEATURES, UNITS
from stream.jobs.archive.history import archive_of, read_archive
from stream.serving.static_features import static_features, stored_categories, stored_listings
from stream.serving.stored_plans import StoredPlans
from stream.state import keys
from stream.state.history import read_history
from stream.state.keys import ROLLUPS, Tag
from stream.state.redis import translate_store_errors

log = structlog.get_logger(__name__)

#: Rows of a history that an archive extends, each a bucket of a series: 0.9 GB.
_MOST_ROWS: Final = 20_000_000


def stored_history(
    client: Redis, *, largest: int, max_span_ms: int, archive: str | None = None
) -> History:
    """Closed buckets of the `largest` series by units, then of the roll-ups, with stored plans.

    Ends at the last bucket that all partitions have closed and spans at most `max_span_ms`, less if
    it would not fit in memory. `archive` defaults to the one that `surgecast archive` fills; empty
    for none. One that cannot be used is left out with a warning. Raises HistoryTooShort if no
    bucket has closed, IncompatibleState if the store has other features, ServiceUnavailable.
    """
    with translate_store_errors():
        history = _stored(client, largest=largest, max_span_ms=max_span_ms)
        archive = archive_of(client) if archive is None else archive
    fitting_ms = _MOST_ROWS // len(history.series) * history.bucket_ms
    max_span_ms = min(max_span_ms, fitting_ms)
    if archive and history.end_ms - history.start_ms < max_span_ms:
        history = _with_archive(history, archive, max_span_ms=max_span_ms)
    with translate_store_errors():
        return _with_plans(client, history)


def _stored(client: Redis, *, largest: int, max_span_ms: int) -> History:
    info = _info(client)
    if not info:
        raise HistoryTooShort("the store is empty: no worker has started yet")
    if info["spec_hash"] != FeatureSpec().hash:
        raise IncompatibleState(
            f"the store has features {info['spec_hash']}, this build has {FeatureSpec().hash}"
        )
    width = int(info["bucket_ms"])
    tags: list[Tag] = [*range(int(info["partitions"])), ROLLUPS]
    spans = {tag: span for tag in tags if (span := _bounds(client, tag)) is not None}
    if ROLLUPS not in spans:
        raise HistoryTooShort("no bucket has closed yet")
    end_ms = min(span[1] for span in spans.values())
    start_ms = max(min(span[0] for span in spans.values()), end_ms - max_span_ms // width * width)
    if start_ms >= end_ms:
        raise HistoryTooShort("no bucket has closed yet in all partitions")
    chosen = _chosen(client, [*spans], start_ms, end_ms, width, largest=largest)
    values_TSF = _read_values(client, chosen, start_ms, end_ms, width)
    names = [name for part in chosen.values() for name in part]
    static = [
        static_features([*part], stored_categories(client, tag), stored_listings(client, tag))
        for tag, part in chosen.items()
    ]
    return History(values_TSF, start_ms, width, names, np.concatenate(static))


def _with_plans(client: Redis, history: History) -> History:
    """Add the plans of the history's buckets and of one further horizon."""
    info = _info(client)
    stored = StoredPlans(client, int(info["partitions"]), bucket_ms=history.bucket_ms)
    buckets = history.buckets + int(info["horizon"])
    return replace(history, plans=stored.of_any(history.series, history.start_ms, buckets))


def _info(client: Redis) -> dict[str, Any]:
    found: Any = client.get(keys.info())
    return dict(json.loads(found or b"{}"))


def _chosen(
    client: Redis, tags: list[Tag], start_ms: int, end_ms: int, width: int, *, largest: int
) -> dict[Tag, dict[str, int]]:
    """Series → slot of each partition: all roll-ups and the `largest` other series by units."""
    ranked: list[tuple[float, Tag, str, int]] = []
    chosen: dict[Tag, dict[str, int]] = {tag: {} for tag in tags if tag != ROLLUPS}
    chosen[ROLLUPS] = {}
    for tag in tags:
        units_S = np.zeros(0)
        series: list[str] = []
        for part in read_history(client, tag, bucket_ms=width, from_ms=start_ms, to_ms=end_ms):
            series = part.series
            units_S = np.pad(units_S, (0, len(series) - len(units_S)))
            units_S += part.values_TSF[..., UNITS].sum(axis=0, dtype=np.float64)
        if tag == ROLLUPS:
            chosen[tag] = {name: slot for slot, name in enumerate(series)}
            continue
        for slot in np.argsort(-units_S, kind="stable")[:largest].tolist():
            ranked.append((-float(units_S[slot]), tag, series[slot], slot))
    for _, tag, name, slot in sorted(ranked, key=lambda row: (row[0], row[2]))[:largest]:
        chosen[tag][name] = slot
    return chosen


def _read_values(
    client: Redis, chosen: dict[Tag, dict[str, int]], start_ms: int, end_ms: int, width: int
) -> NDArray[np.float32]:
    n_series = sum(map(len, chosen.values()))
    values_TSF = np.zeros(((end_ms - start_ms) // width, n_series, N_FEATURES), np.float32)
    first = 0
    for tag, slots in chosen.items():
        columns = np.array(list(slots.values()), np.int64)
        span: dict[str, Any] = {"bucket_ms": width, "from_ms": start_ms, "to_ms": end_ms}
        for part in read_history(client, tag, **span) if slots else ():
            known = columns < len(part.series)
            t = (part.start_ms - start_ms) // width
            into_TSF = values_TSF[t : t + len(part.values_TSF), first : first + len(columns)]
            into_TSF[:, known] = part.values_TSF[:, columns[known]]
        first += len(columns)
    return values_TSF


def _bounds(client: Redis, tag: Tag) -> tuple[int, int] | None:
    """Start of the first stored bucket and end of the last closed one; None if there is none."""
    names = ["first_bucket_ms", "closed_through_ms"]
    found: Any = client.hmget(keys.of(tag, "meta"), names)
    first, through = found
    return None if first is None or through is None else (int(first), int(through))


def _with_archive(history: History, path: str, *, max_span_ms: int) -> History:
    """Prepend the archive's buckets from before the store's first bucket."""
    width = history.bucket_ms
    try:
        before = read_archive(
            path,
            end_ms=history.start_ms,
            only=history.series,
            max_span_ms=max_span_ms - (history.end_ms - history.start_ms),
        )
    except (UsageError, IncompatibleState, OSError) as error:
        log.warning("archive_left_out", reason=str(error))
        return history
    if before.bucket_ms != width:
        log.warning(
            "archive_left_out",
            reason=f"its buckets have {before.bucket_ms} ms, those of the store {width} ms",
        )
        return history
    joined_TSF = np.concatenate((before.values_TSF, history.values_TSF))
    return replace(history, values_TSF=joined_TSF, start_ms=before.start_ms)
