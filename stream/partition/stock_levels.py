"""Stock levels of one partition's series, and the stock readings of its open buckets. No I/O.

Readings alone set a level; orders do not change it. A reading waits, in log order, for the bucket
in which it takes effect to close. The close sorts the readings by event time, adds up the time
without stock in whole ms, and makes the newest reading of a series its level.

A row of a reading and of a level ends with units on hand, units on order and lead time in ms, each
plus one, and 0 for unknown: a range that the store pads with zero bytes has no level.

Axes: N = readings of a batch, R = readings of a bucket, S = series slots.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.features.packed_block import stock_columns
from stream.state.port import StateWrite

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Columns of a reading: slot, event time, and the three amounts plus one.
_SLOT, _TIME, _ON_HAND = range(3)
_READING_WIDTH: Final = 5
#: Columns of a level: event time of the newest reading, and the three amounts plus one.
LEVEL_WIDTH: Final = 4
_LEVEL_BYTES: Final = 8 * LEVEL_WIDTH
_GROW_BY: Final = 64


class StockLevels:
    """Levels and open readings of a partition with buckets of `width_ms`.

    >>> stock = StockLevels(60)
    >>> readings = np.array([[0, 70, 5, -1, -1], [0, 100, 0, -1, -1]])
    >>> stock.take(readings, open_from_N=np.array([60, 60])).tolist()
    [False, False]
    >>> stock.close(60, 1).round(2).tolist(), stock.close(120, 1).tolist()
    ([[1.0, 0.33]], [[1.0, 1.0]])
    """

    def __init__(self, width_ms: int) -> None:
        self._width_ms = width_ms
        self._levels = np.zeros((0, LEVEL_WIDTH), np.int64)
        self._newest = np.full(0, -1, np.int64)
        self._dirty = np.zeros(0, np.bool_)
        self._open: dict[int, list[Ints]] = {}
        self._unsaved: dict[int, list[Ints]] = {}
        self._closed: list[int] = []

    @property
    def known(self) -> bool:
        """True once there is any reading."""
        return bool(len(self._levels))

    @property
    def open_starts(self) -> list[int]:
        """Starts of the buckets in which readings wait to take effect."""
        return sorted(self._open)

    def take(self, readings_NC: Ints, *, open_from_N: Ints) -> Mask:
        """Take readings in log order; returns the mask of those that are late and have no effect.

        A row is slot, event time, units on hand, units on order and lead time (-1: unknown).
        `open_from_N` is the start of the first bucket still open when each arrived. An older
        reading takes effect there, unless a newer one of its series is known: then it is late.
        """
        if not len(readings_NC):
            return np.zeros(0, np.bool_)
        slot_N, time_N = readings_NC[:, _SLOT], readings_NC[:, _TIME]
        self._grow(int(slot_N.max()) + 1)
        late_N = np.zeros(len(readings_NC), np.bool_)
        behind_N = time_N < open_from_N
        if behind_N.any():
            newest = self._newest
            columns = (slot_N.tolist(), time_N.tolist(), behind_N.tolist())
            for place, (slot, time, behind) in enumerate(zip(*columns, strict=True)):
                if behind and time < newest[slot]:
                    late_N[place] = True
                else:
                    newest[slot] = max(int(newest[slot]), time)
        else:
            np.maximum.at(self._newest, slot_N, time_N)
        kept_RC = readings_NC[~late_N]
        kept_RC[:, _ON_HAND:] += 1
        from_R = np.maximum(kept_RC[:, _TIME], open_from_N[~late_N])
        start_R = from_R - from_R % self._width_ms
        for start in np.unique(start_R).tolist():
            rows_RC = kept_RC[start_R == start]
            self._open.setdefault(start, []).append(rows_RC)
            self._unsaved.setdefault(start, []).append(rows_RC)
        return late_N

    def close(self, start_ms: int, n_slots: int) -> Floats | None:
        """Close a bucket; returns its stock columns [S, 2], None before the first reading.

        Buckets close oldest first. A reading that waited for an earlier bucket takes effect at the
        start of this one.
        """
        if not self.known:
            return None
        self._grow(n_slots)
        levels = self._levels
        end_ms = start_ms + self._width_ms
        without_S = np.where(levels[:, 1] == 1, self._width_ms, 0)
        due = sorted(start for start in self._open if start <= start_ms)
        if due:
            rows_RC = np.concatenate([rows for start in due for rows in self._open.pop(start)])
            rows_RC = rows_RC[np.lexsort((rows_RC[:, _TIME], rows_RC[:, _SLOT]))]
            slot_R = rows_RC[:, _SLOT]
            first_R = np.concatenate([[True], slot_R[1:] != slot_R[:-1]])
            last_R = np.concatenate([first_R[1:], [True]])
            from_R = np.clip(rows_RC[:, _TIME], start_ms, end_ms)
            until_R = np.where(last_R, end_ms, np.roll(from_R, -1))
            touched = slot_R[first_R]
            empty_before = levels[touched, 1] == 1
            without_S[touched] = np.where(empty_before, from_R[first_R] - start_ms, 0)
            empty_R = rows_RC[:, _ON_HAND] == 1
            np.add.at(without_S, slot_R, np.where(empty_R, until_R - from_R, 0))
            levels[touched] = rows_RC[last_R, _TIME:]
            self._dirty[touched] = True
            for start in due:
                self._unsaved.pop(start, None)
            self._closed += due
        stock_S = levels[:n_slots, 1]
        return stock_columns(stock_S, without_S[:n_slots], width_ms=self._width_ms)

    def add_to(self, write: StateWrite) -> None:
        """Add the changes since the last write."""
        for start, parts in self._unsaved.items():
            write.appends.append((("readings", start), _bytes(np.concatenate(parts))))
        self._unsaved = {}
        write.deletes += [("readings", start) for start in self._closed]
        self._closed = []
        changed = np.flatnonzero(self._dirty)
        if len(changed):
            self._dirty[:] = False
            # a gap of a few levels is cheaper to write again than to leave out
            for run in np.split(changed, np.flatnonzero(np.diff(changed) > _GROW_BY) + 1):
                first, last = int(run[0]), int(run[-1])
                block = _bytes(self._levels[first : last + 1])
                write.patches.append((("levels",), first * _LEVEL_BYTES, block))

    def load(self, levels: bytes, readings: dict[int, bytes]) -> None:
        """Restore the levels, and the readings by bucket, from the store."""
        level_SL = np.frombuffer(levels, "<i8").reshape(-1, LEVEL_WIDTH)
        self._grow(len(level_SL))
        self._levels[: len(level_SL)] = level_SL
        known_S = level_SL[:, 1] > 0
        self._newest[: len(level_SL)] = np.where(known_S, level_SL[:, 0], -1)
        for start, packed in readings.items():
            rows_RC = np.frombuffer(packed, "<i8").reshape(-1, _READING_WIDTH).astype(np.int64)
            if not len(rows_RC):
                continue
            self._open[start] = [rows_RC]
            self._grow(int(rows_RC[:, _SLOT].max()) + 1)
            np.maximum.at(self._newest, rows_RC[:, _SLOT], rows_RC[:, _TIME])

    def _grow(self, n_slots: int) -> None:
        have = len(self._levels)
        if n_slots > have:
            extra = max(-(-n_slots // _GROW_BY) * _GROW_BY, 2 * have) - have
            self._levels = np.pad(self._levels, ((0, extra), (0, 0)))
            self._newest = np.pad(self._newest, (0, extra), constant_values=-1)
            self._dirty = np.pad(self._dirty, (0, extra))


def levels_block(stock_S: Floats) -> bytes:
    """Stored levels without a time, from units on hand plus one (0: unknown).

    Any reading is newer than such a level.

    >>> np.frombuffer(levels_block(np.array([0, 6], np.float32)), "<i8").tolist()
    [0, 0, 0, 0, 0, 6, 0, 0]
    """
    levels_SL = np.zeros((len(stock_S), LEVEL_WIDTH), np.int64)
    levels_SL[:, 1] = stock_S.astype(np.int64)
    return _bytes(levels_SL)


def _bytes(rows: Ints) -> bytes:
    return rows.astype("<i8").tobytes()
