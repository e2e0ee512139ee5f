"""An outsider beside champion and challenger: scored on the same origins, never promoted."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model.evaluation.backtest import Backtest
from model.evaluation.promotion import Verdict, decide


def with_outsider(
    verdict: Verdict,
    result: Backtest,
    *,
    outsider: str,
    serving: str,
    rollups: NDArray[np.int64] | None = None,
    known_OSH: NDArray[np.bool_] | None = None,
) -> Verdict:
    """Add to a verdict whether `outsider` would be better than `serving`, by the same rules.

    Both are names in `result`; `serving` is the model that serves after the verdict. The decision
    itself stays. The outsider is always the same model, so repeated looks need no control.

    >>> actual = np.array([[[4.0], [2.0], [6.0]]] * 3, np.float32)
    >>> close, off = (np.repeat((actual + by)[..., None], 1, -1) for by in (0.5, 2.0))
    >>> result = Backtest(["a", "b", "c"], [0, 1, 2], 60_000, (0.5,), actual,
    ...                   {"old": off, "tirex": close}, np.ones((3, 3)))
    >>> with_outsider(Verdict(False, "no better"), result, outsider="tirex", serving="old").reason
    'no better; tirex, never live, against old: better beyond noise: WQL 0.125 against 0.500 ...'
    """
    judged = decide(
        result, champion=serving, challenger=outsider, rollups=rollups, known_OSH=known_OSH
    )
    note = f"{outsider}, never live, against {serving}: {judged.reason}"
    return replace(verdict, reason=f"{verdict.reason}; {note}", outsider_wql=judged.challenger_wql)
