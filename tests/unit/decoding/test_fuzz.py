"""Every broken record gets a verdict, and none crashes the decoder."""

import pytest

from tests.support.fuzzing import run


@pytest.mark.parametrize("seed", [1, 2])
def test_mutated_records_have_one_verdict_each_and_none_crashes(seed: int) -> None:
    """In = counted + duplicate + late + rejected, and each refused record has a readable letter."""
    fuzzed = run(10_000, seed=seed)

    counts = fuzzed.partition.state.counts
    assert fuzzed.judged == 10_000
    refused = sum(n for (_, verdict), n in counts.items() if verdict in ("late", "rejected"))
    assert fuzzed.letters == refused
    for topic in ("orders", "clicks"):
        for verdict in ("counted", "duplicate", "late", "rejected"):
            assert counts[topic, verdict] > 0, (topic, verdict)
