"""Parts of synthetic shops: clocks, recurring seasons, holidays, counts around a rate, stock."""

import numpy as np
import pytest

from model.durations import DAY_MS, HOUR_MS, MONTH_MS, WEEK_MS
from model.inputs.plans import EVENT, N_PLANS, PRICE, PROMOTION
from model.pretraining.synthetic.campaigns import draw_campaigns, plans_by_bucket
from model.pretraining.synthetic.clock import Clock, make_clock
from model.pretraining.synthetic.demand import draw_demand
from model.pretraining.synthetic.draws import Floats, spells
from model.pretraining.synthetic.features import _sold
from model.pretraining.synthetic.kinds import KINDS, Kind
from model.pretraining.synthetic.level import level_log, life, noise_log
from model.pretraining.synthetic.week import weekly_rate
from model.pretraining.synthetic.year import annual_log, holiday_effect, holidays_of, month_log

SERIES = 12


def rng_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def days(buckets: int, seed: int = 0) -> Clock:
    return make_clock(rng_of(seed), bucket_ms=DAY_MS, buckets=buckets)


def kind_of(name: str) -> Kind:
    return next(kind for kind in KINDS if kind.name == name)


def correlation(a_CS: Floats, b_CS: Floats) -> float:
    return float(np.corrcoef(a_CS.ravel(), b_CS.ravel())[0, 1])


def test_weeks_begin_on_any_day_and_months_are_those_of_the_calendar() -> None:
    """A week has seven days from its start, a nominal month the days of its calendar month."""
    weekdays = {
        int(make_clock(rng_of(seed), bucket_ms=WEEK_MS, buckets=10).weekday_C[0])
        for seed in range(60)
    }
    months = make_clock(rng_of(1), bucket_ms=MONTH_MS, buckets=36)
    first_T = months.day_C[months.first_T].astype("datetime64[D]")

    assert weekdays == set(range(7))
    assert (first_T == first_T.astype("datetime64[M]").astype("datetime64[D]")).all()
    nominal = 1970 * 12 + months.start_ms // MONTH_MS
    assert nominal == first_T[0].astype("datetime64[M]").astype(int) + 1970 * 12
    assert np.allclose(months.mean(np.ones((months.cells, 1), np.float32)), 1.0, atol=0.09)


def test_spells_do_not_overlap_and_fill_the_time_without_gaps() -> None:
    """Every id is one unbroken span of its group; without gaps every step has one."""
    found = spells(rng_of(0), steps=300, groups=5, gap=8.0, length=(2.0, 20.0))
    full = spells(rng_of(1), steps=300, groups=5, gap=0.0, length=(2.0, 9.0))

    for n in range(found.count):
        at_N, group_N = np.nonzero(found.id_TG == n + 1)
        assert set(group_N) == {found.group_N[n]}
        assert at_N[0] == found.start_N[n]
        assert len(at_N) == min(found.length_N[n], 300 - found.start_N[n])
    many = spells(rng_of(2), steps=2_500, groups=2, gap=0.0, length=(1.0, 1.0))
    assert (full.id_TG > 0).all()
    assert (many.id_TG > 0).all()
    after = found.after(np.full(found.count, 5))
    assert not ((after.id_TG > 0) & (found.id_TG > 0)).any()
    assert (after.id_TG > 0).any()


def test_the_week_recurs() -> None:
    """Where the profile does not change, each week is like the one before; its mean is about 1."""
    same = 0
    clock = make_clock(rng_of(0), bucket_ms=HOUR_MS, buckets=24 * 7 * 8)
    quiet_C = np.zeros(clock.cells, np.bool_)
    for seed in range(30):
        rate_CS = weekly_rate(rng_of(seed), kind_of("store"), clock, SERIES, quiet_C)
        assert rate_CS.min() >= 0
        same += bool(np.allclose(rate_CS[:168], rate_CS[-168:], atol=1e-5))
        assert 0.3 < rate_CS.mean() < 2.5
    assert 12 < same < 28  # some change


def test_the_year_recurs_but_no_two_years_are_equal() -> None:
    """Log effects of the season correlate over years, are centred, and differ in strength."""
    clock = days(365 * 3)
    strengths = []
    for seed in range(40):
        log_CS = annual_log(rng_of(seed), kind_of("bookings"), clock, np.arange(SERIES) % 3)
        strengths.append(float(log_CS.std()))
        if strengths[-1] > 0.1:
            assert correlation(log_CS[:365], log_CS[365:730]) > 0.5
    assert min(strengths) == 0
    assert max(strengths) > 0.5


def test_paydays_recur_each_month() -> None:
    """The effect depends on the day of the month, so equal days of two months are close."""
    clock = days(365)
    day_C = clock.day_C.astype("datetime64[D]")
    of_month_C = (day_C - day_C.astype("datetime64[M]")).astype(int)
    found = [month_log(rng_of(seed), clock, SERIES) for seed in range(20)]
    strong = [log_CS for log_CS in found if log_CS.std() > 0.02]

    assert 4 < len(strong) < 18
    for log_CS in strong:
        by_day_D = np.array([log_CS[of_month_C == day].mean() for day in range(28)])
        within = np.mean([log_CS[of_month_C == day, 0].std() for day in range(28)])
        assert within < 3 * by_day_D.std() + 0.05


def test_holidays_close_or_move_the_demand_of_their_days() -> None:
    """A closed shop sells nothing on holidays alone; far from any holiday there is no effect."""
    closed = 0
    clock = days(730)
    for seed in range(30):
        effect = holiday_effect(rng_of(seed), kind_of("wholesale"), clock, SERIES)
        if effect.country is not None and (effect.rate_CS != 1).any():
            off = {d for year in range(1994, 2042) for d in holidays_of(effect.country, year)}
            assert (effect.off_C == np.isin(clock.day_C, list(off))).all()
        zero_C = (effect.rate_CS == 0).any(axis=1)
        assert (effect.off_C | ~zero_C).all()
        closed += bool(zero_C.any())
        near_C = np.convolve(effect.off_C, np.ones(51), "same") > 0
        near_C[:3] = near_C[-25:] = True  # a holiday may be just outside of the window
        assert (effect.rate_CS[~near_C] == 1).all()
    assert closed > 10


def test_levels_and_noise_stay_within_reason() -> None:
    """Levels are centred and bounded, some still, some moving; noise has no trend."""
    clock = days(800)
    spreads, noises = [], []
    for seed in range(30):
        level_TS = level_log(rng_of(seed), kind_of("online"), clock, SERIES)
        noise_TS = noise_log(rng_of(seed), kind_of("online"), clock, SERIES)
        assert np.abs(level_TS).max() < 3
        spreads.append(float(level_TS.std(axis=0).mean()))
        noises.append(float(noise_TS.std(axis=0).mean()))
    assert min(spreads) < 0.15
    assert max(spreads) > 0.4
    assert min(noises) < 0.08
    assert max(noises) > 0.25


def test_series_are_born_and_end() -> None:
    """Some begin late, some end, some pause; most live throughout."""
    clock = days(600)
    alive = np.concatenate(
        [life(rng_of(seed), kind_of("online"), clock, 40) > 0 for seed in range(30)], axis=1
    )

    assert 0.02 < (~alive[0] & alive[-1]).mean() < 0.4  # born within
    assert 0.005 < (alive[0] & ~alive[-1]).mean() < 0.3  # ended within
    assert alive.all(axis=0).mean() > 0.5


@pytest.mark.parametrize("mean", [0.05, 3.0, 400.0])
@pytest.mark.parametrize("name", ["online", "wholesale", "spares", "platform"])
def test_demand_keeps_its_rate(mean: float, name: str) -> None:
    """Counts have the mean of their rate, but for rushes and bulk orders; no rate, no demand."""
    ratios = []
    for seed in range(20):
        rate_TS = np.full((600, SERIES), mean, np.float32)
        rate_TS[::7] = 0
        demand = draw_demand(rng_of(seed), kind_of(name), rate_TS, days=1.0)
        assert not demand.units_TS[::7].any()
        assert ((demand.orders_TS > 0) == (demand.units_TS > 0)).all()
        if demand.whole:
            assert not (demand.units_TS % 1).any()
            ratios.append(float(demand.units_TS.mean() / rate_TS.mean()))

    assert len(ratios) > 10
    assert 0.85 < np.median(ratios) < 1.2


def test_stock_limits_what_is_sold() -> None:
    """Units sold are those wanted, unless the stock ends; what arrives keeps the shop going."""
    rng = rng_of(0)
    wanted_TS = rng.poisson(5.0, (400, SERIES)).astype(np.float32)

    sold_TS, stock_TS, share_TS = _sold(rng, wanted_TS)

    short_TS = sold_TS < wanted_TS
    assert (sold_TS <= wanted_TS).all()
    assert (share_TS[short_TS] > 0).all()
    assert (stock_TS[short_TS] == 1).all()
    assert not (share_TS[sold_TS > 0] == 1).any()
    assert sold_TS[200:].sum() > 0.4 * wanted_TS[200:].sum()
    before_TS, after_TS = stock_TS[:-1] - 1, stock_TS[1:] - 1
    assert (after_TS >= before_TS - sold_TS[1:]).all()


def test_plans_of_weeks_are_shares_of_their_days() -> None:
    """A promotion of two days in a week counts two sevenths; a price needs half of the week."""
    clock = Clock(0, WEEK_MS, np.arange(14), np.zeros(14, np.int64), 1, np.array([0, 7]))
    plan_CGP = np.zeros((14, 1, N_PLANS), np.float32)
    plan_CGP[:2, 0, PROMOTION] = 0.35
    plan_CGP[:3, 0, PRICE] = 9.0
    plan_CGP[7:12, 0, PRICE] = 8.0

    plan_TGP = plans_by_bucket(clock, plan_CGP)

    np.testing.assert_allclose(plan_TGP[:, 0, PROMOTION], [0.1, 0.0], atol=1e-6)
    np.testing.assert_allclose(plan_TGP[:, 0, PRICE], [0.0, 8.0], atol=1e-6)


def test_roll_ups_have_only_the_plans_of_their_whole_scope() -> None:
    """What is announced for everything reaches categories and series; a price never a roll-up."""
    category_S = np.arange(SERIES) % 3
    wide = 0
    for seed in range(40):
        drawn = draw_campaigns(
            rng_of(seed), kind_of("grocery"), days(300), category_S, np.ones(SERIES, np.float32)
        )
        assert (drawn.category_CGP >= drawn.total_CP[:, None]).all()
        assert (drawn.plan_CSP >= drawn.category_CGP[:, category_S])[..., [PROMOTION, EVENT]].all()
        assert not drawn.category_CGP[..., PRICE].any()
        wide += bool(drawn.total_CP.any())
    assert wide > 10
