"""`GET /v1/series`: the list of series."""

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


def encode_cursor(series_id: str) -> str:
    """Return the opaque cursor of the page after a series."""
    return base64.urlsafe_b64encode(series_id.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> str:
    """Return the series before the cursor's page. Raises Problem for an invalid cursor.

    >>> decode_cursor(encode_cursor("85123A"))
    '85123A'
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars="-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise Problem(
            422, "invalid-cursor", f"cursor {cursor!r} is not a next_cursor of /v1/series"
        ) from None


@router.get("/v1/series")
def list_series(
    request: Request,
    *,
    level: Level | None = None,
    category: str | None = None,
    q: Annotated[str | None, Query(description="part of the series id, ignoring case")] = None,
    sort: Annotated[
        Literal["id", "-units"],
        Query(description="-units: by units of the last eight days, largest first"),
    ] = "id",
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    cursor: str | None = None,
) -> SeriesPage:
    """List series by page."""
    shared: SharedReader = request.app.state.reader
    with shared.reading() as reader:
        names = _ordered(reader, sort)
        part = (q or "").casefold()
        matches = [
            name
            for name in names
            if (level is None or level_of(name) == level)
            and (category is None or _category(reader, name) == category)
            and part in name.casefold()
        ]
        start = _start(matches, sort, decode_cursor(cursor)) if cursor else 0
        page = matches[start : start + limit]
        items = [_item(reader, name) for name in page]
    more = start + limit < len(matches)
    return SeriesPage(series=items, next_cursor=encode_cursor(page[-1]) if more else None)


def _ordered(reader: Reader, sort: str) -> list[str]:
    names = sorted(name for name, _, _ in reader.series())
    if sort == "id":
        return names
    reader.movers(1)  # updates the sums
    by_volume = reader.by_volume()
    return by_volume + sorted(set(names) - set(by_volume))


def _start(names: list[str], sort: str, last: str) -> int:
    if sort == "id":
        return bisect_right(names, last)
    return names.index(last) + 1 if last in names else 0


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
