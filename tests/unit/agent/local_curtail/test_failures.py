"""What an error makes of an order: refused for good, or perhaps over in a moment."""

import pytest

from agent.errors import AccessDenied, Garbled, SessionBusy, TimedOut, Unreachable, UnsupportedDevice, WrongDevice
from agent.local_curtail.evidence import Verdict
from agent.local_curtail.failures import failed, lasts, of_trouble
from sitelink.types import Evidence, Outcome

NO_REPLY = Verdict(Outcome.UNVERIFIED, Evidence.DEVICE_POWER, "no_reply")


@pytest.mark.parametrize(
    ("error", "outcome", "reason", "for_good"),
    [
        (AccessDenied("code 45"), Outcome.REFUSED, "access_denied", True),
        (UnsupportedDevice("no command"), Outcome.REFUSED, "unsupported", True),
        (WrongDevice("another"), Outcome.REFUSED, "wrong_device", False),
        (SessionBusy("busy"), Outcome.UNVERIFIED, "session_busy", False),
        (TimedOut("late"), Outcome.UNVERIFIED, "timeout", False),
        (Unreachable("gone"), Outcome.UNVERIFIED, "unreachable", False),
        (Garbled("noise"), Outcome.UNVERIFIED, "garbled", False),
    ],
)
def test_an_error_tells_how_the_order_stands(error, outcome, reason, for_good):
    verdict = failed(error)
    assert (verdict.outcome, verdict.reason, verdict.detail) == (outcome, reason, str(error))
    assert lasts(verdict.outcome, verdict.reason) is for_good


def test_a_session_busy_to_the_end_is_no_missing_reply():
    assert of_trouble(NO_REPLY, SessionBusy("taken")).reason == "session_busy"
    assert of_trouble(NO_REPLY, TimedOut("lost")) == NO_REPLY
    idle = Verdict(Outcome.COMPLETE, Evidence.DEVICE_POWER, "power_below_idle")
    assert of_trouble(idle, SessionBusy("taken")) == idle
