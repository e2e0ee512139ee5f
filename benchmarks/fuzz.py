"""A million mutated records through decoder, partition and dead letters: `make fuzz`.

Afterwards a tenth as many through the reader of every other topic.

Prints the number of each verdict; a crash, or a record without a verdict, ends with a traceback.
"""

import argparse
import time
from collections import Counter
from collections.abc import Sequence

from tests.support.fuzzing import run
from tests.support.poison import VALID, poison


def main(given: Sequence[str] | None = None) -> None:
    """Run the fuzzer over several seeds; `given` replaces the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument(
        "--seeds", type=int, default=10, help="number of runs that share the records"
    )
    arguments = parser.parse_args(given)
    verdicts: Counter[str] = Counter()
    began = time.monotonic()
    for seed in range(arguments.seeds):
        fuzzed = run(arguments.records // arguments.seeds, seed=1_000 + seed)
        for (_, verdict), n in fuzzed.partition.state.counts.items():
            verdicts[verdict] += n
    seconds = time.monotonic() - began
    shown = ", ".join(f"{verdict} {n:,}" for verdict, n in sorted(verdicts.items()))
    print(f"{sum(verdicts.values()):,} records in {seconds:.0f} s, no crash: {shown}")
    for topic in VALID:
        read = poison(topic, arguments.records // 10, seed=1_000)
        shown_read = ", ".join(f"{verdict} {n:,}" for verdict, n in sorted(read.items()))
        print(f"{topic}: {shown_read}")


if __name__ == "__main__":
    main()
