"""What one firmware can be told, and how it shows that it has obeyed.

    former -> kept -> send -> (ack: raises or not) -> shows, once a second, until DONE or the deadline

Invariants: ``send`` returning proves nothing; ``shows`` judges by what the device reports, never by an ack; every verb
but REBOOT, FIRMWARE and LOGS may be sent again. A driver belongs to one miner and keeps its session or token.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol

from agent.cgminer.device import Device
from agent.cgminer.observation import Observation
from sitelink.types import Evidence, Outcome, Verb

LOOK_S: Final = 1.0
"""How long there is between two looks at what an order comes to, in seconds."""
SEND_AGAIN_S: Final = 3.0
"""How soon a desired state that was not acknowledged is sent again, in seconds."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of one miner. ``parameters`` as in ``sitelink.types.Command``.

    ``secret`` is the new password (PASSWORD), ``image`` the checked firmware file (FIRMWARE); neither is logged.
    """

    verb: Verb
    parameters: Mapping[str, str] = field(default_factory=dict)
    secret: str = field(default="", repr=False)
    image: bytes = field(default=b"", repr=False)


class Shown(Enum):
    """How far a device shows what was asked of it."""

    DONE = "done"
    PART = "part"
    NOT_YET = "not_yet"


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What reading back showed, what that rests on, and a stable reason code."""

    shown: Shown
    evidence: Evidence
    reason: str


@dataclass(frozen=True, slots=True)
class Result:
    """How an order ended on one miner. ``former`` is the configuration before it, ``content`` a LOGS order's text."""

    outcome: Outcome
    evidence: Evidence
    reason: str
    detail: str = ""
    former: str = ""
    content: bytes = b""


class Driver(Protocol):
    """One firmware's control, for one miner."""

    @property
    def verbs(self) -> frozenset[Verb]:
        """Return what this firmware can be told."""
        ...

    async def former(self, device: Device, wanted: Wanted) -> str:
        """Return, as JSON text, the configuration that ``wanted`` will replace; empty where there is none.

        Raises:
            Transient: the device does not answer. Permanent: it cannot be read.
        """
        ...

    async def send(self, device: Device, wanted: Wanted, former: str) -> bytes:
        """Send the order; ``former`` is what was saved before a stop, for its start. Return LOGS' text, else nothing.

        Raises:
            Transient: unreachable, timed out, or a session is busy: it may be sent again.
            AccessDenied: writing is not enabled; the message says how to enable it.
            Permanent, Refused: it will not do it.
        """
        ...

    async def shows(self, device: Device, wanted: Wanted, before: Observation) -> ReadBack:
        """Return how far the device shows what was asked. ``before`` was read before the order. Raises as reading."""
        ...
