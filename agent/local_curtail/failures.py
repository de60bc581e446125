"""How an order stands for a miner that answered it with an error. Pure.

Invariant: what only a person can mend (a right, a password, a firmware without the command) is refused, and is not
tried again until somebody may have mended it; everything else may be over in a moment.
"""

from collections.abc import Mapping
from typing import Final

from agent.errors import AccessDenied, AgentError, Refused, SessionBusy, Transient, UnsupportedDevice
from agent.local_curtail.evidence import Verdict
from agent.reasons import reason_of
from sitelink.types import Evidence, Outcome, Reason

_LASTING: Final[Mapping[type[AgentError], str]] = {
    AccessDenied: Reason.ACCESS_DENIED.value,
    UnsupportedDevice: "unsupported",
}
LASTING: Final = frozenset(_LASTING.values())
"""Reasons of orders for which trying the same again is pointless."""


def failed(error: AgentError) -> Verdict:
    """Return how an order stands that ended in ``error``."""
    if isinstance(error, Refused):
        return Verdict(Outcome.REFUSED, Evidence.NONE, error.code, detail=str(error))
    for kind, reason in _LASTING.items():
        if isinstance(error, kind):
            return Verdict(Outcome.REFUSED, Evidence.NONE, reason, detail=str(error))
    return Verdict(Outcome.UNVERIFIED, Evidence.NONE, reason_of(error).value, detail=str(error))


def came_of(error: AgentError | None) -> str:
    """Return in words what came of sending an order; None is a device that took it. No address is named."""
    if error is None:
        return "the device said ok"
    missing = isinstance(error, Transient)
    return f"{'its answer is missing' if missing else 'refused'}: {failed(error).reason}"


def lasts(outcome: Outcome | None, reason: str) -> bool:
    """Return whether an order that ended so is not to be tried again by itself."""
    return outcome is Outcome.REFUSED and reason in LASTING


def of_trouble(verdict: Verdict, trouble: AgentError | None) -> Verdict:
    """Return ``verdict`` with the cause that sending came to: a session busy to the end is no missing reply."""
    if verdict.reason == "no_reply" and isinstance(trouble, SessionBusy):
        return failed(trouble)
    return verdict
