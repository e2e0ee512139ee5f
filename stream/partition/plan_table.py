"""The plans one partition has read."""

import msgspec
from xxhash import xxh3_64_hexdigest

from stream.decoding.plans import Plan


class PlanTable:
    """The plans one partition has read; `changed` says that the store has an older table.

    `digest` tells the stored table from others; it is empty where none was ever stored.

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
        """Announce, change or (None) withdraw a plan."""
        if self._plans.get(plan_id) == plan:
            return
        self._plans.pop(plan_id, None)
        if plan is not None:
            self._plans[plan_id] = plan
        self.changed = True

    def drop_before(self, time_ms: int) -> None:
        """Forget the plans that have ended by then."""
        ended = [plan_id for plan_id, plan in self._plans.items() if plan.end_ms <= time_ms]
        for plan_id in ended:
            del self._plans[plan_id]
        self.changed |= bool(ended)

    def stored(self) -> bytes:
        """All plans as bytes, to be stored now; the same for the same plans."""
        packed = msgspec.json.encode(sorted(self._plans.values(), key=lambda plan: plan.plan_id))
        self.changed, self.digest = False, xxh3_64_hexdigest(packed)
        return packed

    def load(self, packed: bytes) -> None:
        """Go on from what was stored."""
        self._plans = {plan.plan_id: plan for plan in self.read(packed)}
        self.changed, self.digest = False, xxh3_64_hexdigest(packed) if packed else ""

    @staticmethod
    def read(packed: bytes) -> list[Plan]:
        """The plans of a stored table; none of an empty one."""
        return msgspec.json.decode(packed, type=list[Plan]) if packed else []
