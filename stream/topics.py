"""The table of the product's topics: names, direction, retention, compaction.

All inputs keyed by SKU have the same number of partitions, so one worker owns a SKU's orders,
clicks and catalog entries.
"""

from dataclasses import dataclass
from typing import Literal

from model.durations import DAY_MS


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. `retention_ms` is None if compaction keeps the newest record of each key."""

    name: str
    direction: Literal["input", "output", "control"]
    retention_ms: int | None
    keyed_by: str = "sku"

    @property
    def config(self) -> dict[str, str]:
        """Broker-side configuration of the topic."""
        if self.retention_ms is None:
            return {"cleanup.policy": "compact"}
        return {"cleanup.policy": "delete", "retention.ms": str(self.retention_ms)}


ORDERS = Topic("orders", "input", 7 * DAY_MS)
CLICKS = Topic("clicks", "input", 3 * DAY_MS)
CATALOG = Topic("catalog", "input", None)
INVENTORY = Topic("inventory", "input", None)
PLANS = Topic("plans", "input", None, keyed_by="plan_id")
HEARTBEATS = Topic("heartbeats", "control", DAY_MS, keyed_by="partition")
MODELS = Topic("models", "control", DAY_MS, keyed_by="action")
FORECASTS = Topic("forecasts", "output", DAY_MS, keyed_by="series_id")
ALERTS = Topic("alerts", "output", 30 * DAY_MS, keyed_by="series_id")
FEATURES = Topic("features", "output", 7 * DAY_MS, keyed_by="series_id")
DEAD_LETTER = Topic("dead-letter", "output", 14 * DAY_MS, keyed_by="topic-partition")

#: Inputs whose event times move the watermark.
EVENT_INPUTS = (ORDERS, CLICKS, INVENTORY)

TOPICS = (
    ORDERS, CLICKS, CATALOG, INVENTORY, PLANS, HEARTBEATS, MODELS,
    FORECASTS, ALERTS, FEATURES, DEAD_LETTER,
)  # fmt: skip
