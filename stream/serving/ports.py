"""What the output loop needs of the serving thread and of the read side."""

from typing import Protocol

from model.contract import QuantileForecast
from stream.state.keys import Tag
from stream.state.port import ReadSideWrite


class BucketServer(Protocol):
    """Forecasts the horizon after each closed bucket, with the champion or the fallback.

    `ModelServer` implements it.
    """

    @property
    def model_id(self) -> str:
        """Id of the serving model."""
        ...

    def swap_in(self) -> bool:
        """Swap in a staged model. True if every partition must be forecast again."""
        ...

    def advance(self, tag: Tag, through_ms: int) -> QuantileForecast | None:
        """Step a partition over its closed buckets and forecast; None if none is new."""
        ...

    def forget(self, tag: Tag) -> None:
        """Drop the states of a partition."""
        ...

    def leave(self) -> None:
        """Let a long step break off: the worker stops."""
        ...


class ForecastStore(Protocol):
    """Stores the newest forecast of a partition; `ReadSideWriter` implements it on Redis."""

    async def forecast(
        self,
        tag: Tag,
        forecast: QuantileForecast,
        *,
        calibrated: bool,
        watermark_ms: int,
        emitted_ms: int,
        write: ReadSideWrite | None = None,
    ) -> None:
        """Replace the newest forecast. Raises ServiceUnavailable."""
        ...
