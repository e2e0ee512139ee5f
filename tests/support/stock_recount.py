"""A slow, obvious recount of stock levels: one series and one reading at a time."""

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

#: Series, event time, units on hand.
Reading = tuple[str, int, int]


def accepted(
    log: Sequence[Reading], *, width_ms: int, lateness_ms: int
) -> tuple[list[tuple[str, int, int, int]], int]:
    """Readings that count, in log order, with the time each applies from; number of late ones."""
    newest, of_series = -1, dict.fromkeys((name for name, _, _ in log), -1)
    kept, late = [], 0
    for name, time, on_hand in log:
        newest = max(newest, time)
        open_from = (newest - lateness_ms) // width_ms * width_ms
        if time < open_from and time < of_series[name]:
            late += 1
            continue
        of_series[name] = max(of_series[name], time)
        kept.append((name, time, max(time, open_from), on_hand))
    return kept, late


def recount(
    log: Sequence[Reading], *, width_ms: int, lateness_ms: int, start_ms: int, end_ms: int
) -> dict[tuple[str, int], tuple[int, Fraction]]:
    """Units on hand at the end and share of time without stock, by series and bucket if known."""
    kept, _ = accepted(log, width_ms=width_ms, lateness_ms=lateness_ms)
    by_series = defaultdict(list)
    for place, (name, time, from_ms, on_hand) in enumerate(kept):
        by_series[name].append((from_ms // width_ms, time, place, from_ms, on_hand))
    found = {}
    for name, readings in by_series.items():
        steps = [(from_ms, on_hand) for *_, from_ms, on_hand in sorted(readings)]
        for start in range(start_ms, end_ms, width_ms):
            end = start + width_ms
            known = [step for step in steps if step[0] < end]
            if not known:
                continue
            borders = [*(from_ms for from_ms, _ in known[1:]), end]
            without = sum(
                max(0, min(until, end) - max(from_ms, start))
                for (from_ms, on_hand), until in zip(known, borders, strict=True)
                if on_hand == 0
            )
            found[name, start] = (known[-1][1], Fraction(without, width_ms))
    return found


def stored_share(share: Fraction) -> int:
    """A share as it is stored: in 1/255, rounded half up."""
    return (share * 510 + 1) // 2
