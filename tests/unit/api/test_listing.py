"""Orders and cursors of the list of series."""

from hypothesis import given
from hypothesis import strategies as st

from stream.api.listing import KEPT_ORDERS, Cursor, KeptOrders, Order


def _walk(order: Order, size: int) -> list[str]:
    """All pages of an order, each through a cursor in its text form."""
    names: list[str] = []
    places = order.places
    while places:
        page = places[:size]
        names += [name for _, name in page]
        places = order.after(Cursor.decode(order.cursor(page[-1]).encode()))
    return names


@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 3)),
    st.integers(1, 5),
)
def test_pages_list_every_series_once(units: dict[str, int], size: int) -> None:
    """In either order, whatever the ids are, with many equal units."""
    by_units = _walk(Order.by_units(units), size)

    assert by_units == sorted(units, key=lambda name: (-units[name], name))
    assert _walk(Order.by_id(list(units)), size) == sorted(units)


def test_pages_of_one_order_survive_other_units() -> None:
    """The order of a cursor is kept while newer ones come, and then found no more."""
    kept = KeptOrders()
    first = kept.newest({"a": 3, "b": 2, "c": 1})
    cursor = first.cursor(first.places[0])

    assert kept.newest({"a": 3, "b": 2, "c": 1}) is first
    newer = kept.newest({"c": 9, "a": 3, "b": 2})
    assert kept.find(cursor) is first
    assert [name for _, name in newer.after(cursor)] == ["b"]  # without its order: by its place

    for units in range(KEPT_ORDERS):
        kept.newest({"a": 10 + units})
    assert kept.find(cursor) is None


def test_a_series_that_is_gone_does_not_start_over() -> None:
    """The page after a series continues behind its place, also once it is not listed any more."""
    order = Order.by_units({"b": 5, "d": 1})

    assert [name for _, name in order.after(Cursor("-units", "x", -3.0, "gone"))] == ["d"]


@given(st.text())
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    try:
        Cursor.decode(text)
    except ValueError as error:
        assert str(error) == "not a cursor"  # noqa: PT017 - most texts raise, some may not
