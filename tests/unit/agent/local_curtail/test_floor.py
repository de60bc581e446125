"""A site never goes below its minimum load by an order; who stays on is the same each time, and judged safely."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.local_curtail import policy
from agent.local_curtail.floor import MARGIN, Loads, kept_on
from agent.local_curtail.policy import Desired, Limits, Override, decide
from sitelink.types import Verb
from sitelink.units import Watts
from tests.unit.agent.local_curtail.test_policy import FLEET, command, plan, situation, window

ALL = situation(plan=plan(window("c1", 50, 200, ("b", "a", "d", "c"))))


def loads(site_w=None, could=None, **sure):
    most = dict.fromkeys(FLEET, Watts(3500.0))
    return Loads({name: Watts(power) for name, power in sure.items()}, could or {}, most, site_w)


def with_floor(min_w, known, **changes):
    return replace(ALL, limits=Limits(3600.0, Watts(0), min_load_w=Watts(min_w)), loads=known, **changes)


def stays(situation):
    return {one.miner_id for one in decide(situation) if one.reason == policy.MIN_LOAD}


EVEN = dict.fromkeys(FLEET, 3000.0)


@pytest.mark.parametrize(
    ("min_w", "known", "kept"),
    [
        (0, loads(**EVEN), set()),
        (3000, loads(**EVEN), {"c"}),  # the last to be stopped
        (3001, loads(**EVEN), {"c", "d"}),
        (99_999, loads(**EVEN), set(FLEET)),
        (3000, loads(a=3000.0), {"a"}),  # of the others nobody knows what they draw
        (3000, loads(), set(FLEET)),  # nothing is sure: nobody is stopped
        (3000, loads(c=1000.0, d=1500.0, a=3000.0, b=3000.0), {"c", "d", "a"}),
        (3000, loads(site_w=Watts(20_000.0)), set()),  # the meter shows load beside the miners
        (7000, loads(site_w=Watts(20_000.0)), {"c"}),  # 20 less 4 x 3.5 leaves 6
        (7000, replace(loads(site_w=Watts(20_000.0), **EVEN), most_w={}), {"c", "d", "a"}),  # who may draw anything
    ],
)
def test_who_stays_on(min_w, known, kept):
    decided = decide(with_floor(min_w, known))
    assert stays(with_floor(min_w, known)) == kept
    assert {one.miner_id for one in decided if one.verb is Verb.STOP} == set(FLEET) - kept
    assert all((one.order_id, one.verb) == ("c1", Verb.START) for one in decided if one.reason == policy.MIN_LOAD)


def test_who_stays_is_not_let_go_by_a_wavering_figure():
    chosen = decide(with_floor(6000, loads(**EVEN)))
    last = {one.miner_id: one for one in chosen}
    assert stays(with_floor(6000, loads(**EVEN))) == {"c", "d"}
    for a_w in (2900.0, 3200.0, 6200.0):
        later = with_floor(6000, loads(a=a_w, b=a_w, c=3100.0, d=3100.0), last_desired=last)
        assert stays(later) == {"c", "d"}
    doubled = with_floor(6000, loads(a=1.0, b=1.0, c=6301.0, d=3000.0), last_desired=last)
    assert stays(doubled) == {"c"}, "one alone draws the margin more than is needed"


def test_who_was_stopped_comes_back_only_when_the_running_do_not_suffice():
    off = {name: Desired(name, Verb.STOP, "c1", "price") for name in ("b", "a")}
    known = loads(could={"a": Watts(3000.0), "b": Watts(3000.0)}, c=3000.0, d=3000.0)
    some = with_floor(6000, known, last_desired=off, off_s={"a": 9.0, "b": 9.0})
    assert stays(some) == {"c", "d"}
    lost = replace(some, loads=replace(known, sure_w={"c": Watts(3000.0)}))
    assert stays(lost) == {"c", "a"}, "d went off by itself: a was the last to be stopped"


def test_by_hand_and_by_heat_the_floor_is_left():
    by_hand = with_floor(99_999, loads(**EVEN), overrides=(Override("o1", Verb.STOP, frozenset({"a"}), 1),))
    assert {one.miner_id for one in decide(by_hand) if one.verb is Verb.STOP} == {"a"}
    hot = with_floor(99_999, loads(**EVEN), hot=frozenset({"b"}))
    assert {one.miner_id for one in decide(hot) if one.verb is Verb.STOP} == {"b"}


def test_a_command_counts_by_its_place_in_the_fleet():
    ordered = with_floor(3000, loads(**EVEN), plan=None, commands=(command(1, Verb.STOP, ("d", "c", "b", "a")),))
    assert stays(ordered) == {"d"}


watts = st.one_of(st.just(0.0), st.floats(1.0, 9000.0))
names = st.sampled_from([f"m{n}" for n in range(8)])
figures = st.dictionaries(names, watts)


@given(
    st.lists(names, unique=True), st.sets(names), st.sets(names), figures, figures, figures, st.sets(names),
    st.none() | st.floats(0.0, 60_000.0), st.floats(0.0, 40_000.0),
)  # fmt: skip
def test_what_is_left_on_draws_enough_or_nobody_is_stopped(stops, kept, off, sure, could, most, gone, site_w, min_w):
    known = Loads(sure, could, {name: max(most[name], sure.get(name, 0.0)) for name in most}, site_w, frozenset(gone))
    others = {name for name in sure if name not in stops}
    stay = kept_on(stops, others, kept, off, known, Watts(min_w))
    assert stay == kept_on(stops, set(others), set(kept), set(off), known, Watts(min_w))
    assert stay <= set(stops)
    going = [name for name in stops if name not in stay]
    if min_w > 0 and going:
        sure_w = sum(sure.get(name, 0.0) for name in others)
        sure_w += sum(could.get(name, 0.0) if name in off else sure.get(name, 0.0) for name in stay)
        back_w = sum(could.get(name, 0.0) for name in stay if name in gone)
        still = [name for name in going if name not in gone]
        known_most = all(name in known.most_w for name in stops if name not in gone)
        left_w = (site_w or 0.0) + back_w - sum(known.most_w.get(name, 0.0) for name in still) if known_most else 0.0
        by_meter = site_w is not None and known_most and left_w >= min_w - 1e-6
        assert sure_w >= min_w - 1e-6 or by_meter
    for _ in range(3):
        before, stay = stay, kept_on(stops, others, stay, off, known, Watts(min_w))
    assert stay == before, "the same figures come to the same choice"
    assert kept_on(stops, others, stay, off, known, Watts(min_w / (1 + MARGIN))) <= stay
