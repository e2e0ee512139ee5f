"""Buckets, watermark and deduplication against naive models, over arbitrary streams."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.durations import DAY_MS, HOUR_MS, MINUTE_MS
from stream.partition.dedup import DedupWindow
from stream.partition.watermark import Watermark, bucket_start_ms

times = st.lists(st.integers(0, 10_000), max_size=60)


def batches_of(items: list[int], cuts: list[int]) -> list[list[int]]:
    """The items, cut into consecutive batches."""
    edges = [0, *sorted(cut % (len(items) + 1) for cut in cuts), len(items)]
    return [items[a:b] for a, b in itertools.pairwise(edges)]


@given(st.integers(0, 2**50), st.sampled_from([MINUTE_MS, HOUR_MS, DAY_MS]))
def test_a_bucket_contains_its_events_and_no_others(event_time_ms: int, width_ms: int) -> None:
    """Half-open, aligned to the epoch."""
    start = bucket_start_ms(event_time_ms, width_ms=width_ms)

    assert start <= event_time_ms < start + width_ms
    assert start % width_ms == 0


@given(times, st.lists(st.integers(0, 60), max_size=4), st.integers(0, 500))
def test_lateness_depends_on_the_order_of_the_log_not_on_the_batches(
    events: list[int], cuts: list[int], lateness: int
) -> None:
    """Any split of the log into batches gives the same verdicts as single events."""
    newest, expected = -1, []
    for event in events:
        newest = max(newest, event)
        expected.append(event < newest - lateness)
    mark = Watermark(lateness)
    late: list[bool] = []
    marks = []
    for part in batches_of(events, cuts):
        at = np.array(part, np.int64)
        late += (at < mark.observe(at) - lateness).tolist()
        marks.append(-1 if mark.now_ms is None else mark.now_ms + lateness)

    assert expected == late
    assert marks == sorted(marks)


id_events = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 2_000)), max_size=60)


def accepted_by(window: DedupWindow, parts: list[list[tuple[int, int]]]) -> list[bool]:
    """True for each event the window accepts as new, batch by batch, with a flush after each."""
    mark, accepted = Watermark(0), []
    for part in parts:
        hashes = np.array([h for h, _ in part], np.uint64)
        at = np.array([t for _, t in part], np.int64)
        newest = mark.observe(at)
        late = np.zeros(len(part), np.bool_)
        fresh = window.fresh(hashes, at, newest_N=newest, late_N=late)
        window.add(hashes[fresh], at[fresh])
        window.forget_before(mark.newest_ms or 0)
        accepted += fresh.tolist()
    return accepted


@given(id_events, st.lists(st.integers(0, 60), max_size=4))
def test_an_id_counts_once_within_the_window_at_any_batch_size(
    events: list[tuple[int, int]], cuts: list[int]
) -> None:
    """Batches do not matter; two accepted events of one id are more than a window apart."""
    parts = [[events[i] for i in part] for part in batches_of(list(range(len(events))), cuts)]
    accepted = accepted_by(DedupWindow(300), parts)

    assert accepted == accepted_by(DedupWindow(300), [[event] for event in events])
    newest = list(itertools.accumulate((time for _, time in events), max))
    counted = [i for i, keep in enumerate(accepted) if keep]
    for i, j in itertools.combinations(counted, 2):
        if events[i][0] == events[j][0]:
            assert newest[j] > events[i][1] + 300
    assert {event_id for event_id, _ in events} == {events[i][0] for i in counted}


@given(id_events)
def test_unsaved_hashes_are_exactly_the_added_ones(events: list[tuple[int, int]]) -> None:
    """A store that appends `unsaved` after every batch has the contents of all segments."""
    window = DedupWindow(200)
    stored: dict[int, set[int]] = {}
    for event_hash, time in events:
        at, hashes = np.array([time], np.int64), np.array([event_hash], np.uint64)
        if window.fresh(hashes, at, newest_N=at, late_N=np.zeros(1, np.bool_))[0]:
            window.add(hashes, at)
        for start, parts in window.unsaved.items():
            stored.setdefault(start, set()).update(np.concatenate(parts).tolist())
        window.unsaved = {}

    assert stored == {s: set(seen.members.tolist()) for s, seen in window.segments.items()}
