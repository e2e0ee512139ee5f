"""The HTTP API on a seeded store, through a real server and a plain client."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from redis import Redis

from model.durations import DAY_MS, HOUR_MS
from stream.api.server import serve_api
from stream.errors import UsageError
from stream.features.definitions import N_FEATURES, STOCK, STOCKOUT_SHARE
from stream.features.packed_block import pack_block, unpack_into
from stream.readside.reader import Reader
from stream.settings import ApiSettings, load_settings
from stream.state import keys
from tests.support.api_client import KEY, Api
from tests.support.seeding import Shop, stocked


@pytest.fixture
def shop(redis_client: Redis) -> Shop:
    return stocked(redis_client, days=9, n_series=12, partitions=2)


@pytest.fixture
def api(shop: Shop) -> Iterator[Api]:
    settings = load_settings(api={"keys": [KEY]}).api
    with Api(shop.redis, settings) as api:
        yield api


def quoted(series_id: str) -> str:
    return urllib.parse.quote(series_id, safe="")


def test_a_forecast_equals_the_stored_one(api: Api, shop: Shop) -> None:
    """Units and cumulative units equal the stored rows, for a SKU and for roll-ups."""
    reader = Reader(shop.redis)
    reader.refresh()
    for series_id in (shop.names[3], "total", "category:Garden"):
        stored = reader.forecast(series_id)
        answer = api.get(f"/v1/forecasts/{quoted(series_id)}")

        assert stored is not None
        assert answer["units"] == stored.units_HQ.tolist()
        assert answer["cumulative_units"] == stored.cumulative_HQ.tolist()
        assert answer["origin_ms"] == shop.closed_through_ms
        assert (answer["stale"], answer["nowcast"]) == (False, None)
        assert 0 <= answer["age_ms"] < 60_000


def test_a_forecast_is_limited_to_the_requested_part(api: Api) -> None:
    """A horizon and quantiles select a part; an error names the quantiles that exist."""
    whole = api.get("/v1/forecasts/total")
    part = api.get("/v1/forecasts/total?horizon=3&quantiles=0.9,0.1")

    assert part["quantiles"] == [0.1, 0.9]
    assert part["units"] == [[row[0], row[8]] for row in whole["units"][:3]]
    assert "0.5" in api.problem("/v1/forecasts/total?quantiles=0.55")["detail"]
    assert api.problem("/v1/forecasts/total?horizon=25")["status"] == 422
    assert api.problem("/v1/forecasts/total?horizon=0")["type"].endswith(":invalid-request")


def test_a_batch_returns_each_series_or_lists_it_as_missing(api: Api, shop: Shop) -> None:
    """In the order of the request, each once; more than 1,000 are rejected."""
    requested = [shop.names[5], "nobody", "total", shop.names[5]]
    answer = api.get("/v1/forecasts:batch", {"series_ids": requested, "horizon": 2})

    assert [f["series_id"] for f in answer["forecasts"]] == [shop.names[5], "total"]
    assert {len(f["units"]) for f in answer["forecasts"]} == {2}
    assert answer["missing"] == ["nobody"]
    too_many = {"series_ids": [str(n) for n in range(1_001)]}
    assert api.problem("/v1/forecasts:batch", too_many)["status"] == 422


def test_a_set_is_forecast_as_one(api: Api, shop: Shop) -> None:
    """Its mean is the sum of means; its band is wider than if errors were independent."""
    names = shop.names[:6]
    parts = [api.get(f"/v1/forecasts/{name}") for name in names]
    answer = api.get("/v1/forecasts:sum", {"series_ids": [*names, names[0]], "horizon": 3})

    assert (answer["series"], answer["joint"], answer["stale"]) == (6, True, False)
    assert len(answer["units"]) == len(answer["mean_cumulative"]) == 3
    means = np.sum([part["mean_units"][:3] for part in parts], axis=0)
    np.testing.assert_allclose(answer["mean_units"], means, rtol=1e-6)
    np.testing.assert_allclose(answer["mean_cumulative"], means.cumsum(), rtol=1e-6)
    one = api.get("/v1/forecasts:sum", {"series_ids": names[:1], "quantiles": [0.9, 0.1]})
    assert one["quantiles"] == [0.1, 0.9]
    assert one["units"] == [[row[0], row[8]] for row in parts[0]["units"]]


def test_a_set_names_what_cannot_be_summed(api: Api, shop: Shop) -> None:
    for ids, status, kind in (
        (["total", shop.names[0]], 422, "roll-up-in-set"),
        ([shop.names[0], "nobody"], 404, "unknown-series"),
        ([], 422, "invalid-request"),
    ):
        problem = api.problem("/v1/forecasts:sum", {"series_ids": ids})
        assert problem["status"] == status
        assert problem["type"].endswith(f":{kind}")


def test_pages_of_the_list_cover_every_series_once(api: Api, shop: Shop) -> None:
    """Following the cursor returns each series once, in either sort order."""
    for sort in ("id", "-units"):
        listed: list[str] = []
        path = f"/v1/series?limit=5&sort={sort}"
        cursor = ""
        while True:
            page = api.get(f"{path}&cursor={cursor}" if cursor else path)
            listed += [item["series_id"] for item in page["series"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert sorted(listed) == sorted([*shop.names, *shop.rollups])


def test_roll_ups_are_sorted_by_their_units(api: Api) -> None:
    """The total is first; a series with less than another, roll-up or not, comes after it."""
    listed = api.get("/v1/series?limit=1000&sort=-units")["series"]
    end = api.get("/v1/history/total")["to_ms"]
    path = f"from={end - 8 * DAY_MS}&to={end}"
    units = [
        sum(
            bucket["values"]["units"]
            for bucket in api.get(f"/v1/history/{quoted(item['series_id'])}?{path}")["buckets"]
        )
        for item in listed
    ]

    assert listed[0]["series_id"] == "total"
    assert units == sorted(units, reverse=True)


def test_a_cursor_belongs_to_its_sort(api: Api) -> None:
    cursor = api.get("/v1/series?limit=1&sort=-units")["next_cursor"]

    assert api.get(f"/v1/series?limit=1&sort=-units&cursor={cursor}")["series"]
    problem = api.problem(f"/v1/series?cursor={cursor}")
    assert problem["type"] == "urn:surgecast:problem:invalid-cursor"


def test_a_sku_with_a_comma_can_be_streamed(redis_client: Redis) -> None:
    """A parameter that is a series id is one; others are split at their commas."""
    shop = stocked(redis_client, days=2, n_series=12, partitions=2)
    redis_client.lset(keys.of(0, "series"), 0, "x,y")
    with (
        Api(shop.redis, load_settings(api={"keys": [KEY]}).api) as api,
        api.open(f"/v1/stream?series=x,y&series=total,{shop.names[1]}") as answer,
    ):
        found = {_event(answer)[1]["series_id"] for _ in range(6)}

    assert found == {"x,y", "total", shop.names[1]}


def test_the_list_is_filtered(api: Api, shop: Shop) -> None:
    """Filters: level, category and part of the id."""
    skus = api.get("/v1/series?level=sku&limit=1000")["series"]
    assert sorted(item["series_id"] for item in skus) == sorted(shop.names)
    category = skus[0]["category"]
    members = api.get(f"/v1/series?category={category}&level=sku&limit=1000")["series"]
    expected = [item["series_id"] for item in skus if item["category"] == category]
    assert [item["series_id"] for item in members] == expected
    assert api.get("/v1/series?q=GARD")["series"][0]["series_id"] == "category:Garden"
    assert api.problem("/v1/series?cursor=%21")["type"] == "urn:surgecast:problem:invalid-cursor"


def test_history_accepts_both_time_formats(api: Api, shop: Shop) -> None:
    """Milliseconds and RFC 3339 select the same buckets; the default range is the last week."""
    by_ms = api.get(f"/v1/history/total?from={shop.start_ms}&to={shop.start_ms + 3 * HOUR_MS}")
    text = urllib.parse.urlencode({"from": "2011-11-01T00:00:00Z", "to": "2011-11-01T04:00+01:00"})

    assert len(by_ms["buckets"]) == 3
    assert api.get(f"/v1/history/total?{text}")["buckets"] == by_ms["buckets"]
    assert len(api.get("/v1/history/total")["buckets"]) == 7 * 24
    assert api.problem("/v1/history/total?from=yesterday")["type"].endswith(":invalid-time")
    assert "offset" in api.problem("/v1/history/total?from=2011-11-01T00:00:00")["detail"]


def test_features_are_sums_of_the_history(api: Api, shop: Shop) -> None:
    """Every window is the sum of its closed buckets; the open bucket is separate."""
    features = api.get(f"/v1/features/{shop.names[1]}")
    end = features["as_of_ms"]
    for window, span in (
        ("1h", HOUR_MS),
        ("24h", DAY_MS),
        ("7d", 7 * DAY_MS),
        ("28d", 28 * DAY_MS),
    ):
        buckets = api.get(f"/v1/history/{shop.names[1]}?from={end - span}&to={end}")["buckets"]
        for name, value in features["windows"][window].items():
            assert value == pytest.approx(sum(b["values"][name] for b in buckets), rel=1e-6)
    assert features["open"][0]["bucket_start_ms"] == end
    assert features["trend"]["units_24h"] == features["windows"]["24h"]["units"]


def test_stock_is_returned_only_where_known(api: Api, shop: Shop) -> None:
    """As of the newest closed bucket, with the stockout share of 24 h; null for other series."""
    name, other = shop.names[1], shop.names[2]
    reader = Reader(shop.redis)
    reader.refresh()
    tag, slot = reader.find(name) or (0, 0)
    end = api.get(f"/v1/features/{name}")["as_of_ms"]
    for start, stock, share in ((end - 2 * HOUR_MS, 1, 1.0), (end - HOUR_MS, 9, 0.2)):
        stored: Any = shop.redis.get(keys.of(tag, "closed", start)) or b""
        values_SF = np.zeros((shop.n_series, N_FEATURES), np.float32)
        unpack_into(values_SF, stored)
        values_SF[slot, [STOCK, STOCKOUT_SHARE]] = stock, share
        shop.redis.set(keys.of(tag, "closed", start), pack_block(values_SF))

    features = api.get(f"/v1/features/{name}")
    assert features["stock"] == {"on_hand": 8, "stockout_share_24h": pytest.approx(0.6)}
    assert features["units_winsorised"] <= 1e6
    assert api.get(f"/v1/features/{other}")["stock"] is None
    buckets = api.get(f"/v1/history/{name}?from={end - 2 * HOUR_MS}&to={end}")["buckets"]
    assert [bucket["values"]["on_hand"] for bucket in buckets] == [0, 8]
    buckets = api.get(f"/v1/history/{other}?from={end - HOUR_MS}&to={end}")["buckets"]
    assert "on_hand" not in buckets[0]["values"]


def test_an_unknown_series_is_a_404(api: Api) -> None:
    """Every route about one series returns the same problem."""
    for path in ("forecasts", "history", "features"):
        assert api.problem(f"/v1/{path}/nobody")["type"] == "urn:surgecast:problem:unknown-series"
    assert api.problem("/v1/stream?series=nobody")["status"] == 404
    assert api.problem("/v1/nothing-here")["status"] == 404


def test_every_route_but_health_requires_the_key(api: Api) -> None:
    """A missing and a wrong key are both a 401."""
    for path in ("/v1/series", "/v1/forecasts/total", "/v1/stream?series=total", "/metrics"):
        assert api.problem(path, key=None)["status"] == 401
        assert api.problem(path, key="wrong")["type"] == "urn:surgecast:problem:wrong-key"
    assert api.get("/healthz", key=None) == {"status": "ok"}


def test_without_keys_only_this_machine_is_served(shop: Shop) -> None:
    """A foreign Host header (DNS rebinding) is rejected; a public address requires keys."""
    with Api(shop.redis, ApiSettings()) as api:
        assert api.get("/v1/forecasts/total", key=None)["series_id"] == "total"
        assert api.problem("/v1/series", key=None, Host="evil.example")["status"] == 403
    with pytest.raises(UsageError, match="SURGECAST_API__KEYS"):
        serve_api(load_settings(api={"host": "0.0.0.0"}))


def test_ready_only_with_a_worker(api: Api, shop: Shop) -> None:
    """Without a worker the API is not ready, but still answers."""
    shop.flush()
    assert api.get("/readyz", key=None)["status"] == "ready"

    shop.redis.delete(keys.stats("seeded"))
    api.expire_reader()

    assert api.problem("/readyz", key=None)["type"] == "urn:surgecast:problem:no-worker"
    assert api.get("/v1/forecasts/total")["units"]


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"broker_ms": -30_000}, "broker-silent"),
        ({"as_of_ms": {"0": -30_000, "1": 0}}, "input-behind"),
        ({"partitions": [0]}, "worker-silent"),
        ({"refusing": ["orders"]}, "everything-refused"),
    ],
)
def test_not_ready_names_what_is_wrong(
    api: Api, shop: Shop, changed: dict[str, Any], kind: str
) -> None:
    """A worker that reports is not enough; ready again once the fault has passed."""
    report = json.loads(shop.redis.get(keys.stats("seeded")))
    now_ms = time.time_ns() // 1_000_000
    report |= {"at_ms": now_ms, "broker_ms": now_ms, "as_of_ms": {"0": now_ms, "1": now_ms}}
    wrong = report | {
        name: {p: now_ms + ago for p, ago in value.items()}
        if isinstance(value, dict)
        else now_ms + value
        if isinstance(value, int)
        else value
        for name, value in changed.items()
    }
    shop.redis.set(keys.stats("seeded"), json.dumps(wrong))
    api.expire_reader()
    assert api.problem("/readyz", key=None)["type"] == f"urn:surgecast:problem:{kind}"

    shop.redis.set(keys.stats("seeded"), json.dumps(report))
    api.expire_reader()
    assert api.get("/readyz", key=None)["status"] == "ready"


def test_counters_do_not_fall_when_a_worker_stops(api: Api, shop: Shop) -> None:
    """They are those of the store."""
    shop.redis.hset(keys.of(0, "meta"), mapping={"count:orders:counted": 7})
    shop.redis.hset(keys.totals(), mapping={"forecasts": 9})
    for _ in range(2):
        api.expire_reader()
        with api.open("/metrics") as answer:
            text = answer.read().decode()
        assert 'surgecast_events_total{topic="orders",verdict="counted"} 7.0' in text
        assert "surgecast_forecasts_total 9.0" in text
        shop.redis.delete(keys.stats("seeded"))


def test_metrics_are_the_workers(api: Api, shop: Shop) -> None:
    """The Prometheus page has the workers' verdict counters and watermark."""
    shop.flush()
    api.expire_reader()
    with api.open("/metrics") as answer:
        text = answer.read().decode()

    assert 'surgecast_events_total{topic="orders",verdict="duplicate"} 41.0' in text
    assert "surgecast_watermark_seconds 1.32" in text


def test_accuracy_totals_the_stored_scores(api: Api, shop: Shop) -> None:
    """Partitions are pooled, `all` excludes roll-ups, and rows by step are optional."""
    shop.write_scores(loss=0.25, naive=0.4, covered=0.79)

    answer = api.get("/v1/accuracy?days=2")

    assert (answer["to_ms"] - answer["from_ms"], answer["nominal_coverage"]) == (2 * DAY_MS, 0.8)
    assert not answer["calibrated"]
    rows = {(row["volume"], row["step"]): row for row in answer["rows"]}
    assert list(rows) == [("all", None), ("high", None)]
    assert rows["all", None] == rows["high", None] | {"volume": "all"}
    row = rows["high", None]
    assert row["model_id"] == shop.model_id
    assert row["labels"] == 10 * shop.horizon * shop.partitions
    expected = {"wql": 0.25, "naive_wql": 0.4, "wql_beside_naive": 0.25, "bias": -0.1}
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert row["coverage"] == pytest.approx(0.79)
    steps = api.get("/v1/accuracy?days=2&steps=true")["rows"]
    assert [row["step"] for row in steps if row["volume"] == "high"] == [
        None,
        *range(1, shop.horizon + 1),
    ]
    with api.open("/metrics") as metrics:
        text = metrics.read().decode()
    assert f'surgecast_wql{{model_id="{shop.model_id}",volume="high"}} 0.25' in text


def test_accuracy_before_any_forecast_has_come_due(api: Api) -> None:
    assert api.get("/v1/accuracy")["rows"] == []


def test_a_listener_receives_every_change(api: Api, shop: Shop) -> None:
    """First the current state, then newer buckets and forecasts; a disconnect is noticed."""
    with api.open(f"/v1/stream?series=total,{shop.names[0]}") as answer:
        kinds = [_event(answer)[0] for _ in range(4)]
        assert sorted(kinds) == ["bucket", "bucket", "forecast", "forecast"]

        shop.close()
        received: dict[tuple[str, str], Any] = {}
        while ("total", "forecast") not in received or ("total", "bucket") not in received:
            kind, body = _event(answer)
            received[body["series_id"], kind] = body

    assert received["total", "forecast"]["origin_ms"] == shop.closed_through_ms
    assert received["total", "bucket"]["bucket_start_ms"] == shop.closed_through_ms
    listeners = api.app.state.listeners
    deadline = time.monotonic() + 30
    while listeners and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not listeners


def _event(answer: Any) -> tuple[str, Any]:
    kind, data = answer.readline().decode(), answer.readline().decode()
    answer.readline()
    return kind.removeprefix("event: ").strip(), json.loads(data.removeprefix("data: "))


def test_an_unreachable_store_is_a_503() -> None:
    """The problem is retriable and names the reason."""
    with (
        Redis(port=1, socket_connect_timeout=0.2) as unreachable,
        Api(unreachable, ApiSettings()) as api,
    ):
        problem = api.problem("/v1/series", key=None)

    assert (problem["status"], problem["type"]) == (503, "urn:surgecast:problem:store-unavailable")


def test_the_reference_loads_nothing_from_other_sites(api: Api) -> None:
    """`/docs` lists every route and has no scripts or external links."""
    with api.open("/docs", key=None) as answer:
        page = answer.read().decode()
    paths = api.get("/openapi.json", key=None)["paths"]

    assert all(path in page for path in paths)
    assert "<script" not in page
    assert "https://" not in page
