"""Rate limits: a bucket of tokens for each client, of as many clients as memory is set aside for.

Pure: the caller passes the time.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

#: Clients remembered at most; the one not seen for longest is forgotten first.
MAX_CLIENTS: Final = 10_000


class Allowance:
    """Grants each client `rate` requests a second on average, and `burst` at once.

    >>> allowance = Allowance(rate=2, burst=2)
    >>> [allowance.wait_s("a", now_s=0.0) for _ in range(3)]
    [0.0, 0.0, 0.5]
    >>> allowance.wait_s("b", now_s=0.0), allowance.wait_s("a", now_s=0.5)
    (0.0, 0.0)
    """

    def __init__(self, *, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def wait_s(self, client: Hashable, *, now_s: float) -> float:
        """Take a token of a client; return 0, or the seconds until there is one."""
        tokens, then_s = self._tokens.pop(client, (self._burst, now_s))
        tokens = min(self._burst, tokens + (now_s - then_s) * self._rate)
        granted = tokens >= 1
        self._tokens[client] = (tokens - 1 if granted else tokens, now_s)
        if len(self._tokens) > MAX_CLIENTS:
            self._tokens.popitem(last=False)
        return 0.0 if granted else (1 - tokens) / self._rate
