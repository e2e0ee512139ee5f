"""`GET /v1/series`: which series there are."""

import base64
import binascii
from bisect import bisect_right
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request

from stream.api.problems import Problem
from stream.api.schemas import SeriesItem, SeriesPage
from stream.api.shared_reader import SharedReader, age_fields
from stream.readside.reader import Reader
from stream.series_ids import Level, level_of, split_series

router = APIRouter(tags=["series"])


def cursor_after(series_id: str) -> str:
    """Opaque cursor of the page after a series."""
    return base64.urlsafe_b64encode(series_id.encode()).decode().rstrip("=")


def after_cursor(cursor: str) -> str:
    """Series a page starts after. Raises Problem for a cursor that is not ours.

    >>> after_cursor(cursor_after("85123A"))
    '85123A'
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars="-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise Problem(422, "invalid-cursor", f"cursor {cursor!r} is not one of ours") from None


@router.get("/v1/series")
def list_series(
    request: Request,
    *,
    level: Level | None = None,
    category: str | None = None,
    q: Annotated[str | None, Query(description="part of the id, in any case")] = None,
    sort: Annotated[
        Literal["id", "-units"], Query(description="-units: most sold in eight days first")
    ] = "id",
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    cursor: str | None = None,
) -> SeriesPage:
    """List series, a page at a time."""
    gate: SharedReader = request.app.state.gate
    with gate.reading() as reader:
        names = _ordered(reader, sort)
        wanted = (q or "").casefold()
        found = [
            name
            for name in names
            if (level is None or level_of(name) == level)
            and (category is None or _category(reader, name) == category)
            and wanted in name.casefold()
        ]
        start = _start(found, sort, after_cursor(cursor)) if cursor else 0
        page = found[start : start + limit]
        items = [_item(reader, name) for name in page]
    more = start + limit < len(found)
    return SeriesPage(series=items, next_cursor=cursor_after(page[-1]) if more else None)


def _ordered(reader: Reader, sort: str) -> list[str]:
    names = sorted(name for name, _, _ in reader.series())
    if sort == "id":
        return names
    reader.movers(1)  # brings the sums up to date
    sold = reader.by_volume()
    return sold + sorted(set(names) - set(sold))


def _start(found: list[str], sort: str, last: str) -> int:
    if sort == "id":
        return bisect_right(found, last)
    return found.index(last) + 1 if last in found else 0


def _category(reader: Reader, series_id: str) -> str | None:
    if level_of(series_id) == "category":
        return series_id.partition(":")[2]
    return reader.category_of(series_id)


def _item(reader: Reader, series_id: str) -> SeriesItem:
    sku, location = split_series(series_id)
    return SeriesItem(
        series_id=series_id,
        level=level_of(series_id),
        sku=sku,
        location=location,
        category=_category(reader, series_id),
        **age_fields(reader.age(series_id)),
    )
