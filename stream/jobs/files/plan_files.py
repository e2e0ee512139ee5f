"""Plans of a file of history: JSON lines, each a record of the topic `plans`.

For `surgecast train|backtest|forecast --plans FILE`. A line that is no plan is an error here, since
whoever writes the file can mend it.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec

from model.training.dataset import History
from stream.decoding.plans import Plan, checked
from stream.decoding.refusals import UNREADABLE, unreadable
from stream.decoding.schemas import PlanRecord
from stream.errors import UsageError
from stream.serving.plan_blocks import PlanScopes, plan_block


def read_plans(path: Path) -> list[Plan]:
    """The plans of a file; of an id the last line holds. Raises UsageError for what is none."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    plans: dict[str, Plan] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            plan = checked(msgspec.json.decode(line, type=PlanRecord))
        except UNREADABLE as error:
            raise UsageError(f"{path}, line {number}: {unreadable(error)}") from None
        plans[plan.plan_id] = plan
    if not plans:
        raise UsageError(f"{path} holds no plans")
    return list(plans.values())


def with_plans(
    history: History,
    path: Path | None,
    *,
    horizon: int,
    categories: Mapping[str, str] | None = None,
) -> History:
    """The same history with the plans of a file, up to one horizon beyond its end.

    `categories` maps SKUs to their category. Raises UsageError as `read_plans`, and where no plan
    is for any bucket of any series.
    """
    if path is None:
        return history
    scopes = PlanScopes()
    scopes.grow(history.series)
    block = plan_block(
        read_plans(path),
        scopes,
        categories or {},
        start_ms=history.start_ms,
        bucket_ms=history.bucket_ms,
        buckets=history.buckets + horizon,
    )
    if block is None:
        raise UsageError(f"no plan of {path} is for a series and a time of the history")
    return replace(history, plans=block)
