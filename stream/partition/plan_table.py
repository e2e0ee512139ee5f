"""The announced promotions, prices, closures and events that one partition has read."""

import msgspec
from xxhash import xxh3_64_hexdigest

from stream.decoding.plans import Plan


class PlanTable:
    """Plans read by one partition; `changed` is True while the store has an older table.

    `digest` identifies the stored table; it is empty if none was ever stored.

    >>> table = PlanTable()
    >>> table.take("p", Plan("p", "event", 0, 10))
    >>> table.take("q", Plan("q", "closure", 0, 20))
    >>> table.drop_before(10)
    >>> [plan.plan_id for plan in PlanTable.read(table.stored())]
    ['q']
    """

    def __init__(self) -> None:
        self._plans: dict[str, Plan] = {}
        self.changed = False
        self.digest = ""

    def __len__(self) -> int:
        return len(self._plans)

    def take(self, plan_id: str, plan: Plan | None) -> None:
        """Add or replace a plan; None withdraws it."""
        if self._plans.get(plan_id) == plan:
            return
        self._plans.pop(plan_id, None)
        if plan is not None:
            self._plans[plan_id] = plan
        self.changed = True

    def drop_before(self, time_ms: int) -> None:
        """Drop the plans that end at or before `time_ms`."""
        ended = [plan_id for plan_id, plan in self._plans.items() if plan.end_ms <= time_ms]
        for plan_id in ended:
            del self._plans[plan_id]
        self.changed |= bool(ended)

    def stored(self) -> bytes:
        """Encode all plans for the store; equal plans give equal bytes."""
        packed = msgspec.json.encode(sorted(self._plans.values(), key=lambda plan: plan.plan_id))
        self.changed, self.digest = False, xxh3_64_hexdigest(packed)
        return packed

    def load(self, packed: bytes) -> None:
        """Restore the plans from a stored table."""
        self._plans = {plan.plan_id: plan for plan in self.read(packed)}
        self.changed, self.digest = False, xxh3_64_hexdigest(packed) if packed else ""

    @staticmethod
    def read(packed: bytes) -> list[Plan]:
        """Decode a stored table; an empty one has no plans."""
        return msgspec.json.decode(packed, type=list[Plan]) if packed else []
