"""Each fallback says why it holds, and grace comes before it."""

from dataclasses import replace
from datetime import timedelta

import pytest

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


def test_without_a_plan_everything_runs() -> None:
    assert {item.reason for item in decide(replace(BASE, plan=None))} == {policy.RUN}


@pytest.mark.parametrize("mode", list(Fallback))
@pytest.mark.parametrize("expired", [True, False])
def test_each_fallback_says_why(mode: Fallback, expired: bool) -> None:
    plan = replace(PLAN, fallback=mode)
    moved = {"now": PLAN.valid.end + MINUTE} if expired else {"trust": ClockTrust.UNTRUSTED}
    situation = replace(BASE, plan=plan, last_desired={"a": STOPPED}, off_s={"a": 60.0}, **moved)
    cause = "plan_expired" if expired else "clock_untrusted"
    assert fallback_reason(situation) == f"fallback_{mode.value}_{cause}"
    held = {Fallback.RUN: Verb.START, Fallback.HOLD: Verb.STOP, Fallback.STOP: Verb.STOP}
    assert _of(situation).verb is held[mode]
    assert _of(situation, "c").verb is (Verb.STOP if mode is Fallback.STOP else Verb.START)


@pytest.mark.parametrize("expired", [True, False])
def test_grace_holds_before_the_fallback(expired: bool) -> None:
    moved = {"now": PLAN.valid.end} if expired else {"trust": ClockTrust.UNTRUSTED, "untrusted_s": 1.0}
    situation = replace(BASE, grace_s=60.0, last_desired={"a": STOPPED}, off_s={"a": 60.0}, **moved)
    assert _of(situation) == STOPPED
    assert fallback_reason(situation) is None


def test_the_sites_own_fallback_holds_without_a_plan() -> None:
    situation = replace(BASE, plan=None, trust=ClockTrust.UNTRUSTED, fallback=Fallback.STOP)
    assert _of(situation).reason == policy.STOP_CLOCK_UNTRUSTED


def test_an_override_covers_whom_it_names_or_everybody() -> None:
    assert Override("o1", Verb.STOP, None, 1).covers("c")
    assert not Override("o2", Verb.START, frozenset({"a"}), 2).covers("c")
