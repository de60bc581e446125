"""What a miner reads is judged against what was asked: missing is not zero, and still is not stopped."""

import pytest

from agent.cgminer.control.driver import Shown
from agent.cgminer.control.read_back import shows_limited, shows_rebooted, shows_started, shows_stopped
from agent.cgminer.observation import Observation
from sitelink.types import Evidence, MinerState, Reason
from sitelink.units import Watts

pytestmark = pytest.mark.agent

ON = Observation("luxos", MinerState.HASHING, Reason.NONE, power_w=Watts(3000.0), uptime_s=900)


def idle(power_w: float | None, reason: Reason = Reason.COMMANDED, uptime_s: int | None = 900) -> Observation:
    power = None if power_w is None else Watts(power_w)
    return Observation("luxos", MinerState.IDLE, reason, power_w=power, uptime_s=uptime_s)


UNKNOWN = Observation("luxos", MinerState.UNKNOWN, Reason.TIMEOUT)


@pytest.mark.parametrize(
    ("seen", "before", "shown", "evidence", "reason"),
    [
        (idle(40), ON, Shown.DONE, Evidence.DEVICE_POWER, "power_below_idle"),
        (idle(450), ON, Shown.DONE, Evidence.DEVICE_POWER, "power_below_idle"),
        (idle(451), ON, Shown.PART, Evidence.DEVICE_POWER, "power_above_idle"),
        (idle(2200), ON, Shown.NOT_YET, Evidence.DEVICE_POWER, "power_above_idle"),
        (idle(0), ON, Shown.DONE, Evidence.DEVICE_POWER, "power_below_idle"),
        (idle(None), ON, Shown.DONE, Evidence.DEVICE_STATE, "reads_idle"),
        (idle(40, Reason.NOT_REPORTED), ON, Shown.DONE, Evidence.DEVICE_POWER, "power_below_idle"),
        (idle(40, Reason.THERMAL), ON, Shown.NOT_YET, Evidence.DEVICE_STATE, "thermal"),
        (idle(40, Reason.FAULT), ON, Shown.NOT_YET, Evidence.DEVICE_STATE, "fault"),
        (idle(40), idle(40), Shown.DONE, Evidence.DEVICE_POWER, "already_idle"),
        (idle(40), idle(40, Reason.THERMAL), Shown.DONE, Evidence.DEVICE_POWER, "power_below_idle"),
        (idle(600), idle(600), Shown.NOT_YET, Evidence.DEVICE_POWER, "power_above_idle"),
        (ON, ON, Shown.NOT_YET, Evidence.DEVICE_POWER, "still_hashing"),
        (Observation("x", MinerState.HASHING), ON, Shown.NOT_YET, Evidence.DEVICE_STATE, "still_hashing"),
        (
            Observation("x", MinerState.HASHING, power_w=Watts(1500)),
            ON,
            Shown.PART,
            Evidence.DEVICE_POWER,
            "power_above_idle",
        ),
        (UNKNOWN, ON, Shown.NOT_YET, Evidence.NONE, "state_unknown"),
    ],
)
def test_a_stop(seen: Observation, before: Observation, shown: Shown, evidence: Evidence, reason: str) -> None:
    found = shows_stopped(seen, before)
    assert (found.shown, found.evidence, found.reason) == (shown, evidence, reason)


@pytest.mark.parametrize(
    ("seen", "shown", "reason"),
    [
        (ON, Shown.DONE, "hashing"),
        (idle(900, Reason.STARTING), Shown.DONE, "starting"),
        (idle(40), Shown.NOT_YET, "not_hashing"),
        (idle(40, Reason.FAULT), Shown.NOT_YET, "fault"),
        (UNKNOWN, Shown.NOT_YET, "state_unknown"),
    ],
)
def test_a_start(seen: Observation, shown: Shown, reason: str) -> None:
    found = shows_started(seen)
    assert (found.shown, found.reason) == (shown, reason)


@pytest.mark.parametrize(
    ("limit_w", "seen", "shown", "reason"),
    [
        (2500, Observation("x", MinerState.HASHING, power_w=Watts(2490)), Shown.DONE, "power_within_limit"),
        (2600, Observation("x", MinerState.HASHING, power_w=Watts(2620)), Shown.DONE, "power_within_limit"),
        (2500, ON, Shown.PART, "power_above_limit"),
        (2500, Observation("x", MinerState.HASHING), Shown.DONE, "limit_in_force"),
        (3600, Observation("x", MinerState.HASHING, power_w=Watts(2490)), Shown.NOT_YET, "limit_not_in_force"),
        (None, ON, Shown.NOT_YET, "limit_unknown"),
    ],
)
def test_a_limit(limit_w: float | None, seen: Observation, shown: Shown, reason: str) -> None:
    found = shows_limited(None if limit_w is None else Watts(limit_w), seen, Watts(2500))
    assert (found.shown, found.reason) == (shown, reason)


@pytest.mark.parametrize(
    ("now_s", "then_s", "shown", "reason"),
    [
        (5, 900, Shown.DONE, "uptime_reset"),
        (901, 900, Shown.NOT_YET, "uptime_not_reset"),
        (None, 900, Shown.NOT_YET, "uptime_unknown"),
        (5, None, Shown.NOT_YET, "uptime_unknown"),
    ],
)
def test_a_reboot(now_s: int | None, then_s: int | None, shown: Shown, reason: str) -> None:
    found = shows_rebooted(idle(40, uptime_s=now_s), idle(40, uptime_s=then_s))
    assert (found.shown, found.reason) == (shown, reason)
