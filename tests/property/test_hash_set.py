"""The batch-wise hash set against Python's set, for colliding hashes and for many of them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.partition.hash_set import HashSet, distinct

#: Few distinct values, and values that differ in their highest or lowest bits only.
colliding = st.one_of(
    st.integers(1, 40),
    st.integers(1, 40).map(lambda n: n << 58),
    st.integers(1, 2**64 - 1),
)
batches = st.lists(st.lists(colliding, max_size=50), max_size=8)


@given(batches, st.lists(colliding, max_size=50))
def test_it_contains_the_same_as_a_set(filled: list[list[int]], queried: list[int]) -> None:
    seen, model = HashSet(), set[int]()
    for batch in filled:
        seen.add(np.array(batch, np.uint64))
        model.update(batch)
        assert seen.contains(np.array(queried, np.uint64)).tolist() == [h in model for h in queried]
    assert sorted(seen.members.tolist()) == sorted(model)
    assert len(seen) == len(model)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([3_000, 40_000, 400_000]))
def test_it_contains_all_hashes_after_growing(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(1, 2**63, n, dtype=np.uint64)
    seen = HashSet()
    for at in range(0, n, 7_000):
        seen.add(hashes[at : at + 7_000])
    assert seen.contains(hashes).all()
    assert len(seen) == len(distinct(hashes))
    others = rng.integers(2**63, 2**64, n, dtype=np.uint64)
    assert not seen.contains(others).any()


def test_zero_counts_as_one() -> None:
    seen = HashSet()
    seen.add(np.array([0], np.uint64))
    assert seen.contains(np.array([0, 1, 2], np.uint64)).tolist() == [True, True, False]
