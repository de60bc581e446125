"""What a new plan owes the old one: slots, spikes, kinship, blocks, merging of classes."""

from datetime import timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cloud.planner.continuity import Window, name_windows, standing
from cloud.planner.document import read_plan, write_plan
from cloud.planner.fleet import MAX_GROUPS, alike
from cloud.planner.model import Limits, Plan, Planned, Price, Rules, Signal, SignalKind, Usd, stop_order
from cloud.planner.replan import Situation, next_plan
from cloud.planner.slots import build_slots
from cloud.planner.spikes import find_spikes, merge_spikes
from sitelink.types import Curtailment, CurtailmentCause, Interval, Ramp
from sitelink.units import UsdPerMegawattHour, Watts
from tests.unit.planner.samples import HASHPRICE, QUARTER, START, miner

NO_RAMP = Ramp(Watts(0.0), 1.0)
LIMITS = Limits(timedelta(minutes=1), NO_RAMP, NO_RAMP, timedelta(minutes=5), timedelta(hours=6))


def price(first: int, value: float, length: int = 1) -> Price:
    return Price(Interval(START + QUARTER * first, START + QUARTER * (first + length)), UsdPerMegawattHour(value))


def planned(
    name: str, first: float, last: float, names: tuple[str, ...], cause: CurtailmentCause = CurtailmentCause.PRICE
) -> Planned:
    window = Interval(START + QUARTER * first, START + QUARTER * last)
    return Planned(Curtailment(name, cause, window, names, NO_RAMP, NO_RAMP), Watts(1.0), START)


def situation(prices: tuple[Price, ...], current: Plan | None = None, count: int = 3, **more: object) -> Situation:
    fields: dict[str, object] = {
        "site_id": "s",
        "now": START,
        "miners": tuple(miner(f"m{n}") for n in range(count)),
        "prices": prices,
        "price_reason": "",
        "signals": (),
        "current": current,
        "rules": Rules(HASHPRICE),
        "limits": LIMITS,
        "horizon": timedelta(hours=36),
    }
    return Situation(**{**fields, **more})  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 8)), max_size=6), st.integers(-3, 20))
def test_slots_touch_start_in_time_and_carry_the_lowest_cap(windows: list[tuple[int, int]], lead: int) -> None:
    signals = [
        Signal(
            str(n),
            "s",
            SignalKind.MUST_SHED,
            Interval(START + QUARTER * a, START + QUARTER * (a + b)),
            Watts(1000.0 * (n + 1)),
            START,
        )
        for n, (a, b) in enumerate(windows)
    ]
    begin = START + QUARTER * lead + timedelta(seconds=7)
    slots = build_slots(begin, timedelta(days=2), [price(n, 50.0) for n in range(0, 30, 2)], signals, Watts(5.0))
    for one, other in pairwise(slots):
        assert one.interval.end == other.interval.start
    if slots:
        assert slots[0].interval.start == begin
    for slot in slots:
        middle = slot.interval.start + slot.interval.duration / 2
        caps = [signal.cap_w for signal in signals if signal.interval.contains(middle) and signal.cap_w is not None]
        assert slot.cap_w == (min(caps) if caps else None)
        known = (middle - START) // QUARTER
        assert (slot.price_usd_per_mwh is None) == (known % 2 == 1 or not 0 <= known < 30)


def test_the_horizon_ends_with_a_market_interval_and_not_with_the_clock() -> None:
    prices = [price(n, 900.0, 1) for n in range(200)]
    ends = {
        build_slots(START + timedelta(seconds=s), timedelta(hours=2), prices, (), Watts(0.0))[-1].interval.end
        for s in range(0, 800, 90)
    }
    assert ends == {START + QUARTER * 8}


def test_a_spike_is_one_signal_from_its_first_to_its_last_interval() -> None:
    seen = START - timedelta(hours=1)
    prices = [(price(n, value), seen + timedelta(minutes=n)) for n, value in enumerate([20, 200, 300, 20, 400])]
    spikes = find_spikes("s", prices, UsdPerMegawattHour(100.0))
    assert [(item.interval, item.received_at) for item in spikes] == [
        (Interval(START + QUARTER, START + QUARTER * 3), seen + timedelta(minutes=1)),
        (Interval(START + QUARTER * 4, START + QUARTER * 5), seen + timedelta(minutes=4)),
    ]
    longer = find_spikes("s", [(price(n, 200), START) for n in (1, 2, 3)], UsdPerMegawattHour(100.0))
    write, withdraw = merge_spikes(spikes, longer)
    assert [(item.signal_id, item.received_at) for item in write] == [(spikes[0].signal_id, spikes[0].received_at)]
    assert withdraw == (spikes[1].signal_id,)
    assert find_spikes("s", prices, None) == ()


def test_a_window_takes_over_the_id_of_its_nearest_kin_and_only_of_its_cause() -> None:
    old = (planned("a", 2, 4, ("m0", "m1")), planned("b", 6, 8, ("m0",), CurtailmentCause.MUST_SHED))
    windows = (
        Window(Interval(START + QUARTER, START + QUARTER * 3), CurtailmentCause.PRICE, (miner("m0"),)),
        Window(Interval(START + QUARTER * 2, START + QUARTER * 4), CurtailmentCause.PRICE, (miner("m0"), miner("m1"))),
        Window(Interval(START + QUARTER * 6, START + QUARTER * 8), CurtailmentCause.PRICE, (miner("m0"),)),
    )
    names = iter(["new1", "new2", "new3"])
    assert [name for _, name, _ in name_windows(windows, old, lambda: next(names))] == ["new1", "a", "new2"]


def test_a_plan_is_sorted_by_what_may_still_be_done_to_it() -> None:
    items = (planned("over", -4, -0.1, ("m0",)), planned("gone", -9, -8, ("m0",)), planned("ending", -2, 0.01, ("m1",)))
    items += (planned("begun", -1, 4, ("m2",)), planned("pending", 3, 4, ("m3",)))
    plan = next_plan(situation(()), lambda: "x")
    current = Plan(**{**{name: getattr(plan, name) for name in plan.__slots__}, "curtailments": items})
    keep = standing(current, START, START + timedelta(minutes=1), timedelta(minutes=5))
    sorted_names = [
        [item.curtailment.curtailment_id for item in group]
        for group in (keep.over, keep.pinned, keep.begun, keep.pending)
    ]
    assert sorted_names == [["over"], ["ending"], ["begun"], ["pending"]]


def test_a_document_is_its_plan() -> None:
    plan = next_plan(situation((price(0, 20), price(1, 500), price(2, 20))), lambda: "c")
    assert len(plan.curtailments) == 1
    assert read_plan(write_plan(plan)) == plan
    assert plan.valid.end >= plan.curtailments[0].curtailment.interval.end + LIMITS.margin


def test_planning_twice_from_the_same_facts_orders_the_same() -> None:
    facts = situation(tuple(price(n, [20, 500, 90, 130, 20, 700][n]) for n in range(6)), count=8)
    ids = iter(str(n) for n in range(100))
    first = next_plan(facts, lambda: next(ids))
    again = next_plan(situation(facts.prices, current=first, count=8), lambda: next(ids))
    assert again.curtailments == first.curtailments


def test_a_plan_starts_no_sooner_than_now_plus_lead() -> None:
    plan = next_plan(situation((price(0, 900), price(1, 900))), lambda: "c")
    assert plan.curtailments[0].curtailment.interval.start == START + LIMITS.lead


def test_miners_stop_least_efficient_first_in_an_order_that_never_wavers() -> None:
    fleet = tuple(miner(f"m{n}", 3000 + 100 * (n % 4), 150.0) for n in range(12))
    plan = next_plan(situation((price(0, 20), price(1, 5000), price(2, 20)), miners=fleet), lambda: "c")
    names = [name for item in plan.curtailments for name in item.curtailment.miner_ids]
    assert names == [item.miner_id for item in sorted(fleet, key=stop_order)]
    assert names[0] == "m11"


def test_many_kinds_of_miner_are_merged_to_what_a_solver_takes() -> None:
    fleet = [miner(f"m{n}", 2000 + 17 * n, 150.0, model=f"M{n % 70}") for n in range(300)]
    groups = alike(fleet, {})
    assert len(groups) <= MAX_GROUPS
    assert sorted(unit[0].miner_id for item in groups for unit in item.units) == sorted(item.miner_id for item in fleet)
    assert Usd(1.0)
