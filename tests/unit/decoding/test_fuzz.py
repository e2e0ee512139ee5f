"""Every broken record gets a verdict, and none crashes the decoder."""

import pytest

from benchmarks.fuzz import main
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


def test_the_fuzz_command_reports_every_record(capsys: pytest.CaptureFixture[str]) -> None:
    """`make fuzz` with fewer records."""
    main(["--records", "600", "--seeds", "2"])

    assert capsys.readouterr().out.startswith("600 records in ")
