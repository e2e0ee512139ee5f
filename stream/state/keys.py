"""Every Redis key of the product, and the layout of what lies under it.

All keys of a partition share the hash tag ``{p}``, so a transaction stays in one cluster slot; the
roll-ups live under the tag ``{r}`` like one more partition. The version in the prefix changes with
any layout change: two builds that disagree never read each other's bytes.

    sc2:info                  JSON: bucket_ms, partitions, feature_names, horizon, labels …
    sc2:pseudonym-key         random bytes, only where privacy.key is not set
    sc2:stats:{worker}        JSON, expires: counters and gauges of one worker
    sc2:{p}:meta              hash: fence, applied, cluster, topic_id:<topic>, offset:<topic>,
                              newest_ms:<topic>, segments:<topic>, count:<topic>:<verdict>,
                              first_bucket_ms, closed_through_ms, emitted_through_ms,
                              heartbeat_ms, open, readings, plans (digest of the table), listed
    sc2:{p}:series            list of series ids; the position is the slot
    sc2:{p}:categories        hash SKU → category
    sc2:{p}:listings          hash SKU → JSON [brand, list price, launched_ms], null = not told
    sc2:{p}:plans             JSON: the plans read from this partition of their topic
    sc2:{p}:open:<start_ms>   int64 [slots × F], sums of an open bucket
    sc2:{p}:closed:<start_ms> [slots × 40 bytes], see stream/features/packed_block.py; absent = all
                              zeros; shorter = zeros after (pages)
    sc2:{p}:levels            int64 [slots × 4], the newest reading of the stock that is closed: its
                              event time; on hand, on order, lead time in ms plus one, 0 = not told
    sc2:{p}:readings:<start_ms>  int64 [readings × 5], of an open bucket in log order: slot, then
                              as in levels
    sc2:{p}:partial:<start_ms>   deflated JSON roll-up → F integer sums of a closed bucket; absent =
                              nothing
    sc2:{p}:visitors:<start_ms>  8-byte hashes of (series, visitor) seen in an open bucket
    sc2:{p}:ids:<topic>:<start_ms>  8-byte hashes of event ids, one segment of the dedup window
    sc2:{p}:kept              hash model id → JSON: through_ms, file of its states (snapshots.py)
    sc2:{p}:forecast          hash: origin_ms, model_id, watermark_ms, emitted_ms, series …
    sc2:{p}:forecast:rows     [slots × row] of the newest forecast, see forecasts.py (pages)
    sc2:{p}:forecast:<target> [slots × row] of each of the hash's `targets`, where it has any
    sc2:{p}:ahead:<start_ms>  [slots × 4 bytes], quantiles 0.1, 0.5, 0.9, forecast one step ahead,
                              see forecasts.py (pages)
    sc2:{p}:calibration       msgpack: levels of each family of models, through_ms, waiting origins
    sc2:{p}:sent:<origin_ms>  zstd of msgpack: sample of a forecast that waits for what comes
    sc2:{p}:scores:<day_ms>   hash model id → float64 [V × H × K], sums of
    `model/evaluation/score_sums.py` sc2:drift                 JSON: what the drift watch carries
    from day to day, open incidents

All numbers are little-endian, rows are contiguous. *Pages*: the block is cut by `pages.py`, page 0
lies under the key itself, page k under the key with `:k` appended.
"""

from typing import Final

#: Scores of a day stay in the store this long.
KEEP_DAYS: Final = 35


VERSION: Final = "sc2"
ROLLUPS: Final = "r"

#: A partition number, or `ROLLUPS`.
Tag = int | str


def info() -> str:
    """Key of the deployment's shape, written by the worker.

    >>> info()
    'sc2:info'
    """
    return f"{VERSION}:info"


def pseudonym_key() -> str:
    """Key of the random pseudonym key, where the settings give none."""
    return f"{VERSION}:pseudonym-key"


def stats(worker_id: str) -> str:
    """Key of one worker's counters; expires when the worker is gone."""
    return f"{VERSION}:stats:{worker_id}"


def stats_pattern() -> str:
    """Pattern that finds every worker's counters."""
    return f"{VERSION}:stats:*"


def drift() -> str:
    """Key of what the drift watch carries."""
    return f"{VERSION}:drift"


def of(tag: Tag, *parts: str | int) -> str:
    """Key of a partition.

    >>> of(3, "closed", 3_600_000)
    'sc2:{3}:closed:3600000'
    """
    return ":".join((VERSION, f"{{{tag}}}", *map(str, parts)))
