"""What the policy decides, branch by branch, and that it decides for any situation."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.local_curtail import policy
from agent.local_curtail.policy import Desired, Limits, Override, Situation, decide, fallback_reason
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
from tests.unit.sitelink.samples import NOON

FLEET = ("a", "b", "c")
MINUTE = timedelta(minutes=1)
RAMP = Ramp(Watts(0), 1.0)
WINDOW = Curtailment("cur", CurtailmentCause.PRICE, Interval(NOON, NOON + 10 * MINUTE), ("a", "b"), RAMP, RAMP)
PLAN = SitePlan(
    "p", "s", "g", 1, 1, 1, NOON - MINUTE, Interval(NOON - MINUTE, NOON + 30 * MINUTE), Fallback.RUN, (WINDOW,)
)
BASE = Situation(NOON + MINUTE, ClockTrust.SYNCED, FLEET, Limits(3600, Watts(0)), PLAN)
STOPPED = Desired("a", Verb.STOP, "cur", "price")


def _command(verb: Verb, sequence: int = 2) -> Command:
    return Command("cmd", "s", "g", 1, sequence, NOON, NOON + 5 * MINUTE, verb, ("a",), "work")


def _of(situation: Situation, miner_id: str = "a") -> Desired:
    return next(item for item in decide(situation) if item.miner_id == miner_id)


def test_a_window_stops_its_miners_and_its_end_starts_them() -> None:
    assert [item.verb for item in decide(BASE)] == [Verb.STOP, Verb.STOP, Verb.START]
    after = replace(BASE, now=WINDOW.interval.end, last_desired={"a": STOPPED})
    assert _of(after) == Desired("a", Verb.START, "cur", policy.RELEASED)
    assert fallback_reason(BASE) is None


def test_without_a_plan_everything_runs() -> None:
    assert {item.reason for item in decide(replace(BASE, plan=None))} == {policy.RUN}


@pytest.mark.parametrize("mode", list(Fallback))
@pytest.mark.parametrize("expired", [True, False])
def test_each_fallback_says_why(mode: Fallback, expired: bool) -> None:
    plan = replace(PLAN, fallback=mode)
    moved = {"now": PLAN.valid.end + MINUTE} if expired else {"trust": ClockTrust.UNTRUSTED}
    situation = replace(BASE, plan=plan, last_desired={"a": STOPPED}, **moved)
    cause = "plan_expired" if expired else "clock_untrusted"
    assert fallback_reason(situation) == f"fallback_{mode.value}_{cause}"
    held = {Fallback.RUN: Verb.START, Fallback.HOLD: Verb.STOP, Fallback.STOP: Verb.STOP}
    assert _of(situation).verb is held[mode]
    assert _of(situation, "c").verb is (Verb.STOP if mode is Fallback.STOP else Verb.START)


@pytest.mark.parametrize("expired", [True, False])
def test_grace_holds_before_the_fallback(expired: bool) -> None:
    moved = {"now": PLAN.valid.end} if expired else {"trust": ClockTrust.UNTRUSTED, "untrusted_s": 1.0}
    situation = replace(BASE, grace_s=60.0, last_desired={"a": STOPPED}, **moved)
    assert _of(situation) == STOPPED
    assert fallback_reason(situation) is None


def test_the_sites_own_fallback_holds_without_a_plan() -> None:
    situation = replace(BASE, plan=None, trust=ClockTrust.UNTRUSTED, fallback=Fallback.STOP)
    assert _of(situation).reason == policy.STOP_CLOCK_UNTRUSTED


def test_a_command_goes_before_the_plan_and_an_override_before_both() -> None:
    commanded = replace(BASE, commands=(_command(Verb.START), _command(Verb.REBOOT, 3)))
    assert _of(commanded) == Desired("a", Verb.START, "cmd", policy.COMMAND)
    assert _of(replace(commanded, trust=ClockTrust.UNTRUSTED)).reason == policy.RUN_CLOCK_UNTRUSTED
    late = replace(commanded, now=NOON + 6 * MINUTE)
    assert _of(late).verb is Verb.STOP
    everyone = Override("o1", Verb.STOP, None, 1)
    one = Override("o2", Verb.START, frozenset({"a"}), 2)
    overridden = replace(commanded, overrides=(one, everyone))
    assert _of(overridden) == Desired("a", Verb.START, "o2", policy.OVERRIDE)
    assert _of(overridden, "c").verb is Verb.STOP
    assert everyone.covers("c")
    assert not one.covers("c")


def test_a_miner_off_too_long_is_started_and_stays_so_under_the_same_order() -> None:
    long_off = replace(BASE, off_s={"a": 3600.0})
    assert _of(long_off) == Desired("a", Verb.START, "cur", policy.MAX_OFF)
    latched = replace(BASE, last_desired={"a": Desired("a", Verb.START, "cur", policy.MAX_OFF)})
    assert _of(latched).reason == policy.MAX_OFF


def test_a_miner_never_touched_is_left_alone_but_given_back() -> None:
    limits = Limits(3600, Watts(0), frozenset({"a"}))
    assert "a" not in {item.miner_id for item in decide(replace(BASE, limits=limits))}
    given_back = replace(BASE, limits=limits, last_desired={"a": STOPPED})
    assert _of(given_back) == Desired("a", Verb.START, "cur", policy.NEVER_TOUCH)


@given(
    st.builds(
        replace,
        st.just(BASE),
        now=st.integers(-600, 6000).map(lambda seconds: NOON + timedelta(seconds=seconds)),
        trust=st.sampled_from(ClockTrust),
        plan=st.sampled_from(
            (None, PLAN, replace(PLAN, fallback=Fallback.STOP), replace(PLAN, fallback=Fallback.HOLD))
        ),
        commands=st.sampled_from(((), (_command(Verb.STOP),), (_command(Verb.START),))),
        overrides=st.sampled_from(((), (Override("o", Verb.STOP, None),))),
        last_desired=st.sampled_from(({}, {"a": STOPPED})),
        off_s=st.sampled_from(({}, {"a": 9999.0})),
        grace_s=st.sampled_from((0.0, 60.0)),
    )
)
def test_each_miner_gets_exactly_one_word_and_nothing_stops_without_an_order(situation: Situation) -> None:
    decided = decide(situation)
    assert [item.miner_id for item in decided] == list(FLEET)
    assert all(item.order_id for item in decided if item.verb is Verb.STOP)
