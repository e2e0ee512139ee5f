"""Keeps the means of the roll-ups equal to the sums of their series' means, on the event loop.

Other workers forecast their partitions a little later than this one, and again after a swap of
their own. So the sums are waited for, for a moment, and looked at again as long as the forecast is
the newest.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import structlog

from model.contract import QuantileForecast
from stream.scoring.rollup_means import RollupMeans

log = structlog.get_logger(__name__)

#: How long the roll-ups wait for the forecasts of other workers' partitions.
MEANS_WITHIN_S = 2.0
_LOOK_EVERY_S: Final = 0.05
#: Time between two looks at sums that are known already.
LOOK_AGAIN_S = 1.0

#: Calls a function in the serving thread until the store answers.
Run = Callable[..., Awaitable[Any]]


class SummedRollups:
    """The newest forecast of the roll-ups; `hurried` is True while closes pile up."""

    def __init__(self, means: RollupMeans, run: Run, hurried: Callable[[], bool]) -> None:
        self._means = means
        self._run = run
        self._hurried = hurried
        self._newest: QuantileForecast | None = None
        self._look_s = 0.0
        self._adds_up = True

    async def summed(self, series: Sequence[str], forecast: QuantileForecast) -> QuantileForecast:
        """The forecast with means that add up; as it is if other partitions are late or ahead."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + MEANS_WITHIN_S
        while True:
            found = await self._run(self._means.reconciled, series, forecast)
            if found is not None or self._hurried() or loop.time() > deadline_s:
                break
            await asyncio.sleep(_LOOK_EVERY_S)
        if not self._hurried():
            self._note(found is not None, forecast)
        self._newest = found or forecast
        return self._newest

    async def changed(self, series: Sequence[str]) -> QuantileForecast | None:
        """The newest forecast with other means, if partitions were forecast again; else None.

        Looks at most once in `LOOK_AGAIN_S`.
        """
        now_s = asyncio.get_running_loop().time()
        if self._newest is None or self._hurried() or now_s < self._look_s:
            return None
        self._look_s = now_s + LOOK_AGAIN_S
        found: QuantileForecast | None = await self._run(self._means.changed, series, self._newest)
        if found is None:
            return None
        self._note(True, found)
        self._newest = found
        return found

    def forget(self) -> None:
        """Drop the forecast: the roll-ups have moved to another worker."""
        self._newest = None

    def _note(self, adds_up: bool, forecast: QuantileForecast) -> None:
        if adds_up != self._adds_up:
            self._adds_up = adds_up
            log.info("rollup_means", add_up=adds_up, origin_ms=forecast.origin_ms)
