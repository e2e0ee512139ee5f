"""Paths and labels of the order lines shipped with the package, and the start of the demonstration.

NOTICE.md in the same folder names the source, its licence and the changes. The clicks shown with
the orders are synthetic.
"""

from importlib.resources import files
from pathlib import Path
from typing import Final

from stream.jobs.files.synthetic_clicks import CLICKS_LABEL

#: Start of the demonstration's replay, Monday 2011-09-05T00:00Z: after 21 months of history and
#: before 14 weeks with some 210,000 order lines.
REPLAY_START_MS: Final = 1_315_180_800_000

ORDERS_LABEL: Final = "real orders, UCI Online Retail II (D. Chen, CC BY 4.0), cleaned"

#: Labels shown wherever the inputs appear (`labels` of `sc2:info`).
SAMPLE_LABELS: Final = {"orders": ORDERS_LABEL, "clicks": CLICKS_LABEL}


def _shipped(name: str) -> Path:
    return Path(str(files("stream.jobs.files") / "data" / name))


def sample_catalog() -> Path:
    """Parquet file with one row per SKU of the shipped orders."""
    return _shipped("catalog.parquet")


def is_sample(path: Path) -> bool:
    """True if `path` is the shipped orders file."""
    return path.resolve() == sample_orders().resolve()


def sample_orders() -> Path:
    """Parquet file of the shipped order lines, sorted by time."""
    return _shipped("orders.parquet")
