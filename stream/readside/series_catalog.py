"""Which series there are, their partition, slot and category; read once, then extended."""

from collections.abc import Mapping
from typing import Any

from stream.state import keys
from stream.state.keys import ROLLUPS, Tag


class SeriesCatalog:
    """Series by id. Slots are given out in order and never move, so only new ones are read."""

    def __init__(self) -> None:
        self._names: dict[Tag, list[str]] = {}
        self._places: dict[str, tuple[Tag, int]] = {}
        self._category_counts: dict[Tag, int] = {}
        self.categories: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._places)

    def find(self, series_id: str) -> tuple[Tag, int] | None:
        """Tag and slot of a series; None when it is not known."""
        return self._places.get(series_id)

    def named(self, tag: Tag) -> list[str]:
        """Series ids of a partition; the position is the slot."""
        return self._names.get(tag, [])

    def listed(self) -> list[tuple[str, Tag, int]]:
        """Every series as (series_id, tag, slot): roll-ups first."""
        order = sorted(self._names, key=lambda tag: (tag != ROLLUPS, str(tag)))
        return [(name, tag, slot) for tag in order for slot, name in enumerate(self._names[tag])]

    def extend(self, redis: Any, lengths: Mapping[Tag, int]) -> None:
        """Read the series that are new since the last call, given the length of each list."""
        if any(length < len(self.named(tag)) for tag, length in lengths.items()):
            self.__init__()  # type: ignore[misc]  # the store was emptied: start over
        grown = [tag for tag, length in lengths.items() if length > len(self.named(tag))]
        pipe = redis.pipeline(transaction=False)
        for tag in grown:
            pipe.lrange(keys.of(tag, "series"), len(self.named(tag)), -1)
        inputs = [tag for tag in lengths if tag != ROLLUPS]
        for tag in inputs:
            pipe.hlen(keys.of(tag, "categories"))
        answers = pipe.execute()
        for tag, added in zip(grown, answers, strict=False):
            names = self._names.setdefault(tag, [])
            for raw in added:
                name = raw.decode()
                if tag == ROLLUPS or name not in self._places:
                    self._places[name] = (tag, len(names))
                names.append(name)
        counts = dict(zip(inputs, answers[len(grown) :], strict=True))
        for tag, count in counts.items():
            if count != self._category_counts.get(tag):
                hashed = redis.hgetall(keys.of(tag, "categories"))
                self.categories.update({k.decode(): v.decode() for k, v in hashed.items()})
                self._category_counts[tag] = count
