"""Keyed pseudonyms for people's ids, and the scrubbing of records that could not be read.

A pseudonym is BLAKE2b under the deployment's key: equal ids give equal pseudonyms, and without the
key nobody can test a guess. Nothing downstream of the decoder ever sees an id.
"""

import json
import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.events import PERSON_FIELDS

#: People whose pseudonyms are kept at hand (about 150 bytes each).
REMEMBERED_PEOPLE: Final = 500_000

_PERSON_VALUE = re.compile(
    rf'("(?:{"|".join(PERSON_FIELDS)})"\s*:\s*)("(?:[^"\\]|\\.)*"?|[^,}}\]\s]+)'
)


class Pseudonyms:
    """Pseudonyms under one key (any length; BLAKE2b takes the first 64 bytes of its digest).

    >>> people = Pseudonyms(b"secret")
    >>> people.number("visitor-1") == Pseudonyms(b"secret").number("visitor-1")
    True
    >>> people.number("visitor-1") == Pseudonyms(b"other").number("visitor-1")
    False
    """

    def __init__(self, key: bytes) -> None:
        self._key = blake2b(key, digest_size=32).digest()
        self._numbers: dict[str, int] = {}

    def number(self, person_id: str) -> int:
        """63-bit pseudonym, for counting distinct people."""
        digest = blake2b(person_id.encode("utf-8", "surrogatepass"), key=self._key, digest_size=8)
        return int.from_bytes(digest.digest(), "little") >> 1

    def numbers(self, person_N: Sequence[str]) -> NDArray[np.int64]:
        """Pseudonyms of many people; those seen lately cost a lookup.

        >>> Pseudonyms(b"k").numbers(["a", "b", "a"]).tolist() == [
        ...     Pseudonyms(b"k").number(person) for person in "aba"
        ... ]
        True
        """
        if len(self._numbers) > REMEMBERED_PEOPLE:
            self._numbers.clear()
        numbers = self._numbers
        for person_id in set(person_N).difference(numbers):
            numbers[person_id] = self.number(person_id)
        return np.array(list(map(numbers.__getitem__, person_N)), np.int64)

    def text(self, person_id: str) -> str:
        """Printable pseudonym, for dead letters.

        >>> Pseudonyms(b"secret").text("a")[:2]
        'p:'
        """
        return f"p:{self.number(person_id):016x}"

    def scrub(self, raw: str) -> str:
        """The record with every person id replaced, whether or not it is valid JSON.

        >>> Pseudonyms(b"k").scrub('{"sku": "A", "customer_id": "13085"').count("13085")
        0
        """
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError):
            return _PERSON_VALUE.sub(self._replaced, raw)
        if not any(field in raw for field in PERSON_FIELDS) and "\\u" not in raw:
            return raw
        return json.dumps(self._scrubbed(document), ensure_ascii=False)

    def _replaced(self, match: re.Match[str]) -> str:
        return f'{match[1]}"{self.text(match[2].strip(chr(34)))}"'

    def _scrubbed(self, node: Any) -> Any:
        if isinstance(node, dict):
            return {
                name: self.text(str(value))
                if name in PERSON_FIELDS and value is not None
                else self._scrubbed(value)
                for name, value in node.items()
            }
        if isinstance(node, list):
            return [self._scrubbed(item) for item in node]
        return node
