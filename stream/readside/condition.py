"""Whether answers speak of now: what `/readyz`, the page and `surgecast doctor` say.

Pure functions on what the workers report. A store that does not answer is an error of the reader.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from stream.readside.series_answers import STALE_AFTER_MS
from stream.readside.worker_stats import DeploymentStats

#: Answers older than this are out of date; a worker under load is some seconds behind.
BEHIND_AFTER_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Fault:
    """Why answers are not those of now; `kind` is a stable identifier."""

    kind: str
    detail: str


def fault_of(
    stats: DeploymentStats, *, partitions: int, as_of_ms: Mapping[int, int], now_ms: int
) -> Fault | None:
    """Return the first fault of a deployment; None if its answers are up to date.

    `as_of_ms` is up to when each partition is complete, as of now or as last reported.

    >>> fault_of(DeploymentStats(), partitions=1, as_of_ms={}, now_ms=0).kind
    'no-worker'
    >>> stats = DeploymentStats(("w",), at_ms=90_000, reported_ms={0: 90_000}, broker_ms=89_900)
    >>> fault_of(stats, partitions=1, as_of_ms={0: 89_900}, now_ms=90_100) is None
    True
    >>> fault_of(stats, partitions=1, as_of_ms={0: 60_000}, now_ms=90_100).detail
    'the input of partition 0 is 30 s behind'
    """
    return _of_workers(stats, partitions, now_ms) or _of_inputs(partitions, as_of_ms, now_ms)


def _of_workers(stats: DeploymentStats, partitions: int, now_ms: int) -> Fault | None:
    if stats.at_ms is None or now_ms - stats.at_ms > STALE_AFTER_MS:
        return Fault("no-worker", "no worker is reporting; start one with: surgecast worker")
    silent = [p for p in range(partitions) if now_ms - stats.reported_ms.get(p, 0) > STALE_AFTER_MS]
    if silent:
        return Fault("worker-silent", f"no worker reports {_named(silent)}")
    if stats.broker_ms is not None and now_ms - stats.broker_ms > BEHIND_AFTER_MS:
        seconds = (now_ms - stats.broker_ms) // 1_000
        return Fault("broker-silent", f"the broker has not answered for {seconds} s")
    if stats.refusing:
        topics = " and of ".join(stats.refusing)
        return Fault(
            "everything-refused",
            f"all records of {topics} are refused; dead-letter has the reasons",
        )
    return None


def _of_inputs(partitions: int, as_of_ms: Mapping[int, int], now_ms: int) -> Fault | None:
    unknown = [p for p in range(partitions) if p not in as_of_ms]
    if unknown:
        return Fault("input-behind", f"the input of {_named(unknown)} was never read to its end")
    behind_ms = {p: now_ms - as_of_ms[p] for p in range(partitions)}
    behind = [p for p, age_ms in behind_ms.items() if age_ms > BEHIND_AFTER_MS]
    if behind:
        seconds = max(behind_ms.values()) // 1_000
        return Fault("input-behind", f"the input of {_named(behind)} is {seconds} s behind")
    return None


def _named(partitions: Iterable[int]) -> str:
    """Name partitions.

    >>> _named([0]), _named([1, 2])
    ('partition 0', 'partitions 1, 2')
    """
    numbers = list(map(str, partitions))
    return f"partition{'s' * (len(numbers) > 1)} {', '.join(numbers)}"
