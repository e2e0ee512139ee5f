"""Top movers, the largest rises and falls of the last 24 h of event time, and quick picks.

The source `movers` has one row per series: `direction` (`up`, `down`), `series_id`, `category`,
`units`, `change`, `ratio`, and `daily`, eight daily sums as text for the small bars. The source
`picks` lists the roll-ups that a click selects.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from dashboards import text
from dashboards.snapshot import Snapshot
from dashboards.source_sync import empty, sync
from stream.readside.rolling.movers import Mover

MOVERS: Final = ("direction", "series_id", "category", "units", "change", "ratio", "daily")


class MoversList:
    """The movers and quick picks of one session."""

    def __init__(self) -> None:
        self.source = empty("movers", *MOVERS)
        self.picks = empty("picks", "series_id", "label")
        self._movers: tuple[Mover, ...] | None = None

    def update(self, snapshot: Snapshot) -> None:
        """Show the newest movers; unchanged movers send nothing."""
        if snapshot.movers is not self._movers:
            sync(self.source, as_columns(snapshot.movers or (), snapshot.categories))
            self._movers = snapshot.movers
        picks = snapshot.rollups
        if list(picks) != self.picks.data["series_id"]:
            labels = [text.series_title(series_id) for series_id in picks]
            sync(self.picks, {"series_id": list(picks), "label": labels})


def as_columns(movers: Sequence[Mover], categories: Mapping[str, str]) -> dict[str, list[str]]:
    """Return movers as columns of the source.

    >>> as_columns([Mover("85123A", 30.0, 10.0, (10.0, 30.0))], {"85123A": "Home"})["change"]
    ['+20']
    """
    rows = [
        (
            "up" if mover.change > 0 else "down",
            mover.series_id,
            categories.get(mover.series_id.split("@", 1)[0], ""),
            text.number(mover.units),
            text.signed(round(mover.change)),
            text.change(mover.units, mover.mean_day) or "new",
            ",".join(f"{units:g}" for units in mover.daily),
        )
        for mover in movers
    ]
    return {name: [row[at] for row in rows] for at, name in enumerate(MOVERS)}
