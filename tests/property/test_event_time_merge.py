"""Released items are in event-time order, each partition's in log order, and none is lost."""

from hypothesis import given
from hypothesis import strategies as st

from stream.router.event_time_merge import EventTimeMerge

Logs = list[list[int]]


def running_max(times: list[int]) -> list[int]:
    """Newest time up to each item."""
    return [max(times[: at + 1]) for at in range(len(times))]


@given(
    st.lists(st.lists(st.integers(0, 50), max_size=20), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), max_size=60),
)
def test_no_item_is_released_before_an_older_one_of_another_partition(
    logs: Logs, fetches: list[tuple[int, int]]
) -> None:
    """At any rate of the fetches: sorted by the running maximum of each log, and complete."""
    merge: EventTimeMerge[int, int] = EventTimeMerge()
    read = [0] * len(logs)
    released: list[tuple[int, int]] = []

    def fetch(partition: int, count: int) -> None:
        low = read[partition]
        read[partition] = high = min(len(logs[partition]), low + count)
        merge.add(partition, [(logs[partition][at], at) for at in range(low, high)])
        ends = {p for p in range(len(logs)) if read[p] == len(logs[p])}
        released.extend(merge.release(set(range(len(logs))), at_end=ends))

    for partition, count in fetches:
        fetch(partition % len(logs), count)
    for partition, log in enumerate(logs):
        fetch(partition, len(log))

    clocks = [running_max(log) for log in logs]
    times = [clocks[partition][at] for partition, at in released]
    assert times == sorted(times)
    for partition, log in enumerate(logs):
        assert [at for p, at in released if p == partition] == list(range(len(log)))
