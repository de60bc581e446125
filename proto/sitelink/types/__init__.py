"""The values that agent, cloud and simulator exchange. Pure: no I/O, no clock, no framework.

    telemetry   what is read            orders   what is asked for, and how it ended
    link        what travels            brokered what wraps it on its way through a broker

Invariants: unknown is ``None``, never zero; times are aware UTC, intervals half-open ``[start, end)``. Everything is
imported from here; the modules are how it is laid out.
"""

from sitelink.types.brokered import Brokered, Closed, Opened, Opening, Sealed
from sitelink.types.link import (
    NO_ORDER,
    Batch,
    BatchBody,
    BatchKind,
    ClockTrust,
    Cursor,
    Domain,
    DownFrame,
    Envelope,
    Gap,
    Heartbeat,
    Hello,
    JournalEntry,
    Notice,
    NoticeCode,
    OrderNumber,
    Receipt,
    SignedTime,
    UpFrame,
    Welcome,
)
from sitelink.types.orders import (
    Ack,
    Command,
    Curtailment,
    CurtailmentCause,
    Evidence,
    Fallback,
    Interval,
    Outcome,
    Ramp,
    SitePlan,
    Verb,
)
from sitelink.types.telemetry import (
    MeterSample,
    MinerState,
    PowerSource,
    Reading,
    Reason,
)

__all__ = [
    "NO_ORDER",
    "Ack",
    "Batch",
    "BatchBody",
    "BatchKind",
    "Brokered",
    "ClockTrust",
    "Closed",
    "Command",
    "Cursor",
    "Curtailment",
    "CurtailmentCause",
    "Domain",
    "DownFrame",
    "Envelope",
    "Evidence",
    "Fallback",
    "Gap",
    "Heartbeat",
    "Hello",
    "Interval",
    "JournalEntry",
    "MeterSample",
    "MinerState",
    "Notice",
    "NoticeCode",
    "Opened",
    "Opening",
    "OrderNumber",
    "Outcome",
    "PowerSource",
    "Ramp",
    "Reading",
    "Reason",
    "Receipt",
    "Sealed",
    "SignedTime",
    "SitePlan",
    "UpFrame",
    "Verb",
    "Welcome",
]
