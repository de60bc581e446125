from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from agent.local_curtail import policy
from agent.local_curtail.policy import Desired, Limits, Override, Situation, decide
from sitelink.types import (
    ClockTrust,
    Command,
    Curtailment,
    CurtailmentCause,
    Fallback,
    Interval,
    Ramp,
    SitePlan,
    Verb,
)
from sitelink.units import Watts

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
FLEET = ("a", "b", "c", "d")
LIMITS = Limits(3600.0, Watts(0))


def at(seconds):
    return T0 + timedelta(seconds=seconds)


def window(name, start, end, miners):
    ramp = Ramp(Watts(0), 0.0)
    return Curtailment(name, CurtailmentCause.PRICE, Interval(at(start), at(end)), miners, ramp, ramp)


def plan(*windows, end=1000, fallback=Fallback.RUN):
    return SitePlan("p", "s", "a", 1, 1, 1, T0, Interval(T0, at(end)), fallback, windows)


def command(sequence, verb, miners, start=0, end=500, epoch=1):
    return Command(f"k{epoch}-{sequence}", "s", "a", epoch, sequence, at(start), at(end), verb, miners, "why")


def situation(**changes):
    fresh = Situation(at(100), ClockTrust.SYNCED, FLEET, LIMITS, plan(window("c1", 50, 200, ("a", "b"))))
    return replace(fresh, **changes)


def verbs(decided):
    return {wanted.miner_id: wanted.verb for wanted in decided}


def stopped(*miners, order="c1", reason="price"):
    return {miner: Desired(miner, Verb.STOP, order, reason) for miner in miners}


miners = st.lists(st.sampled_from(FLEET), unique=True).map(tuple)
some_windows = st.lists(
    st.tuples(st.integers(0, 300), st.integers(1, 300), miners), max_size=3
).map(lambda spans: [window(f"c{n}", start, start + length, ids) for n, (start, length, ids) in enumerate(spans)])  # fmt: skip
plans = st.none() | st.builds(
    lambda windows, end, fallback: plan(*windows, end=end, fallback=fallback),
    some_windows, st.integers(1, 800), st.sampled_from(Fallback),
)  # fmt: skip
commands = st.lists(
    st.builds(
        lambda n, verb, ids, start, length: command(n, verb, ids, start, start + length),
        st.integers(1, 99), st.sampled_from(Verb), miners, st.integers(0, 300), st.integers(1, 300),
    ), max_size=3,
).map(tuple)  # fmt: skip
overrides = st.lists(
    st.builds(
        lambda n, verb, ids: Override(f"o{n}", verb, None if ids is None else frozenset(ids), n),
        st.integers(1, 99), st.sampled_from([Verb.STOP, Verb.START]), st.none() | miners,
    ), max_size=2,
).map(tuple)  # fmt: skip
lasts = st.dictionaries(st.sampled_from(FLEET), st.sampled_from(list(Verb)[:2])).map(
    lambda found: {name: Desired(name, verb, "c0", "price") for name, verb in found.items()}
)
situations = st.builds(
    lambda now, trust, never, held, over, orders, last, off, mode: Situation(
        at(now), trust, FLEET, Limits(3600.0, Watts(0), frozenset(never)), held, over, orders, mode, 0.0, 0.0, last, off
    ),
    st.integers(0, 900), st.sampled_from(ClockTrust), miners, plans, overrides, commands, lasts,
    st.dictionaries(st.sampled_from(FLEET), st.floats(0, 9000)), st.sampled_from(Fallback),
)  # fmt: skip


@given(situations)
def test_every_miner_gets_one_answer_and_never_touch_is_only_ever_released(drawn):
    decided = decide(drawn)
    assert len({wanted.miner_id for wanted in decided}) == len(decided)
    answered = {wanted.miner_id for wanted in decided}
    assert set(FLEET) - set(drawn.limits.never_touch) <= answered <= set(FLEET)
    for wanted in decided:
        assert wanted.verb in {Verb.STOP, Verb.START}
        assert wanted.order_id or wanted.verb is Verb.START
        if wanted.miner_id in drawn.limits.never_touch:
            assert wanted.verb is Verb.START
    assert decide(drawn) == decided


@given(situations)
def test_without_any_order_nothing_stays_off(drawn):
    bare = replace(drawn, plan=None, commands=(), overrides=(), fallback=Fallback.RUN)
    assert all(wanted.verb is Verb.START for wanted in decide(bare))


@given(situations)
def test_past_the_last_release_every_miner_is_started(drawn):
    late = replace(drawn, now=at(100_000), trust=ClockTrust.SYNCED, overrides=(), fallback=Fallback.RUN)
    held = None if late.plan is None else replace(late.plan, valid=Interval(T0, at(200_000)))
    assert all(wanted.verb is Verb.START for wanted in decide(replace(late, plan=held)))


@given(situations)
def test_no_order_but_a_technicians_keeps_a_miner_off_past_its_limit(drawn):
    for wanted in decide(replace(drawn, off_s=dict.fromkeys(FLEET, 3600.0))):
        assert wanted.verb is Verb.START or wanted.reason == policy.OVERRIDE


def test_a_window_stops_its_miners_and_its_end_releases_them_under_the_same_order():
    assert verbs(decide(situation())) == {"a": Verb.STOP, "b": Verb.STOP, "c": Verb.START, "d": Verb.START}
    released = decide(situation(now=at(200), last_desired=stopped("a", "b")))
    assert [(wanted.verb, wanted.order_id) for wanted in released[:2]] == [(Verb.START, "c1")] * 2


def test_a_held_clock_follows_the_plan_and_an_untrusted_one_does_not():
    assert verbs(decide(situation(trust=ClockTrust.HELD)))["a"] is Verb.STOP
    blind = situation(trust=ClockTrust.UNTRUSTED)
    assert verbs(decide(blind))["a"] is Verb.START
    assert policy.fallback_reason(blind) == policy.RUN_CLOCK_UNTRUSTED


def test_the_plans_own_fallback_goes_before_the_sites():
    held = replace(situation().plan, fallback=Fallback.STOP)
    decided = decide(situation(plan=held, trust=ClockTrust.UNTRUSTED))
    assert {(wanted.verb, wanted.order_id) for wanted in decided} == {(Verb.STOP, "fallback")}
    assert all(wanted.verb is Verb.STOP for wanted in decide(situation(plan=held, now=at(1000))))


def test_hold_keeps_what_was_until_the_grace_is_over():
    blind = situation(
        trust=ClockTrust.UNTRUSTED, grace_s=60.0, untrusted_s=30.0, last_desired=stopped("a"), off_s={"a": 5.0}
    )
    assert verbs(decide(blind)) == {"a": Verb.STOP, "b": Verb.START, "c": Verb.START, "d": Verb.START}
    assert policy.fallback_reason(blind) is None
    assert verbs(decide(replace(blind, untrusted_s=60.0)))["a"] is Verb.START


def test_hold_stops_nobody_whose_stop_was_not_sent_yet():
    blind = situation(
        trust=ClockTrust.UNTRUSTED, grace_s=60.0, untrusted_s=30.0, last_desired=stopped("a", "b"), off_s={"a": 5.0}
    )
    a, b, *_ = decide(blind)
    assert (a.verb, a.order_id) == (Verb.STOP, "c1")
    assert (b.verb, b.order_id, b.reason) == (Verb.START, "c1", policy.GRACE)


def test_commands_go_before_the_plan_and_the_latest_wins():
    orders = (
        command(3, Verb.STOP, ("c",)),
        command(2, Verb.START, ("a", "c")),
        command(9, Verb.REBOOT, ("d",)),
        command(8, Verb.LIMIT, ("b",)),
    )
    assert verbs(decide(situation(commands=orders))) == {
        "a": Verb.START, "b": Verb.STOP, "c": Verb.STOP, "d": Verb.START,
    }  # fmt: skip
    newer_epoch = (*orders, command(1, Verb.START, ("c",), epoch=2))
    assert verbs(decide(situation(commands=newer_epoch)))["c"] is Verb.START
    assert verbs(decide(situation(now=at(500), commands=orders)))["c"] is Verb.START


def test_an_override_goes_before_everything_but_never_touch():
    over = (Override("o1", Verb.START, None, 1), Override("o2", Verb.STOP, frozenset({"d"}), 2))
    orders = (command(3, Verb.STOP, ("c",)),)
    assert verbs(decide(situation(commands=orders, overrides=over))) == {
        "a": Verb.START, "b": Verb.START, "c": Verb.START, "d": Verb.STOP,
    }  # fmt: skip
    untouchable = replace(LIMITS, never_touch=frozenset({"d"}))
    assert "d" not in verbs(decide(situation(overrides=over, limits=untouchable)))


def test_a_miner_off_too_long_stays_on_for_the_rest_of_that_order():
    first = decide(situation(off_s={"a": 3600.0}))
    assert (first[0].verb, first[0].reason) == (Verb.START, policy.MAX_OFF)
    again = decide(situation(last_desired={"a": first[0]}))
    assert again[0] == first[0]


def test_what_the_site_does_not_allow_is_not_followed_though_it_was_taken_before():
    barred = replace(LIMITS, allowed_verbs=frozenset(Verb) - {Verb.STOP})
    held = situation(commands=(command(3, Verb.STOP, ("c",)),), last_desired=stopped("a", "b"))
    assert Verb.STOP in verbs(decide(held)).values()
    assert set(verbs(decide(replace(held, limits=barred))).values()) == {Verb.START}


heats = st.builds(
    lambda drawn, hot, suspect: replace(drawn, hot=frozenset(hot), suspect=frozenset(suspect)),
    situations,
    miners,
    miners,
)


@given(heats)
def test_who_is_too_hot_is_never_started_and_its_stop_is_no_curtailments(drawn):
    for wanted in decide(drawn):
        last = drawn.last_desired.get(wanted.miner_id)
        if wanted.miner_id in drawn.hot and wanted.miner_id not in drawn.limits.never_touch:
            assert wanted.verb is Verb.STOP
            off_already = last is not None and last.order_id == wanted.order_id and wanted.miner_id in drawn.off_s
            assert off_already or (wanted.order_id, wanted.reason) == (policy.HEAT_ORDER, policy.TOO_HOT)
        elif wanted.reason == policy.TOO_HOT:
            assert last is not None and last.reason == policy.TOO_HOT


def test_one_held_for_heat_stays_under_heat_when_its_window_opens_and_joins_it_once_cool():
    under_heat = {"a": Desired("a", Verb.STOP, policy.HEAT_ORDER, policy.TOO_HOT)}
    held = situation(hot=frozenset({"a"}), last_desired=under_heat, off_s={"a": 9.0})
    assert decide(held)[0] == under_heat["a"]
    assert decide(replace(held, now=at(300)))[0] == under_heat["a"]
    assert decide(replace(held, hot=frozenset()))[0].order_id == "c1"
    freed = decide(replace(held, hot=frozenset(), now=at(300)))[0]
    assert (freed.verb, freed.order_id) == (Verb.START, policy.HEAT_ORDER)


def test_one_that_may_be_too_hot_is_not_started_before_it_is_looked_at_again():
    off = situation(now=at(200), last_desired=stopped("a", "b"), off_s={"a": 9.0, "b": 9.0}, suspect=frozenset({"a"}))
    assert verbs(decide(off)) == {"a": Verb.STOP, "b": Verb.START, "c": Verb.START, "d": Verb.START}
    runs = situation(now=at(200), suspect=frozenset({"a"}))
    assert verbs(decide(runs))["a"] is Verb.START


def test_one_stopped_under_a_ramp_that_has_not_come_to_it_is_stopped_for_heat_at_once():
    waiting = situation(hot=frozenset({"a"}), last_desired=stopped("a"))
    assert decide(waiting)[0] == Desired("a", Verb.STOP, policy.HEAT_ORDER, policy.TOO_HOT)
    sent = replace(waiting, off_s={"a": 1.0})
    assert decide(sent)[0].order_id == "c1"


def test_a_miner_off_for_heat_too_long_is_still_held():
    last = {"a": Desired("a", Verb.STOP, policy.HEAT_ORDER, policy.TOO_HOT)}
    assert decide(situation(hot=frozenset({"a"}), last_desired=last, off_s={"a": 1e6}))[0].verb is Verb.STOP
