"""Redacts refused records by structure: only what the contract defines, in its own form, is shown.

A dead letter keeps the fields of the input topics that describe products and events, if their
values have the form of the field. Every other name and value becomes a keyed pseudonym, so equal
people stay equal. What is nested elsewhere is counted, not shown. A record that is not JSON is read
token by token by the same rules. The record itself is at its topic, partition and offset.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from stream.privacy import Pseudonyms

Fits = Callable[[Any], bool]

_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}([T ][0-9:.]{1,20}(Z|[+-]\d{2}:?\d{2})?)?")
_MAX_TEXT: Final = 200
_WORDS: Final = frozenset(
    {"view", "cart", "remove", "purchase", "promotion", "price", "closure", "event"}
)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_time(value: Any) -> bool:
    return _is_number(value) or (isinstance(value, str) and _TIME.fullmatch(value) is not None)


def _is_name(value: Any) -> bool:
    """True for an id of a product or event; an e-mail address is none."""
    if isinstance(value, str):
        return len(value) <= _MAX_TEXT and "@" not in value
    return _is_number(value)


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and value in _WORDS


#: Fields of the input topics that are shown, and the form of their values.
_SHOWN: Final[dict[str, Fits]] = {
    **dict.fromkeys(
        (
            "event_id", "order_id", "plan_id", "sku", "location", "category", "brand", "currency",
        ),
        _is_name,
    ),
    **dict.fromkeys(("ts", "start", "end", "launched_at", "event_time_ms"), _is_time),
    **dict.fromkeys(
        ("quantity", "unit_price", "price", "on_hand", "on_order", "lead_time_days", "value"),
        _is_number,
    ),
    **dict.fromkeys(("action", "kind"), _is_word),
}  # fmt: skip
#: The lines of an order document, which have the same fields.
_LINES: Final = "lines"

#: Names of fields that are shown; the value of a person's is a pseudonym like any other.
_NAMES: Final = frozenset(_SHOWN) | {_LINES, "customer_id", "visitor_id"}
_TOKEN: Final = re.compile(
    r'"(?:[^"\\]|\\.)*(?:"|$)|(?P<sign>[{}\[\],:])|(?P<space>\s+)|[^\s{}\[\],:"]+', re.DOTALL
)
#: A quoted text of a detail, as `repr` writes it.
_QUOTED: Final = re.compile(r"b?'((?:[^'\\]|\\.)*)'|b?\"((?:[^\"\\]|\\.)*)\"")
#: Quoted texts of details that are not the record's.
_OURS: Final = frozenset({"@", "utf-8"})

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def redacted(raw: str, people: Pseudonyms) -> str:
    """Return a record as text without any value but those that the contract lets show.

    >>> redacted('{"sku": "A", "email": "alice"}', Pseudonyms(b"k"))
    '{"sku":"A","p:1555ba6eb4fefabe":"p:2ce42595110ab0ab"}'
    >>> redacted('{"sku": "A", "customer_id": "alice', Pseudonyms(b"k"))
    '{"sku": "A", "customer_id": "p:2ce42595110ab0ab"'
    """
    try:
        return _encode(_redacted(_decode(raw), people)).decode()
    except (msgspec.MsgspecError, UnicodeError):
        return "".join(_tokens(raw, people))
    except RecursionError:
        return '{"withheld":"nested too deeply"}'


def redacted_detail(detail: str, people: Pseudonyms) -> str:
    """Return the detail of a refusal with every text that it quotes as a pseudonym.

    >>> redacted_detail("key b'alice' is not the SKU 'A'", Pseudonyms(b"k"))
    'key p:2ce42595110ab0ab is not the SKU p:212487450d000371'
    """

    def replaced(match: re.Match[str]) -> str:
        text = match[1] if match[1] is not None else match[2]
        return match[0] if text in _OURS else people.text(text)

    return _QUOTED.sub(replaced, detail)


def _redacted(document: Any, people: Pseudonyms) -> Any:
    if not isinstance(document, dict):
        return _hidden(document, people)
    return {_name(name, people): _field(name, value, people) for name, value in document.items()}


def _field(name: str, value: Any, people: Pseudonyms) -> Any:
    fits = _SHOWN.get(name)
    if fits is not None and fits(value):
        return value
    if name == _LINES and isinstance(value, list):
        return [_redacted(line, people) for line in value]
    return _hidden(value, people)


def _hidden(value: Any, people: Pseudonyms) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, dict):
        return f"{{{len(value)} fields}}"
    if isinstance(value, list):
        return f"[{len(value)} items]"
    return people.text(str(value))


def _name(name: str, people: Pseudonyms) -> str:
    return name if name in _NAMES else people.text(name)


def _tokens(raw: str, people: Pseudonyms) -> Iterator[str]:
    """The tokens of a text that is not JSON; names and values outside the contract are hidden."""
    found = list(_TOKEN.finditer(raw))
    solid = [match for match in found if match["space"] is None]
    following = [match["sign"] for match in solid[1:]] + [None]
    after = iter(following)
    fits: Fits | None = None
    for match in found:
        if match["space"] is not None:
            yield match[0]
            continue
        is_name = next(after) == ":"
        if match["sign"] is not None:
            fits = fits if match["sign"] == ":" else None
            yield match["sign"]
            continue
        value = _value(match[0])
        known = value in _NAMES if is_name else fits is not None and fits(value)
        fits = _SHOWN.get(value) if is_name and known else None
        yield json.dumps(value) if known else f'"{people.text(str(value))}"'


def _value(token: str) -> Any:
    """The value of a text or a bare token, as a JSON reader sees it where it can.

    >>> _value('"a'), _value("1.5"), _value("Null")
    ('a', 1.5, 'Null')
    """
    try:
        return json.loads(token, strict=False)
    except ValueError:
        return token.strip('"')
