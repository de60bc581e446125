"""The reason that an UNKNOWN reading or an unproven order carries after an error. Pure."""

from agent.errors import AccessDenied, AgentError, Permanent, SessionBusy, TimedOut, Transient, WrongDevice
from sitelink.types import Reason

_REASONS: tuple[tuple[type[AgentError], Reason], ...] = (
    (TimedOut, Reason.TIMEOUT),
    (SessionBusy, Reason.SESSION_BUSY),
    (Transient, Reason.UNREACHABLE),
    (AccessDenied, Reason.ACCESS_DENIED),
    (WrongDevice, Reason.WRONG_DEVICE),
    (Permanent, Reason.GARBLED),
)


def reason_of(error: AgentError) -> Reason:
    """Return the reason that an UNKNOWN reading carries after ``error``."""
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), Reason.NOT_REPORTED)
