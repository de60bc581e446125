"""What travels between a site and the cloud.

Invariant: the same ``(site_id, epoch, first_seq)`` always covers the same numbered items, so sending a batch again is
harmless. A batch of telemetry for which a site had no room may come with fewer of them: what is left out is a ``Gap``.

    epoch e:  | batch 0..9 | batch 10..17 | batch 18..18 | ...     items are numbered without gaps
                settled      in flight      waiting
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from sitelink.types.orders import Ack
from sitelink.types.telemetry import MeterSample, Reading


class NoticeCode(StrEnum):
    """What a site reports beside readings and acks."""

    PLAN_ACCEPTED = "plan_accepted"
    PLAN_REFUSED = "plan_refused"
    COMMAND_ACCEPTED = "command_accepted"
    COMMAND_REFUSED = "command_refused"
    LIAR_NAMED = "liar_named"
    FEEDER_DISAGREES = "feeder_disagrees"
    FALLBACK_STARTED = "fallback_started"
    FALLBACK_ENDED = "fallback_ended"
    LINK_LOST = "link_lost"
    LINK_RESTORED = "link_restored"
    AGENT_STARTED = "agent_started"
    CLOCK_TRUST_CHANGED = "clock_trust_changed"
    CURTAILMENT_STARTED = "curtailment_started"
    CURTAILMENT_HELD = "curtailment_held"
    CURTAILMENT_RELEASED = "curtailment_released"
    CURTAILMENT_RESTORED = "curtailment_restored"
    OVERRIDE_SET = "override_set"
    SELF_WOKEN = "self_woken"
    BUFFER_GAP = "buffer_gap"
    DATA_BROKEN = "data_broken"
    DISK_FULL = "disk_full"
    JOURNAL_LOST = "journal_lost"
    SECOND_GATEWAY = "second_gateway"
    IDENTITY_LOCKED = "identity_locked"
    LIMIT_APPLIED = "limit_applied"
    HEAT_TRIPPED = "heat_tripped"
    HEAT_CLEARED = "heat_cleared"


@dataclass(frozen=True, slots=True)
class Notice:
    """One event at a site. ``subject`` is a miner, feeder, plan or curtailment id; ``detail`` is one plain line."""

    notice_id: str
    at: datetime
    code: NoticeCode
    subject: str
    detail: str


class BatchKind(StrEnum):
    """CONTROL batches (acks, notices) go up before TELEMETRY (readings, meter samples)."""

    TELEMETRY = "telemetry"
    CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Gap:
    """Telemetry a site had no room for: ``items`` numbers of a batch, read in ``[since, until)``, have no item.

    One item in ``kept_every_s`` seconds stayed for every miner and meter; 0: none did.
    """

    since: datetime
    until: datetime
    kept_every_s: int
    items: int


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One action at a site. ``seq`` counts within the site's file, across its chains; ``chain`` names one of them.

    ``at_us`` is the site's time in microseconds since 1970, ``trust`` how far that was to be believed. ``kind`` is a
    stable code, ``subject`` a miner, order, override or site, ``detail`` one plain line.
    """

    chain: str
    seq: int
    at_us: int
    trust: str
    kind: str
    subject: str
    detail: str
    previous: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class BatchBody:
    """What a batch carries. Items are numbered in the order readings, meters, acks, notices, journal.

    Its length is how many numbers it takes: those of its items, and those whose items are gone (``gaps``).
    """

    readings: tuple[Reading, ...] = ()
    meters: tuple[MeterSample, ...] = ()
    acks: tuple[Ack, ...] = ()
    notices: tuple[Notice, ...] = ()
    gaps: tuple[Gap, ...] = ()
    journal: tuple[JournalEntry, ...] = ()

    def __len__(self) -> int:
        items = len(self.readings) + len(self.meters) + len(self.acks) + len(self.notices) + len(self.journal)
        return items + sum(gap.items for gap in self.gaps)


@dataclass(frozen=True, slots=True)
class Batch:
    """A sealed run of ``count`` items starting at ``first_seq``; ``payload`` is ``codec.pack(body)``.

    ``signature`` is the agent's, over what ``batch_signing`` says; empty in a batch that nobody signed.
    """

    site_id: str
    epoch: str
    first_seq: int
    count: int
    kind: BatchKind
    sealed_at: datetime
    payload: bytes
    signature: bytes = b""

    @property
    def last_seq(self) -> int:
        """Return the sequence number of the last item."""
        return self.first_seq + self.count - 1


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the cloud has stored one epoch without a gap; ``through_seq`` is -1 before the first item.

    ``beyond`` is what it has stored after that, as (first, last), ascending; of very many ranges the first ones and
    the last.
    """

    site_id: str
    epoch: str
    through_seq: int
    beyond: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """The cloud's word that items are stored: ``first_seq..last_seq``, and everything up to ``through_seq``."""

    site_id: str
    epoch: str
    first_seq: int
    last_seq: int
    through_seq: int


@dataclass(frozen=True, slots=True)
class SignedTime:
    """The cloud's time, answering the ``nonce`` of one heartbeat so that an old answer cannot be replayed."""

    site_id: str
    nonce: str
    cloud_time: datetime


class ClockTrust(StrEnum):
    """How far a site may act on its idea of the time."""

    SYNCED = "synced"
    HELD = "held"
    UNTRUSTED = "untrusted"


class OrderNumber(NamedTuple):
    """Where an order stands among all of its site: a later epoch is above every sequence of an earlier one."""

    signing_epoch: int
    sequence: int


NO_ORDER: Final = OrderNumber(0, 0)
"""Below every order."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What an agent says first on a stream. ``key_ids`` are the order keys it trusts.

    ``highest`` is the highest number of any order it ever took, ``highest_order_id`` that plan or command (empty
    without one); ``instance_id`` is new with every start of its process, ``generation`` counts its certificates from
    1. An agent of an earlier version says none of these.
    """

    site_id: str
    agent_id: str
    agent_version: str
    epoch: str
    next_seq: int
    plan_revision: int
    key_ids: tuple[str, ...] = ()
    highest: OrderNumber = NO_ORDER
    highest_order_id: str = ""
    instance_id: str = ""
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The state of a site's link, sent every few seconds."""

    nonce: str
    plan_revision: int
    clock_trust: ClockTrust
    backlog_batches: int
    backlog_bytes: int
    next_seq: int


@dataclass(frozen=True, slots=True)
class Welcome:
    """The cloud's answer to ``Hello``: how far it has stored this epoch."""

    cursor: Cursor


class Domain(StrEnum):
    """What a signature is for; a signature made for one domain never verifies in another."""

    PLAN = "ballast/plan/v1"
    COMMAND = "ballast/command/v1"
    TIME = "ballast/time/v1"
    KEYS = "ballast/keys/v1"
    LINK = "ballast/link/v1"


@dataclass(frozen=True, slots=True)
class Envelope:
    """Signed canonical bytes: exactly what was signed travels, and only that is parsed."""

    domain: Domain
    key_id: str
    payload: bytes
    signature: bytes


UpFrame = Hello | Heartbeat | Batch
DownFrame = Welcome | Receipt | Envelope
