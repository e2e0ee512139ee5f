"""Plans: what is refused, what is kept, whom they are for, and what holds where they overlap."""

from typing import Any

import numpy as np
import pytest

from model.durations import HOUR_MS
from model.inputs.plans import CLOSURE, EVENT, PRICE, PROMOTION, Plans
from stream.decoding.plans import Plan, PlanDecoder
from stream.ingest.restore import restore
from stream.partition.partition import Partition
from stream.serving.plan_blocks import PlanScopes, plan_block
from stream.settings import WindowSettings
from tests.support.batches import batch
from tests.support.memory_store import MemoryStore

SERIES = [
    "A", "A@Bonn", "B@Bonn", "B@Ulm", "C", "total", "category:Bags", "category:Toys",
    "location:Bonn",
]  # fmt: skip
CATEGORIES = {"A": "Bags", "B": "Bags", "C": "Toys"}


def record(**changes: Any) -> dict[str, Any]:
    """A plan of the contract."""
    plain = {
        "plan_id": "p", "kind": "promotion", "start": 0, "end": 2 * HOUR_MS,
        "sku": "A", "value": 0.3,
    }  # fmt: skip
    return {name: value for name, value in (plain | changes).items() if value is not ...}


def read(*values: Any, keys: list[Any] | None = None) -> tuple[dict[str, Plan | None], list[str]]:
    """Plans after a batch, and the reasons of refusals."""
    named = [value["plan_id"].encode() if isinstance(value, dict) else b"p" for value in values]
    announced = PlanDecoder(locations=("Bonn", "Ulm")).read(
        batch("plans", list(values), keys=named if keys is None else keys)
    )
    return dict(announced.accepted), [one.reason for one in announced.refused]


def block(*plans: Plan, series: list[str] = SERIES, buckets: int = 3) -> Plans | None:
    """Plan inputs of the first hours of 1970."""
    scopes = PlanScopes()
    scopes.grow(series)
    return plan_block(
        plans, scopes, CATEGORIES, start_ms=0, bucket_ms=HOUR_MS, buckets=buckets
    )  # fmt: skip


def meant(**scope: str) -> set[str]:
    """Names of the series an event is for."""
    made = block(Plan("p", "event", 0, HOUR_MS, **scope))  # type: ignore[arg-type]  # names
    return set() if made is None else {SERIES[row] for row in made.rows_N.tolist()}


def held(made: Plans | None, name: str, column: int) -> list[float]:
    """One column of a series' plans, bucket by bucket."""
    assert made is not None
    values = made.dense(len(SERIES))[:, SERIES.index(name), column]
    return [round(float(value), 6) for value in values]


# -- records --------------------------------------------------------------------------------------


def test_a_plan_is_read_as_the_contract_says() -> None:
    known, refused = read(
        record(start="1970-01-01T00:00:00Z"),
        record(plan_id="q", kind="closure", sku=..., location="Bonn", value=...),
        record(plan_id="r", kind="price", sku=..., category="Bags", value=4, more="is ignored"),
    )

    assert refused == []
    assert known == {
        "p": Plan("p", "promotion", 0, 2 * HOUR_MS, sku="A", value=0.3),
        "q": Plan("q", "closure", 0, 2 * HOUR_MS, location="Bonn"),
        "r": Plan("r", "price", 0, 2 * HOUR_MS, category="Bags", value=4.0),
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"plan_id": ""}, "missing_plan_id"),
        ({"kind": "sale"}, "unknown_kind"),
        ({"start": ...}, "missing_field"),
        ({"start": "yesterday"}, "invalid_timestamp"),
        ({"start": -1}, "invalid_timestamp"),
        ({"end": 2**60}, "invalid_timestamp"),
        ({"end": 0}, "invalid_span"),
        ({"category": "Bags"}, "ambiguous_scope"),
        ({"sku": "total"}, "invalid_sku"),
        ({"sku": ..., "category": ""}, "invalid_category"),
        ({"location": "Rome"}, "unknown_location"),
        ({"value": ...}, "missing_field"),
        ({"value": 0}, "out_of_range"),
        ({"value": 1.01}, "out_of_range"),
        ({"value": "much"}, "wrong_type"),
        ({"kind": "price", "value": -3}, "out_of_range"),
        ({"kind": "event"}, "unexpected_value"),
    ],
)
def test_an_invalid_plan_is_refused(changes: dict[str, Any], reason: str) -> None:
    assert read(record(**changes)) == ({}, [reason])


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (None, record(), "null_key"),
        (b"another", record(), "key_mismatch"),
        (b"p", b"{", "malformed_json"),
        (None, None, "null_key"),
    ],
)
def test_a_record_without_its_key_or_text_is_refused(key: Any, value: Any, reason: str) -> None:
    assert read(value, keys=[key]) == ({}, [reason])


def test_the_newest_record_replaces_and_a_tombstone_withdraws() -> None:
    known, _ = read(
        record(), record(value=0.5), record(plan_id="q"), None, keys=[b"p", b"p", b"q", b"q"]
    )

    assert known == {"p": Plan("p", "promotion", 0, 2 * HOUR_MS, sku="A", value=0.5), "q": None}


# -- the table of a partition ---------------------------------------------------------------------


async def test_a_partition_keeps_its_plans_and_drops_those_beyond_retention() -> None:
    """A restored partition has them; a plan that ends before the oldest bucket is dropped."""
    store = MemoryStore()
    window = WindowSettings(allowed_lateness=0)
    partition = Partition(0, window, retention_ms=10 * HOUR_MS)
    token = await store.acquire(0)
    partition.state.plans.take("old", Plan("old", "event", 0, 5 * HOUR_MS))
    partition.state.plans.take("new", Plan("new", "event", 0, 50 * HOUR_MS))
    partition.state.plans.take("gone", Plan("gone", "event", 0, 50 * HOUR_MS))
    partition.state.plans.take("gone", None)
    await store.apply(0, token, partition.state.take_write()[0])
    heir = await restore(store, 0, window, retention_ms=10 * HOUR_MS)
    first = await store.meta(0)
    assert len(heir.state.plans) == 2

    heir.close_through(4 * HOUR_MS)
    heir.close_through(30 * HOUR_MS)
    await store.apply(0, token, heir.state.take_write()[0])

    assert len(heir.state.plans) == 1
    last = await restore(store, 0, window, retention_ms=10 * HOUR_MS)
    assert [plan.plan_id for plan in last.state.plans.read(last.state.plans.stored())] == ["new"]
    assert (await store.meta(0))["plans"] != first["plans"]


async def test_plans_that_do_not_change_are_not_written_again() -> None:
    partition = Partition(0, WindowSettings(), retention_ms=10 * HOUR_MS)
    partition.state.plans.take("p", Plan("p", "event", 0, HOUR_MS))
    assert ("plans",) in partition.state.take_write()[0].puts

    partition.state.plans.take("p", Plan("p", "event", 0, HOUR_MS))
    assert ("plans",) not in partition.state.take_write()[0].puts


def test_a_partition_that_never_had_a_plan_stores_none() -> None:
    partition = Partition(0, WindowSettings(), retention_ms=10 * HOUR_MS)
    partition.state.moved_to("orders", 1)

    plan, _ = partition.state.take_write()

    assert plan.puts == {}
    assert "plans" not in plan.meta


# -- whom a plan is for ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "names"),
    [
        ({"sku": "A"}, {"A", "A@Bonn"}),
        ({"sku": "B", "location": "Ulm"}, {"B@Ulm"}),
        ({"sku": "C", "location": "Ulm"}, set()),
        ({"sku": "unknown"}, set()),
        ({"category": "Bags"}, {"A", "A@Bonn", "B@Bonn", "B@Ulm", "category:Bags"}),
        ({"category": "Bags", "location": "Bonn"}, {"A@Bonn", "B@Bonn"}),
        ({"location": "Bonn"}, {"A@Bonn", "B@Bonn", "location:Bonn"}),
        ({}, set(SERIES)),
    ],
)
def test_a_plan_applies_to_the_series_of_its_scope(scope: dict[str, str], names: set[str]) -> None:
    assert meant(**scope) == names


def test_a_new_price_applies_to_no_roll_up() -> None:
    everything = block(Plan("p", "price", 0, HOUR_MS, value=3.0))
    bags = block(Plan("p", "price", 0, HOUR_MS, category="Bags", value=3.0))

    assert everything is not None
    assert bags is not None
    assert [SERIES[row] for row in everything.rows_N] == SERIES[:5]
    assert [SERIES[row] for row in bags.rows_N] == SERIES[:4]


def test_series_that_join_later_have_the_plans_too() -> None:
    scopes = PlanScopes()
    scopes.grow(["A"])
    assert scopes.extends(["A", "A@Bonn"])
    assert not scopes.extends(["B"])
    scopes.grow(["A", "A@Bonn"])

    assert scopes.rows(Plan("p", "event", 0, 1, sku="A"), {}).tolist() == [0, 1]


# -- what holds ------------------------------------------------------------------------------------


def test_the_strongest_of_overlapping_plans_applies() -> None:
    made = block(
        Plan("a", "promotion", 0, 2 * HOUR_MS, sku="A", value=0.2),
        Plan("b", "promotion", HOUR_MS, 3 * HOUR_MS, category="Bags", value=0.5),
        Plan("c", "promotion", 0, 3 * HOUR_MS, value=0.1),
        Plan("d", "price", 0, 2 * HOUR_MS, sku="A", value=4.0),
        Plan("e", "price", HOUR_MS, 3 * HOUR_MS, sku="A", value=3.0),
    )

    assert held(made, "A", PROMOTION) == [0.2, 0.5, 0.5]
    assert held(made, "C", PROMOTION) == [0.1, 0.1, 0.1]
    assert held(made, "category:Bags", PROMOTION) == [0.1, 0.5, 0.5]
    assert held(made, "A", PRICE) == [4.0, 3.0, 3.0]


def test_a_bucket_counts_by_the_share_a_plan_covers() -> None:
    made = block(
        Plan("a", "promotion", HOUR_MS // 2, 2 * HOUR_MS + HOUR_MS // 4, sku="A", value=0.4),
        Plan("b", "closure", -5 * HOUR_MS, HOUR_MS // 2, sku="A"),
        Plan("c", "event", 2 * HOUR_MS, 90 * HOUR_MS, sku="A"),
        Plan("d", "price", HOUR_MS // 2, 2 * HOUR_MS + HOUR_MS // 4, sku="A", value=9.0),
    )

    assert held(made, "A", PROMOTION) == [0.2, 0.4, 0.1]
    assert held(made, "A", CLOSURE) == [0.5, 0.0, 0.0]
    assert held(made, "A", EVENT) == [0.0, 0.0, 1.0]
    assert held(made, "A", PRICE) == [9.0, 9.0, 0.0]


def test_plans_of_other_times_or_series_are_left_out() -> None:
    before = Plan("a", "event", -HOUR_MS, 0)
    behind = Plan("b", "event", 3 * HOUR_MS, 4 * HOUR_MS)
    elsewhere = Plan("c", "event", 0, HOUR_MS, sku="unknown")

    assert block(before, behind, elsewhere) is None


def test_plans_by_the_bucket_are_those_of_the_whole_span() -> None:
    """Bucket by bucket they equal those read in one span."""
    rng = np.random.default_rng(0)
    plans = []
    for number in range(30):
        start = int(rng.integers(0, 20 * HOUR_MS))
        plans.append(
            Plan(
                str(number), "promotion", start, start + int(rng.integers(1, 9 * HOUR_MS)),
                sku=str(rng.choice(["A", "B", "C"])), value=float(rng.random()),
            )
        )  # fmt: skip
    scopes = PlanScopes()
    scopes.grow(SERIES)
    whole = plan_block(plans, scopes, {}, start_ms=0, bucket_ms=HOUR_MS, buckets=24)
    assert whole is not None
    for t in range(24):
        one = plan_block(plans, scopes, {}, start_ms=t * HOUR_MS, bucket_ms=HOUR_MS, buckets=1)
        alone_SP = np.zeros((len(SERIES), 4)) if one is None else one.dense(len(SERIES))[0]
        np.testing.assert_array_equal(alone_SP, whole.dense(len(SERIES))[t])
