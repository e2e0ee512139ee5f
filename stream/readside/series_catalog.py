"""Index of all series: partition, slot and category of each, read incrementally."""

from collections.abc import Mapping
from typing import Any

from stream.state import keys
from stream.state.keys import ROLLUPS, Tag


class SeriesCatalog:
    """Series by id. Slots are assigned in order and never change, so only new ones are read."""

    def __init__(self) -> None:
        self._ids: dict[Tag, list[str]] = {}
        self._slots: dict[str, tuple[Tag, int]] = {}
        self._category_counts: dict[Tag, int] = {}
        self.categories: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def find(self, series_id: str) -> tuple[Tag, int] | None:
        """Tag and slot of a series; None if it is unknown."""
        return self._slots.get(series_id)

    def ids_in(self, tag: Tag) -> list[str]:
        """Series ids of a partition; the position is the slot."""
        return self._ids.get(tag, [])

    def entries(self) -> list[tuple[str, Tag, int]]:
        """Every series as (series_id, tag, slot), roll-ups first."""
        order = sorted(self._ids, key=lambda tag: (tag != ROLLUPS, str(tag)))
        return [(name, tag, slot) for tag in order for slot, name in enumerate(self._ids[tag])]

    def extend(self, redis: Any, lengths: Mapping[Tag, int]) -> None:
        """Read the series added since the last call; `lengths` are those of the stored lists."""
        if any(length < len(self.ids_in(tag)) for tag, length in lengths.items()):
            self.__init__()  # type: ignore[misc]  # the store was emptied: start over
        grown = [tag for tag, length in lengths.items() if length > len(self.ids_in(tag))]
        pipe = redis.pipeline(transaction=False)
        for tag in grown:
            pipe.lrange(keys.of(tag, "series"), len(self.ids_in(tag)), -1)
        inputs = [tag for tag in lengths if tag != ROLLUPS]
        for tag in inputs:
            pipe.hlen(keys.of(tag, "categories"))
        answers = pipe.execute()
        for tag, added in zip(grown, answers, strict=False):
            ids = self._ids.setdefault(tag, [])
            for raw in added:
                series_id = raw.decode()
                if tag == ROLLUPS or series_id not in self._slots:
                    self._slots[series_id] = (tag, len(ids))
                ids.append(series_id)
        counts = dict(zip(inputs, answers[len(grown) :], strict=True))
        for tag, count in counts.items():
            if count != self._category_counts.get(tag):
                hashed = redis.hgetall(keys.of(tag, "categories"))
                self.categories.update({k.decode(): v.decode() for k, v in hashed.items()})
                self._category_counts[tag] = count
