"""All Redis keys of the product, and the layout of their values.

All keys of a partition share the hash tag ``{p}``, so a transaction stays in one cluster slot; the
roll-ups have the tag ``{r}``, like a further partition. The version in the prefix changes with any
layout change, so a build never reads bytes in a layout that it does not know.

    sc2:info                  JSON: bucket_ms, partitions, feature_names, horizon, labels …
    sc2:pseudonym-key         random bytes, only if privacy.key is not set
    sc2:id-seed               8 random bytes; empty: event ids are hashed without a seed
    sc2:archive               absolute path or URL of the archive of this store
    sc2:stats:{worker}        JSON, expires: counters and gauges of one worker
    sc2:as-of                 hash partition → ms: up to when it was complete, see Freshness
    sc2:totals                hash counter → its sum over all workers there ever were
    sc2:{p}:meta              hash: fence, applied, cluster, topic_id:<topic>, offset:<topic>,
                              newest_ms:<topic>, segments:<topic>, count:<topic>:<verdict>,
                              first_bucket_ms, closed_through_ms, emitted_through_ms,
                              heartbeat_ms, open, readings, plans (digest of the table), listed
    sc2:{p}:series            list of series ids; the position is the slot
    sc2:{p}:categories        hash SKU → category
    sc2:{p}:listings          hash SKU → JSON [brand, list price, launched_ms], null = unknown
    sc2:{p}:plans             JSON: the plans read from this partition of their topic
    sc2:{p}:open:<start_ms>   int64 [slots × F], sums of an open bucket
    sc2:{p}:closed:<start_ms> [slots × 40 bytes], see stream/features/packed_block.py; absent = all
                              zeros; shorter = zeros after (pages)
    sc2:{p}:levels            int64 [slots × 4], the newest stock reading of closed buckets: event
                              time; on hand, on order, lead time in ms plus one, 0 = unknown
    sc2:{p}:readings:<start_ms>  int64 [readings × 5] of an open bucket in log order: slot, then
                              as in levels
    sc2:{p}:partial:<start_ms>   deflated JSON roll-up → F integer sums of a closed bucket; absent =
                              all zeros
    sc2:{p}:visitors:<start_ms>  8-byte hashes of (series, visitor) seen in an open bucket
    sc2:{p}:ids:<topic>:<start_ms>  8-byte hashes of event ids, one segment of the dedup window
    sc2:{p}:kept              hash model id → JSON: through_ms, since_ms, file of its states, see
                              stream/serving/state_snapshots.py
    sc2:{p}:statistics        hash file → JSON: identity, through_ms, since_ms of its statistics
    sc2:{p}:forecast          hash: origin_ms, model_id, watermark_ms, emitted_ms, series, row
                              (bytes of each of the rows) …
    sc2:{p}:forecast:rows     [slots × row] of the newest forecast, see forecasts.py (pages)
    sc2:{p}:forecast:<target> [slots × row] of each target listed in the hash's `targets`
    sc2:{p}:means:<n>         msgpack, see forecast_sums.py: sums of the forecasts of an origin, by
                              roll-up; a ring of origins
    sc2:{p}:asked             set of slots whose forecast is to be explained, expires
    sc2:{p}:explained:<slot>  JSON, expires: explanation of a forecast, see explanations.py
    sc2:{p}:ahead:<start_ms>  [slots × 4 bytes], quantiles 0.1, 0.5, 0.9 of the one-step-ahead
                              forecast, see forecasts.py (pages)
    sc2:{p}:calibration       msgpack: levels of each model family, through_ms, pending origins
    sc2:{p}:sent:<origin_ms>  zstd of msgpack: sample of a forecast that is pending its actuals
    sc2:{p}:scores:<day_ms>   hash model id → float64 [V × H × K], see scores.py
    sc2:drift                 JSON: state of the drift watch, open incidents

All numbers are little-endian, rows are contiguous. *Pages*: `pages.py` cuts the block; page 0
has the key itself, page k the key with `:k` appended.
"""

from typing import Final

#: Retention of a day's scores.
KEEP_DAYS: Final = 35

VERSION: Final = "sc2"
ROLLUPS: Final = "r"

#: A partition number, or `ROLLUPS`.
Tag = int | str


def info() -> str:
    """Key of the deployment's description, written by the worker.

    >>> info()
    'sc2:info'
    """
    return f"{VERSION}:info"


def pseudonym_key() -> str:
    """Key of the random pseudonym key, used if the settings have none."""
    return f"{VERSION}:pseudonym-key"


def id_seed() -> str:
    """Key of the seed of the event ids' hashes."""
    return f"{VERSION}:id-seed"


def archive() -> str:
    """Key of the place of the archive that `surgecast archive` fills."""
    return f"{VERSION}:archive"


def stats(worker_id: str) -> str:
    """Key of one worker's counters; expires when the worker is gone."""
    return f"{VERSION}:stats:{worker_id}"


def stats_pattern() -> str:
    """Pattern of the counters of all workers."""
    return f"{VERSION}:stats:*"


def as_of() -> str:
    """Key of the times up to which each partition was complete."""
    return f"{VERSION}:as-of"


def totals() -> str:
    """Key of the counters summed over all workers."""
    return f"{VERSION}:totals"


def drift() -> str:
    """Key of the state of the drift watch."""
    return f"{VERSION}:drift"


def of(tag: Tag, *parts: str | int) -> str:
    """Key of a partition.

    >>> of(3, "closed", 3_600_000)
    'sc2:{3}:closed:3600000'
    """
    return ":".join((VERSION, f"{{{tag}}}", *map(str, parts)))
