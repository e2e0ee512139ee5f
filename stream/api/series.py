"""`GET /v1/series`: the list of series."""

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request

from stream.api.listing import CURSOR, Cursor, KeptOrders, Order, Sort
from stream.api.problems import Problem
from stream.api.schemas import SeriesItem, SeriesPage
from stream.api.shared_reader import SharedReader, age_fields
from stream.readside.reader import Reader
from stream.series_ids import Level, level_of, split_series

router = APIRouter(tags=["series"])


@router.get("/v1/series")
def list_series(
    request: Request,
    *,
    level: Level | None = None,
    category: str | None = None,
    q: Annotated[str | None, Query(description="part of the series id, ignoring case")] = None,
    sort: Annotated[
        Sort, Query(description="-units: by units of the last eight days, largest first")
    ] = "id",
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    cursor: Annotated[
        str | None,
        Query(description="next_cursor of the page before", json_schema_extra={"pattern": CURSOR}),
    ] = None,
) -> SeriesPage:
    """List series by page. Pages of one order list each series once, while buckets close too."""
    shared: SharedReader = request.app.state.reader
    kept: KeptOrders = request.app.state.orders
    after = None if cursor is None else _decoded(cursor, sort)
    part = (q or "").casefold()
    with shared.reading() as reader:
        order = _order(reader, kept, sort, after)
        matches = (
            place
            for place in (order.places if after is None else order.after(after))
            if (level is None or level_of(place[1]) == level)
            and (category is None or _category(reader, place[1]) == category)
            and part in place[1].casefold()
        )
        page = [place for _, place in zip(range(limit), matches, strict=False)]
        more = next(matches, None) is not None
        items = [_item(reader, name) for _, name in page]
    return SeriesPage(series=items, next_cursor=order.cursor(page[-1]).encode() if more else None)


def _decoded(cursor: str, sort: Sort) -> Cursor:
    """Return the place of a cursor. Raises Problem for an invalid one, or one of another order."""
    try:
        decoded = Cursor.decode(cursor)
    except ValueError:
        status = 404 if re.fullmatch(CURSOR, cursor) else 422
        raise Problem(
            status, "invalid-cursor", f"cursor {cursor[:60]!r} is not a next_cursor of /v1/series"
        ) from None
    if decoded.sort != sort:
        raise Problem(
            422, "invalid-cursor", f"the cursor is of sort={decoded.sort}, not of sort={sort}"
        )
    return decoded


def _order(reader: Reader, kept: KeptOrders, sort: Sort, after: Cursor | None) -> Order:
    names = [name for name, _, _ in reader.series()]
    if sort == "id":
        return Order.by_id(names)
    continued = after and kept.find(after)
    return continued or kept.newest({**dict.fromkeys(names, 0.0), **reader.volumes()})


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
