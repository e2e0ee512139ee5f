"""The orders of `GET /v1/series`, and the cursors that continue them.

A cursor names the last series of its page and what it was sorted by, so it stays valid whatever
happens to that series. By units it also names the order that its first page came from: a page that
follows is of the same order even if buckets have closed meanwhile. A few orders are kept; without
its own, a cursor continues in the newest.

Pure.
"""

import base64
import binascii
import secrets
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

Sort = Literal["id", "-units"]
#: Place of a series in an order: minus its units, 0 if sorted by id; then its id.
Place = tuple[float, str]

#: The characters of a cursor.
CURSOR: Final = "^[A-Za-z0-9_-]{1,4000}$"
#: Orders by units that can be continued.
KEPT_ORDERS: Final = 4


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """The place that a page continues after, in the order `order_id`, empty for one by id."""

    sort: Sort
    order_id: str
    minus_units: float
    series_id: str

    def encode(self) -> str:
        """Return the cursor as opaque text.

        >>> Cursor.decode(Cursor("id", "", 0.0, "85123A").encode()).series_id
        '85123A'
        """
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> "Cursor":
        """Return a cursor from its text. Raises ValueError if it is none.

        >>> Cursor.decode("é")
        Traceback (most recent call last):
            ...
        ValueError: not a cursor
        """
        try:
            padded = text.encode("ascii") + b"=" * (-len(text) % 4)
            return msgspec.json.decode(
                base64.b64decode(padded, altchars=b"-_", validate=True), type=cls
            )
        except (binascii.Error, UnicodeError, msgspec.MsgspecError):
            raise ValueError("not a cursor") from None


@dataclass(frozen=True, slots=True)
class Order:
    """All series in an order; `order_id` is empty for one by id, which needs no keeping."""

    sort: Sort
    places: Sequence[Place]
    order_id: str = ""

    @classmethod
    def by_id(cls, names: Sequence[str]) -> "Order":
        """Return the order by series id."""
        return cls("id", [(0.0, name) for name in sorted(names)])

    @classmethod
    def by_units(cls, units: Mapping[str, float]) -> "Order":
        """Return the order by units, largest first, then by series id.

        >>> [name for _, name in Order.by_units({"a": 1, "b": 5, "c": 1}).places]
        ['b', 'a', 'c']
        """
        places = sorted((-value, name) for name, value in units.items())
        return cls("-units", places, secrets.token_urlsafe(6))

    def after(self, cursor: Cursor) -> Sequence[Place]:
        """Return the places after a cursor's.

        >>> Order.by_id(["a", "c"]).after(Cursor("id", "", 0.0, "b"))
        [(0.0, 'c')]
        """
        return self.places[bisect_right(self.places, (cursor.minus_units, cursor.series_id)) :]

    def cursor(self, place: Place) -> Cursor:
        """Return the cursor of the page after a place."""
        return Cursor(self.sort, self.order_id, *place)


@dataclass(slots=True)
class KeptOrders:
    """The newest orders by units, to continue their pages."""

    _orders: OrderedDict[str, Order] = field(default_factory=OrderedDict)

    def find(self, cursor: Cursor) -> Order | None:
        """Return the order of a cursor; None if it is not kept any more."""
        return self._orders.get(cursor.order_id)

    def newest(self, units: Mapping[str, float]) -> Order:
        """Return the order by these units, and keep it; the last one if nothing has changed."""
        order = Order.by_units(units)
        last = next(reversed(self._orders.values()), None)
        if last is not None and last.places == order.places:
            return last
        self._orders[order.order_id] = order
        if len(self._orders) > KEPT_ORDERS:
            self._orders.popitem(last=False)
        return order
