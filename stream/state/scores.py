"""Stored format of live scores: one hash per day and partition, sums [V, H, K] by model.

Axes: V = volume classes, H = horizon steps, K = sums.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from model.evaluation.score_sums import N_SUMS, VOLUMES, Sums


def encode_sums(sums_VHK: Sums) -> bytes:
    """Bytes of the sums of one model."""
    return sums_VHK.astype("<f8").tobytes()


def decode_scores(fields: Mapping[bytes, bytes], *, horizon: int) -> dict[str, Sums]:
    """Sums [V, H, K] by model of a day's hash, read-only; sums of another shape are left out.

    >>> fields = {b"lstm-1": encode_sums(np.ones((len(VOLUMES), 2, N_SUMS))), b"old": b"1234"}
    >>> [(name, sums.shape) for name, sums in decode_scores(fields, horizon=2).items()]
    [('lstm-1', (4, 2, 15))]
    """
    shape = (len(VOLUMES), horizon, N_SUMS)
    size = 8 * int(np.prod(shape))
    return {
        name.decode(): np.frombuffer(payload, "<f8").reshape(shape)
        for name, payload in fields.items()
        if len(payload) == size
    }


def add_scores(hashes: Iterable[Mapping[bytes, bytes]], *, horizon: int) -> dict[str, Sums]:
    """Sums [V, H, K] by model, added over the hashes of several days or partitions.

    >>> fields = {b"lstm-1": encode_sums(np.ones((len(VOLUMES), 1, N_SUMS)))}
    >>> float(add_scores([fields, fields], horizon=1)["lstm-1"][0, 0, 0])
    2.0
    """
    totals: dict[str, Sums] = {}
    for fields in hashes:
        for model_id, sums_VHK in decode_scores(fields, horizon=horizon).items():
            totals[model_id] = totals[model_id] + sums_VHK if model_id in totals else sums_VHK
    return totals
