"""The page's state of the pipeline."""

from dashboards.panels.status import live
from dashboards.snapshot import Snapshot
from stream.readside.condition import Fault
from stream.readside.deployment import Deployment
from stream.readside.worker_stats import DeploymentStats

NOW_MS = 1_700_000_000_000
INFO = Deployment(3_600_000, 1, 24, (0.1, 0.5, 0.9), {})


def test_a_worker_that_reports_is_not_enough_to_be_live() -> None:
    """The page is green only without a fault, and names it in red."""
    stats = DeploymentStats(("w",), at_ms=NOW_MS - 400)
    fine = Snapshot(at_ms=NOW_MS, info=INFO, stats=stats)
    faulty = Snapshot(at_ms=NOW_MS, info=INFO, stats=stats, fault=Fault("broker-silent", "silent"))

    assert live(fine, now_ms=NOW_MS)[1::2] == ("Live", "good")
    assert live(faulty, now_ms=NOW_MS) == ("live", "Stale", "silent", "bad")
