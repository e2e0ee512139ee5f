"""When the trainer trains: at intervals, on request, and later again if a training made no model.

Pure; times are the wall clock's, in ms.
"""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from model.durations import MINUTE_MS
from stream.registry.announcements import ModelRecord

#: `promoted` and `refused` end with a verdict, `failed` and `skipped` make no model.
Outcome = Literal["promoted", "refused", "failed", "skipped"]

#: Delay after a training that made no model; it doubles each time, up to the interval.
RETRY_MS: Final = 10 * MINUTE_MS


class Due(NamedTuple):
    """A training to begin now: its cause, for people, and whether demand has drifted."""

    cause: str
    drifted: bool = False


@dataclass(slots=True)
class Schedule:
    """Trains `every_ms`, and on request, at the earliest `cooldown_ms` after the last verdict.

    `last_ms` is the end of the last training with a verdict. A training that made no model is
    repeated after a delay that doubles; only a new request shortens it.

    >>> schedule = Schedule(every_ms=1_000_000, cooldown_ms=0)
    >>> schedule.due(0)
    Due(cause='due', drifted=False)
    >>> schedule.ended("failed", 0)
    >>> schedule.due(RETRY_MS - 1), schedule.due(RETRY_MS)
    (None, Due(cause='due', drifted=False))
    """

    every_ms: int
    cooldown_ms: int
    last_ms: int | None = None
    request: ModelRecord | None = None
    in_vain: int = 0
    not_before_ms: int = 0

    def ask(self, request: ModelRecord) -> None:
        """Note a request; one from before the last training, or already known, has no effect."""
        known_ms = self.request.at_ms if self.request is not None else self.last_ms
        if known_ms is None or request.at_ms > known_ms:
            self.request, self.in_vain, self.not_before_ms = request, 0, 0

    def due(self, now_ms: int) -> Due | None:
        """The training to begin now; None to wait."""
        if now_ms < self.not_before_ms:
            return None
        since_ms = None if self.last_ms is None else now_ms - self.last_ms
        if self.request is not None and (since_ms is None or since_ms >= self.cooldown_ms):
            reason = self.request.reason or "no reason given"
            return Due(f"requested: {reason}", self.request.drift)
        return Due("due") if since_ms is None or since_ms >= self.every_ms else None

    def ended(self, outcome: Outcome, now_ms: int) -> None:
        """Note how a training ended."""
        if outcome in ("failed", "skipped"):
            delay_ms = min(RETRY_MS * 2 ** min(self.in_vain, 20), self.every_ms)
            self.in_vain += 1
            self.not_before_ms = now_ms + delay_ms
        else:
            self.last_ms, self.request, self.in_vain = now_ms, None, 0
