"""Stored scores: read back unchanged, added over days and partitions, other shapes ignored."""

import numpy as np

from model.evaluation.score_sums import N_SUMS, VOLUMES
from stream.state.scores import add_scores, decode_scores, encode_sums

HORIZON = 3


def sums(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.random.default_rng(seed).uniform(size=(len(VOLUMES), HORIZON, N_SUMS))


def test_sums_are_read_back_bit_for_bit() -> None:
    fields = {b"lstm-1": encode_sums(sums(1)), b"seasonal-naive": encode_sums(sums(2))}

    found = decode_scores(fields, horizon=HORIZON)

    assert list(found) == ["lstm-1", "seasonal-naive"]
    np.testing.assert_array_equal(found["lstm-1"], sums(1))
    np.testing.assert_array_equal(found["seasonal-naive"], sums(2))


def test_sums_of_another_horizon_are_left_out() -> None:
    """A model with another horizon served on the same day."""
    fields = {b"lstm-1": encode_sums(sums(1)), b"lstm-2": encode_sums(sums(2)[:, :2])}

    assert list(decode_scores(fields, horizon=HORIZON)) == ["lstm-1"]
    assert list(decode_scores(fields, horizon=2)) == ["lstm-2"]


def test_sums_are_added_by_model() -> None:
    """Over partitions and days; the stored hashes stay unchanged, an empty hash adds nothing."""
    first = {b"lstm-1": encode_sums(sums(1)), b"lstm-2": encode_sums(sums(2))}
    second = {b"lstm-1": encode_sums(sums(3))}

    found = add_scores([first, {}, second], horizon=HORIZON)

    np.testing.assert_array_equal(found["lstm-1"], sums(1) + sums(3))
    np.testing.assert_array_equal(found["lstm-2"], sums(2))
    np.testing.assert_array_equal(decode_scores(first, horizon=HORIZON)["lstm-1"], sums(1))
