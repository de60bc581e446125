"""The reason that an UNKNOWN reading or an unproven order carries after an error, and reasons in words. Pure.

Invariant: the cause and the next step behind a code are written here alone, whichever command shows them.
"""

from collections.abc import Mapping
from typing import Final

from agent.errors import AccessDenied, AgentError, Permanent, SessionBusy, TimedOut, Transient, WrongDevice
from sitelink.types import Evidence, Reason

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


_CUT_IT: Final = "go to its rack, cut its outlet or breaker, then say failsafe off --miner THIS_MINER again"
_IN_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    # of readings; GROUP stands for the miner's group of credentials, HOST for its address, THIS_MINER for itself
    "none": ("", ""),
    "commanded": ("stopped by an order", ""),
    "starting": ("it is starting up", ""),
    "thermal": ("it stopped itself, too hot", "look at its fans and its air"),
    "fault": ("it stopped itself on a fault", "look at its own page, or ballast-agent poll HOST"),
    "unreachable": (
        "it does not answer",
        "look at its power, cable and address; ballast-agent discover finds one that moved",
    ),
    "timeout": (
        "it answers too late",
        "say this again; if it stays so, look at the network between, then switch its power off and on",
    ),
    "garbled": (
        "its answer cannot be read, or tells no name of it",
        "see ballast-agent poll HOST --raw; correct its dialect, or give its group GROUP credentials",
    ),
    "access_denied": (
        "it wants another password or right",
        "ballast-agent credentials set GROUP, or enable its API on its own page",
    ),
    "wrong_device": (
        "another miner answers at its address, so nothing is done there",
        "ballast-agent discover finds it; correct its row, or swap it with ballast-agent inventory",
    ),
    "session_busy": ("somebody else is logged in at it", "close that page, then say this again"),
    "not_reported": ("it does not say", ""),
    # of stops and starts
    "power_below_idle": ("off", ""),
    "already_idle": ("it was off before", ""),
    "feeder_meter_silent": (
        "it reads off; its feeder's meter does not answer",
        "look at that meter, or measure the miner at the rack",
    ),
    "power_unknown": (
        "it reads off, tells no power, and no meter vouches for it",
        "measure it at the rack, or put a meter on its feeder",
    ),
    "feeder_did_not_drop": ("it reads off, but its feeder draws as before", "measure it at the rack"),
    "feeder_clouded": ("it reads off, but the meter cannot tell it from its neighbours", "measure it at the rack"),
    "feeder_too_noisy": ("it reads off, but its feeder moves by more than it draws", "measure it at the rack"),
    "power_above_idle": ("it draws less, but it is not off", "say this again, or use its own page or breaker"),
    "still_hashing": ("it took the order and still hashes", "use its own page or breaker"),
    "not_down_yet": ("its power is falling", "look again with failsafe status"),
    "no_reply": ("it did not take the order", "say this again, or use its own page or breaker"),
    "not_hashing": ("it took the order and does not hash", "look at its own page, and say this again"),
    "wiring_unchecked": (
        "nobody knows that its outlet feeds it",
        "switch that outlet by hand, see who goes off, then add &wiring=checked to it in inventory.csv",
    ),
    "wrong_outlet": (
        "its outlet feeds another miner, or is welded",
        "mend it or correct outlet in inventory.csv, then restart the agent",
    ),
    "state_unknown": ("it answers, but not whether it hashes", "look at its own page"),
    "not_looked_at": ("it was not looked at yet", "failsafe status"),
    "hashing": ("hashing", ""),
    "already_running": ("it was running before", ""),
    "power_rising": ("its power rises", ""),
    "outlet_off": ("its outlet reads off", ""),
    "outlet_on": ("its outlet reads on", ""),
    # of what stands against a miner's or a feeder's word
    "reports_idle": ("LIAR: it says it is off, but its feeder did not drop", _CUT_IT),
    "ack_without_effect": ("LIAR: it said ok to its stop and hashes on", _CUT_IT),
    "self_woken": (
        "it woke by itself under its stop, and was stopped again",
        "look on its own page for a schedule or a watchdog; if it does so again, cut its outlet or breaker",
    ),
    "feeder_disagrees": (
        "it draws more than its miners own up to",
        "measure its open miners at the rack, cut the outlet of the one that draws; none does: check the meter",
    ),
    # of what the site itself forbids
    "too_hot": (
        "it is too hot to run",
        "look at its fans, its air and the rack's; it is started once it has cooled ([limits] in agent.toml)",
    ),
    "min_load": ("it stays on so that the site draws its minimum load", ""),
    "max_off": ("it was off for as long as this site allows", ""),
    "verb_not_allowed": (
        "this site takes no such order",
        "add its verb to [limits] allowed_verbs in agent.toml, if it is to, and restart the agent",
    ),
    "superseded": ("a later order took over", ""),
    "expired": ("its time was over before it was done", ""),
}
"""The cause behind a code, and the next step, empty where there is nothing to do."""
_BY_EVIDENCE: Final[Mapping[Evidence, str]] = {
    Evidence.SITE_METER: "the site's meter agrees",
    Evidence.FEEDER_METER: "its feeder's meter agrees",
    Evidence.DEVICE_POWER: "by its own figure of power",
    Evidence.DEVICE_STATE: "by its own word",
}
_RESTS: Final = frozenset({"power_below_idle", "outlet_off"})
"""After these, it matters on what they rest."""
_ITSELF: Final = ("outlet_off", Evidence.DEVICE_STATE)
"""Says already whose word it is."""


def in_words(code: str) -> str:
    """Return a reason code in words with what to do next; the code itself where there are none."""
    cause, step = _IN_WORDS.get(code, (code, ""))
    return f"{cause}: {step}" if step else cause


def cause_of(code: str) -> str:
    """Return the cause behind a reason code in words; the code itself where there are none."""
    return _IN_WORDS.get(code, (code, ""))[0]


def next_step(code: str) -> str:
    """Return what to do about a reason code, empty where there is nothing to do or the code is not known."""
    return _IN_WORDS.get(code, ("", ""))[1]


def judged_in_words(code: str, evidence: Evidence) -> str:
    """Return how an order was judged: in words, on what that rests, and the code to look up."""
    words = in_words(code)
    if code in _RESTS and evidence in _BY_EVIDENCE and (code, evidence) != _ITSELF:
        words = f"{words}, {_BY_EVIDENCE[evidence]}"
    return code if words == code else f"{words} ({code})"
