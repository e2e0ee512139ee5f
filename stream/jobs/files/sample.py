"""The order lines that ship with the package: where they lie, where the demonstration starts.

The files are read like any other (`stream.jobs.files.event_files`); NOTICE.md beside them names the
source, its licence and what was changed. The clicks shown with them are synthetic.
"""

from importlib.resources import files
from pathlib import Path
from typing import Final

from stream.jobs.files.synthetic_clicks import CLICKS_LABEL

#: First instant a demonstration replays, 2011-09-05T00:00Z, a Monday: 21 months of history lie
#: before it, 14 weeks and some 210,000 order lines lie after it.
REPLAY_START_MS: Final = 1_315_180_800_000

ORDERS_LABEL: Final = "real orders, UCI Online Retail II (D. Chen, CC BY 4.0), cleaned"

#: What is said of the inputs wherever they show (`labels` of `sc2:info`).
SAMPLE_LABELS: Final = {"orders": ORDERS_LABEL, "clicks": CLICKS_LABEL}


def _shipped(name: str) -> Path:
    return Path(str(files("stream") / "data" / name))


def sample_catalog() -> Path:
    """Parquet file with one row a SKU of the shipped orders."""
    return _shipped("catalog.parquet")


def is_sample(path: Path) -> bool:
    """Whether `path` is the shipped orders file, however it is written."""
    return path.resolve() == sample_orders().resolve()


def sample_orders() -> Path:
    """Parquet file of the shipped order lines, sorted by time."""
    return _shipped("orders.parquet")
