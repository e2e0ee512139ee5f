"""Reads plans from a file of JSON lines, each a record of the topic `plans`.

For `surgecast train|backtest|forecast --plans FILE`. Unlike on the topic, an invalid line is an
error, since the author of the file can correct it.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec

from model.training.dataset import History
from stream.decoding.plans import Plan, validate_plan
from stream.decoding.refusals import UNREADABLE, unreadable
from stream.decoding.schemas import PlanRecord
from stream.errors import UsageError
from stream.serving.plan_blocks import PlanScopes, plan_block


def read_plans(path: Path) -> list[Plan]:
    """Read the plans of a file; the last line of each id counts. Raises UsageError."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    plans: dict[str, Plan] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            plan = validate_plan(msgspec.json.decode(line, type=PlanRecord))
        except UNREADABLE as error:
            raise UsageError(f"{path}, line {number}: {unreadable(error)}") from None
        plans[plan.plan_id] = plan
    if not plans:
        raise UsageError(f"{path} has no plans; write one JSON object per line")
    return list(plans.values())


def with_plans(
    history: History,
    path: Path | None,
    *,
    horizon: int,
    categories: Mapping[str, str] | None = None,
) -> History:
    """Add the plans of a file to a history, up to one horizon beyond its end.

    `categories` maps SKUs to their category. Raises UsageError as `read_plans`, and if no plan
    affects any bucket of any series.
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
        raise UsageError(f"no plan of {path} affects a series and a time of the history")
    return replace(history, plans=block)
