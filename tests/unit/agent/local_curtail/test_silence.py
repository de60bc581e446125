"""What a site does by its own rule: by price, temperature and import cap, and when it cannot know them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.local_curtail import policy
from agent.local_curtail.policy import Desired, decide, fallback_reason
from agent.local_curtail.prices import BadTable, read_prices
from agent.local_curtail.silence import CapRule, DeadMeter, PriceRule, Sights, Steps, TemperatureRule, silence
from sitelink.types import ClockTrust, Fallback, Verb
from sitelink.units import Watts
from tests.unit.agent.local_curtail.test_policy import FLEET, at, plan, situation, verbs, window

ORDER = ("d", "c", "b", "a")
PRICES = PriceRule(Steps(((80.0, 0.5), (150.0, 1.0))))
WARM = TemperatureRule(Steps(((70.0, 0.25), (80.0, 0.75)), back_by=5.0))
LOADS = dict.fromkeys(FLEET, Watts(3500.0))
CAP = CapRule(Watts(10_000.0), Watts(1000.0), Watts(2000.0), 30.0)


@pytest.mark.parametrize(
    ("price", "off", "code"),
    [
        (79.9, "", "prices_low"), (80.0, "dc", "prices_high"), (149.0, "dc", "prices_high"), (-20.0, "", "prices_low"),
        (150.0, "dcba", "prices_high"), (None, "", "prices_unknown_run"),
    ],
)  # fmt: skip
def test_a_price_takes_its_share_of_the_fleet_off_in_its_order(price, off, code):
    said = silence(PRICES, Sights(price_usd_per_mwh=price), ORDER, ())
    assert (said.off, said.code) == (frozenset(off), code)


@pytest.mark.parametrize(("unknown", "off"), [(Fallback.RUN, ""), (Fallback.HOLD, "a"), (Fallback.STOP, "abcd")])
def test_without_a_price_or_a_clock_it_does_what_was_said_for_that(unknown, off):
    rule = replace(PRICES, unknown=unknown)
    for sights, dated in ((Sights(), True), (Sights(price_usd_per_mwh=500.0), False)):
        said = silence(rule, sights, ORDER, ("a", "gone"), dated=dated)
        assert (said.off, said.code) == (frozenset(off), f"prices_unknown_{unknown.value}")


@pytest.mark.parametrize(
    ("temp_c", "standing", "off"),
    [
        (69.9, "", ""), (70.0, "", "d"), (79.0, "d", "d"), (80.0, "d", "dcb"), (75.0, "dcb", "dcb"), (74.9, "dcb", "d"),
        (65.0, "d", "d"), (64.9, "d", ""), (64.9, "dcb", ""), (None, "dc", "dc"),
    ],
)  # fmt: skip
def test_a_temperature_lets_go_only_well_below_its_step(temp_c, standing, off):
    for rule, sights in (
        (WARM, Sights(board_c=temp_c, outside_c=200.0)), (replace(WARM, outside=True), Sights(200.0, outside_c=temp_c)),
    ):  # fmt: skip
        assert silence(rule, sights, ORDER, standing).off == frozenset(off)


@pytest.mark.parametrize(
    ("site_w", "standing", "off", "code"),
    [
        (9_999.0, "", "", "under"), (10_000.0, "", "", "under"), (10_001.0, "", "d", "over"), (14_000.0, "", "dc", "over"),
        (14_000.0, "d", "dcb", "over"), (99_000.0, "", "dcba", "over"), (9_500.0, "dc", "dc", "over"),
        (5_600.0, "dc", "dc", "over"), (5_500.0, "dc", "d", "over"), (2_000.0, "dc", "", "under"),
    ],
)  # fmt: skip
def test_an_import_cap_sheds_until_it_is_kept_and_gives_back_where_there_is_room(site_w, standing, off, code):
    said = silence(CAP, Sights(site_w=Watts(site_w), load_w=LOADS), ORDER, standing)
    assert (said.off, said.code) == (frozenset(off), f"import_cap_{code}")


def test_an_import_cap_waits_for_its_meter_to_show_what_it_did():
    unsettled = Sights(site_w=Watts(99_000.0), load_w=LOADS, settled=False)
    assert silence(CAP, unsettled, ORDER, "d").off == {"d"}


@pytest.mark.parametrize(("dead", "off"), [("nameplate", "dc"), ("run", ""), ("hold", "b"), ("stop", "abcd")])
def test_a_dead_meter_has_a_stated_end(dead, off):
    said = silence(replace(CAP, dead=DeadMeter(dead)), Sights(load_w=LOADS), ORDER, "b")
    assert (said.off, said.code) == (frozenset(off), f"import_cap_meter_dead_{dead}")
    assert silence(CAP, Sights(), ORDER, "").off == set(ORDER), "who may draw anything does not run"
    lying = Sights(load_w=LOADS, liars=frozenset("a"))
    assert silence(CAP, lying, ORDER, "").off == set("acd"), "a liar draws, whatever it was told"


silent = {"now": at(2000), "rule": PRICES, "order": ORDER}


@pytest.mark.parametrize(
    ("changes", "why", "off"),
    [
        ({}, "prices_high_plan_expired", "dc"),
        ({"trust": ClockTrust.HELD}, "prices_high_plan_expired", "dc"),
        ({"trust": ClockTrust.UNTRUSTED}, "prices_unknown_run_clock_untrusted", ""),
        ({"plan": None, "trust": ClockTrust.HELD}, "prices_high_no_plan", "dc"),
        ({"plan": None}, None, ""),
        ({"now": at(100)}, None, "ab"),
        ({"now": at(100), "trust": ClockTrust.HELD}, None, "ab"),
        ({"trust": ClockTrust.UNTRUSTED, "rule": replace(CAP, dead=DeadMeter.STOP)},
         "import_cap_meter_dead_stop_clock_untrusted", "abcd"),
        ({"trust": ClockTrust.UNTRUSTED, "rule": WARM}, "temperature_unknown_hold_clock_untrusted", ""),
        ({"rule": WARM, "sights": Sights(board_c=90.0)}, "temperature_high_plan_expired", "bcd"),
    ],
)  # fmt: skip
def test_when_each_rule_holds_under_each_trust(changes, why, off):
    base = {**silent, "sights": Sights(price_usd_per_mwh=100.0), **changes}
    found = replace(situation(), **base)
    assert fallback_reason(found) == (None if why is None else f"fallback_{why}")
    assert {miner for miner, verb in verbs(decide(found)).items() if verb is Verb.STOP} == set(off)


def test_a_rule_goes_before_the_plans_word_after_its_grace_and_its_end_releases():
    held = replace(situation().plan, fallback=Fallback.STOP)
    ruled = replace(situation(**silent, sights=Sights(price_usd_per_mwh=1.0)), plan=held)
    assert set(verbs(decide(ruled)).values()) == {Verb.START}
    graced = replace(ruled, now=at(1030), grace_s=60.0)
    assert fallback_reason(graced) is None
    off = {"d": Desired("d", Verb.STOP, policy.FALLBACK_ORDER, "fallback_prices_high_plan_expired")}
    released = next(one for one in decide(replace(ruled, last_desired=off)) if one.miner_id == "d")
    assert (released.verb, released.order_id) == (Verb.START, policy.FALLBACK_ORDER)


def test_who_a_limit_keeps_on_still_counts_as_the_rules_so_that_its_steps_do_not_flap():
    kept = {name: Desired(name, Verb.START, policy.FALLBACK_ORDER, policy.MAX_OFF) for name in "d"}
    ruled = replace(situation(now=at(2000), rule=WARM, order=ORDER), sights=Sights(board_c=66.0), last_desired=kept)
    assert fallback_reason(ruled) == "fallback_temperature_high_plan_expired"


rules = st.sampled_from(
    [PRICES, WARM, replace(WARM, outside=True), CAP, *(replace(CAP, dead=dead) for dead in DeadMeter)]
)
figures = st.none() | st.floats(-100.0, 50_000.0)
sights = st.builds(
    lambda price, board, air, site, settled: Sights(price, board, air, site, settled, LOADS),
    figures, figures, figures, figures, st.booleans(),
)  # fmt: skip


@given(rules, sights, st.permutations(ORDER), st.sets(st.sampled_from(ORDER)), st.booleans())
def test_a_rule_is_total_and_the_same_each_time(rule, seen, order, off, dated):
    said = silence(rule, seen, order, off, dated=dated)
    assert said == silence(rule, seen, list(order), set(off), dated=dated)
    assert said.off <= set(order)
    if isinstance(rule, CapRule) and seen.site_w is not None:
        if not seen.settled:
            assert said.off == off
        elif seen.site_w > rule.cap_w:
            assert said.off > off or off == set(order), "over the cap more go off, none comes back"
        else:
            back_w = sum(LOADS[miner] for miner in off - said.off)
            assert said.off <= off
            assert seen.site_w + back_w <= rule.cap_w or not back_w


@given(st.lists(st.floats(0.0, 20_000.0), min_size=1, max_size=30))
def test_a_cap_comes_to_rest_whatever_else_the_site_draws(others):
    """Feedback over many settled looks: miners that draw what they say, beside another load that changes."""
    off: frozenset[str] = frozenset()
    for other_w in others:
        for _ in range(6):
            site_w = other_w + sum(LOADS[miner] for miner in ORDER if miner not in off)
            off, before = silence(CAP, Sights(site_w=Watts(site_w), load_w=LOADS), ORDER, off).off, off
        assert off == before
        site_w = other_w + sum(LOADS[miner] for miner in ORDER if miner not in off)
        assert site_w <= CAP.cap_w or off == set(ORDER)


NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
CHICAGO = ZoneInfo("America/Chicago")


def test_a_daily_table_is_of_its_zone_and_an_hour_without_a_row_has_no_price():
    table = read_prices("hour,price_usd_per_mwh\n7,31.5\n8, -4\n\n", CHICAGO)
    assert table.price_at(NOON) == 31.5
    assert table.price_at(NOON + timedelta(minutes=59, seconds=59)) == 31.5
    assert table.price_at(NOON + timedelta(hours=1)) == -4
    assert table.price_at(NOON + timedelta(hours=2)) is None


def test_a_dated_table_holds_an_hour_at_the_most():
    table = read_prices("start,price_usd_per_mwh\n2026-07-01T07:00,50\n2026-07-01T12:15+00:00,60\n", CHICAGO)
    prices = [table.price_at(NOON + timedelta(minutes=minutes)) for minutes in (-1, 0, 14, 15, 74, 75)]
    assert prices == [None, 50, 50, 60, 60, None]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: write hour"), ("hour,price\n1,2\n", "line 1"), ("hour,price_usd_per_mwh\n", "line 2: write a row"),
        ("hour,price_usd_per_mwh\n24,1\n", "line 2: '24' is no hour"), ("hour,price_usd_per_mwh\n-1,1\n", "no hour"),
        ("hour,price_usd_per_mwh\n1,x\n", "line 2: 'x' is no price"), ("hour,price_usd_per_mwh\n1,nan\n", "no price"),
        ("hour,price_usd_per_mwh\n1,1\n1,2\n", "line 3: 1 stands twice"), ("hour,price_usd_per_mwh\n1\n", "two values"),
        ("start,price_usd_per_mwh\ntoday,1\n", "'today' is no time"),
    ],
)  # fmt: skip
def test_a_broken_table_names_its_line(text, told):
    with pytest.raises(BadTable, match=told):
        read_prices(text, UTC)


def test_the_windows_of_a_plan_in_force_need_no_rule():
    found = situation(plan=plan(window("c1", 50, 200, ("a",))), rule=PRICES, order=ORDER)
    assert verbs(decide(found))["a"] is Verb.STOP
