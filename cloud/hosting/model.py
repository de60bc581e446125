"""What hosting tells others: frozen values and the rules on them. Pure.

Invariants: unknown is None; a miner not heard of for ``STALE_AFTER`` is UNKNOWN / NOT_REPORTED, whatever it last said.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from sitelink.types import Evidence, MinerState, Outcome, Reason, Verb
from sitelink.units import Celsius, RevolutionsPerMinute, TeraHashPerSecond, Watts

STALE_AFTER: Final = timedelta(minutes=15)
"""A reading older than this says nothing about now."""

METER_STALE_AFTER: Final = timedelta(minutes=2)
LINK_SILENT_AFTER: Final = timedelta(seconds=20)
"""A link not heard of for this long is down, whatever its row says."""

LIAR_REASONS: Final = frozenset({"feeder_did_not_drop", "still_hashing"})
"""Reasons of an UNVERIFIED stop that name the miner a liar: it said it had stopped and the evidence disagrees."""


class MeterKind(StrEnum):
    """What a meter measures: the whole site, or one feeder."""

    SITE = "site"
    FEEDER = "feeder"


class Desired(StrEnum):
    """What the orders in force ask of a miner."""

    RUN = "run"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class LinkState:
    """A site's link as last reported."""

    up: bool
    last_heard: datetime | None
    agent_id: str | None
    plan_revision: int
    clock_trust: str | None
    backlog_batches: int
    backlog_bytes: int

    @property
    def lost(self) -> bool:
        """Return whether an agent was heard of once and is not now."""
        return not self.up and self.last_heard is not None


@dataclass(frozen=True, slots=True)
class SiteSummary:
    """One site at a glance. ``power_w`` is the site meter's; ``device_power_w`` sums what devices report."""

    site_id: str
    name: str
    timezone: str
    miners_total: int
    hashing: int
    idle: int
    unknown: int
    stopped_by_plan: int
    power_w: Watts | None
    device_power_w: Watts | None
    hashrate_ths: TeraHashPerSecond | None
    link: LinkState
    as_of: datetime | None


@dataclass(frozen=True, slots=True)
class MinerRow:
    """One miner: its inventory, its latest reading, what orders ask of it and how its last order ended."""

    miner_id: str
    model: str
    dialect: str
    feeder_id: str
    rack: str
    position: int
    state: MinerState
    reason: Reason
    hashrate_ths: TeraHashPerSecond | None
    power_w: Watts | None
    board_temp_c: Celsius | None
    chip_temp_c: Celsius | None
    fan_rpm: RevolutionsPerMinute | None
    uptime_s: int | None
    read_at: datetime | None
    nameplate_w: Watts | None
    nameplate_ths: TeraHashPerSecond | None
    controllable: bool
    desired: Desired
    liar: bool
    last_ack_verb: Verb | None
    last_ack_outcome: Outcome | None
    last_ack_evidence: Evidence | None
    last_ack_reason: str | None
    last_ack_at: datetime | None


@dataclass(frozen=True, slots=True)
class EpochCounts:
    """What is stored of one epoch of one site; a whole store has ``missing == doubled == 0``."""

    site_id: str
    epoch: str
    batches: int
    items: int
    first_seq: int
    last_seq: int
    missing: int
    doubled: int


@dataclass(frozen=True, slots=True)
class StoredCounts:
    """What is stored of all epochs in scope, and how many batches stand in quarantine."""

    epochs: tuple[EpochCounts, ...]
    quarantined: int

    @property
    def items(self) -> int:
        """Return the stored items."""
        return sum(epoch.items for epoch in self.epochs)

    @property
    def missing(self) -> int:
        """Return the items below the highest stored number that are not stored."""
        return sum(epoch.missing for epoch in self.epochs)

    @property
    def doubled(self) -> int:
        """Return the items stored more than once."""
        return sum(epoch.doubled for epoch in self.epochs)


@dataclass(frozen=True, slots=True)
class GapCounts:
    """What a site left out for want of room, where one item in ``kept_every_s`` seconds stayed (0: none did).

    ``records`` counts the gaps, ``items`` what lies in them; all was read in ``[since, until)``.
    """

    kept_every_s: int
    records: int
    items: int
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import changed."""

    miners: int
    controllable: int
    meters: int
    removed_miners: int
    removed_meters: int


@dataclass(frozen=True, slots=True)
class InventoryMiner:
    """One miner of an inventory file, without its address: addresses never leave the site.

    ``controllable``: the agent can stop and start it, by its firmware or by the outlet before it.
    """

    miner_id: str
    dialect: str
    model: str
    feeder_id: str
    rack: str
    position: int
    nameplate_w: Watts | None
    nameplate_ths: TeraHashPerSecond | None
    controllable: bool


@dataclass(frozen=True, slots=True)
class InventoryMeter:
    """One meter of a meters file, without its address."""

    meter_id: str
    kind: MeterKind
    feeder_id: str
