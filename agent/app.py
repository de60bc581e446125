"""The agent's wiring: every part made here, given its world, and kept running in one TaskGroup.

Invariants:

* A part that fails is started again and takes no other down; above all nothing stops local curtailment.
* What is promised is on disk before the process ends; SIGTERM ends it cleanly, kill -9 loses nothing that was sealed.

    pollers --> sealer --> buffer <--acks, notices-- local curtailment --> controls --> miners
                             |                             ^
                             +-----> forwarder <--> uplink-+ plans, commands, time
"""

import asyncio
import logging
import os
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from agent.aside import on_disk
from agent.backoff import Backoff
from agent.buffer import Buffer
from agent.buffer import schema as buffer_schema
from agent.cgminer.control import MinerControl
from agent.cgminer.control.outlet import OutletControl
from agent.errors import Transient
from agent.fleet import Fleet, switchable, untouchable
from agent.follow import follower_of
from agent.forwarder import Forwarder, Introduction, SiteFacts
from agent.house_settings import PriceSettings, TemperatureSettings
from agent.identity import Identity
from agent.inventory.learned import Learned
from agent.local_curtail.backfill import Backfill
from agent.local_curtail.chain import Chain
from agent.local_curtail.formers import Formers
from agent.local_curtail.house import site_miner, site_rules
from agent.local_curtail.outside import Outside
from agent.local_curtail.restoring import Restorer
from agent.local_curtail.schema import schema as curtail_schema
from agent.local_curtail.site import LocalCurtail
from agent.local_curtail.site_time import SiteTime
from agent.local_requests import LocalRequests
from agent.meter_poller import MeterPoller
from agent.meters import Meter
from agent.poller import Pollable, Poller
from agent.precedence import Precedence
from agent.renewal import Renewal, asker
from agent.sealer import Sealer
from agent.settings import Settings
from agent.site_files import SiteFiles
from agent.status import DaemonStatus, write_status
from agent.storage import Writer
from agent.supervisor import supervised
from agent.transports import uplink_of
from agent.vault import Vault
from agent.vault.texts import SealedTexts
from sitelink.batch_signing import BatchSigner
from sitelink.clock import Clock
from sitelink.inventory import MeterEntry, MinerEntry
from sitelink.meter_source import parse_source
from sitelink.signing import KeyRing
from sitelink.types import Notice, NoticeCode, Reading, Reason
from sitelink.units import Watts

_LOG: Final = logging.getLogger(__name__)
_THERMOMETER: Final = "thermometer"
_METER_FRESH_S: Final = 15.0
"""A figure of the site's meter older than this says nothing of now, unless it is read less often."""


class SiteClock:
    """The clock that stamps telemetry: the site's time once it is known, the machine's before."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.site_time: SiteTime | None = None

    def now(self) -> datetime:
        """Return the best idea of the time, UTC."""
        return self._clock.now() if self.site_time is None else self.site_time.now()[0]

    def monotonic(self) -> float:
        """Return seconds since boot."""
        return self._clock.monotonic()

    def boot_id(self) -> str:
        """Return the boot that ``monotonic`` belongs to."""
        return self._clock.boot_id()


class Agent:
    """All parts of one site's agent, over one writer."""

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        inventory: tuple[MinerEntry, ...],
        meters: tuple[MeterEntry, ...],
        vault: Vault,
        writer: Writer,
        clock: Clock,
        rng: random.Random,
        ids: Callable[[], str],
        across: Callable[[Callable[[], None]], Callable[[], None]],
        bulk: Writer | None = None,
    ) -> None:
        """``across`` makes a call from the writer's thread arrive on the event loop's.

        ``bulk`` takes telemetry, which must not have the room that ``writer`` keeps for control data.
        """
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._ids = ids
        self._writer = writer
        self._site_clock = SiteClock(clock)
        self._precedence = Precedence(clock)
        site_id = settings.site.site_id
        wake = across(self._wake_forwarder)
        signer = BatchSigner.from_pem(identity.tls.key_pem)
        max_bytes = settings.buffer.max_bytes
        self.buffer = Buffer(writer, self._site_clock, site_id, ids, max_bytes, wake, signer, bulk)
        self._salvage = self.buffer.salvage(settings.site.state_dir)
        self._formers = Formers(writer)
        self._secrets = SealedTexts(vault)
        self._fleet = fleet = Fleet(settings, clock, vault)
        inventory, outlets = fleet.outlets(inventory, _LOG.error)
        found = Learned.load(settings.site.state_dir).applied(inventory)
        devices = fleet.devices(found)
        read = fleet.meters(meters, self._site_clock)
        self._outside = _outside(settings, fleet, self._site_clock)
        self._site_meters = [meter.entry.meter_id for meter in read if meter.entry.kind == "site"]
        controls = {
            entry.miner_id: fleet.control(entry, devices[entry.miner_id], self._formers, outlets.get(entry.miner_id))
            for entry in inventory
        }
        self.sealer = Sealer(self.buffer, settings.buffer.seal_s)
        self.poller = self._poller(controls)
        self.meter_poller = self._meter_poller(read)
        self.curtail = self._curtailment(identity, inventory, controls, read)
        self._site_clock.site_time = self.curtail.site_time
        self._backfill = Backfill(writer, self.buffer, Chain(ids), self.curtail.site_time)
        self.uplink = uplink_of(settings.link, identity, self._site_clock, ids)
        self._keeper = self._certificate_keeper(identity)
        self.forwarder = self._forwarder(identity)
        self._restorer = Restorer(self._formers.owed, controls.get, self.curtail.holds_off)
        self._requests = self._local_requests(inventory)
        self._follower = follower_of(settings, inventory, devices, vault, self._latest, rng, clock, self.curtail.mended)
        self._loaded = False

    async def load(self, broken: Path | None) -> None:
        """Make the tables, take up what an earlier process left, and tell the cloud that a new one began."""
        await self._writer.run(_schemas)
        if broken is not None:
            await self._salvage.begin(broken)
            await self.curtail.recover(broken)
        await self._load()
        await self._tell(NoticeCode.AGENT_STARTED, f"version {version()}")
        if broken is not None:
            detail = f"agent.db was broken and moved to {broken.name}; what can be read of it is sent from there"
            await self._tell(NoticeCode.BUFFER_GAP, detail)

    async def run(self) -> None:
        """Run every part until cancelled; then seal what was gathered and close what is open."""
        parts: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "curtailment": self._run_curtailment,
            "orders": self.curtail.run_orders,
            "journal": self._backfill.run,
            "restoring": self._restorer.run,
            "sealer": self.sealer.run,
            "salvage": self._salvage.run,
            "poller": self.poller.run,
            "meters": self.meter_poller.run,
            "forwarder": self.forwarder.run,
            "link state": self._show_link,
            "renewal": self._keeper.run,
            "status": self._report,
            "local requests": self._requests.run,
            "follower": self._follower.run,
            "outside": self._outside.run,
        }
        try:
            async with asyncio.TaskGroup() as group:
                for name, work in parts.items():
                    group.create_task(supervised(name, work, Backoff(self._rng, 0.2, 10.0)), name=name)
        finally:
            await self._finish()

    def _wake_forwarder(self) -> None:
        self.forwarder.wake()

    def _latest(self, miner_id: str) -> Reading | None:
        return self.poller.latest.get(miner_id)

    def _meter_ages_s(self) -> dict[str, float | None]:
        now = self._site_clock.now()
        latest = self.meter_poller.latest.items()
        return {
            name: None if sample.power_w is None else max(0.0, (now - sample.read_at).total_seconds())
            for name, sample in latest
        }

    def _site_w(self) -> Watts | None:
        """Return what the site's own meters show together, None unless each has told it just now."""
        meters = self._site_meters
        now, oldest_s = self._site_clock.now(), max(_METER_FRESH_S, 3 * self._settings.poll.meter_interval_s)
        found = [self.meter_poller.latest.get(name) for name in meters]
        fresh_w = [
            sample.power_w
            for sample in found
            if sample is not None and sample.power_w is not None
            if abs((now - sample.read_at).total_seconds()) <= oldest_s
        ]
        return Watts(sum(fresh_w)) if meters and len(fresh_w) == len(meters) else None

    def _poller(self, controls: Mapping[str, Pollable]) -> Poller:
        """Return what reads the miners: each as what orders it sees it, so that all tell the same of one."""
        poll = self._settings.poll
        return Poller(
            controls,
            self._site_clock,
            self._rng,
            self.sealer.add,
            interval_s=poll.interval_s,
            concurrency=poll.concurrency,
            deadline_s=poll.total_s,
            precedence=self._precedence,
        )

    def _meter_poller(self, meters: list[Meter]) -> MeterPoller:
        by_id = {meter.entry.meter_id: meter for meter in meters}
        interval_s = self._settings.poll.meter_interval_s
        return MeterPoller(by_id, self._site_clock, self._rng, self.sealer.add, interval_s=interval_s)

    def _curtailment(
        self,
        identity: Identity,
        inventory: tuple[MinerEntry, ...],
        controls: Mapping[str, MinerControl | OutletControl],
        meters: list[Meter],
    ) -> LocalCurtail:
        settings = self._settings
        rules = site_rules(settings, identity.agent_id, untouchable(settings, inventory))
        return LocalCurtail(
            rules=rules,
            miners=tuple(site_miner(entry, controllable=switchable(entry)) for entry in inventory),
            writer=self._writer,
            outbox=self.buffer,
            clock=self._clock,
            ids=self._ids,
            order_keys=KeyRing(identity.order_keys),
            time_keys=KeyRing(identity.time_keys),
            controls=controls.__getitem__,
            feeder_meters={meter.entry.feeder_id: meter for meter in meters if meter.entry.kind == "feeder"},
            latest=self._latest,
            precedence=self._precedence,
            files=SiteFiles(settings.site.state_dir),
            secrets=self._secrets,
            site_w=self._site_w,
            outside=self._outside,
        )

    def _local_requests(self, inventory: tuple[MinerEntry, ...]) -> LocalRequests:
        fixed = {entry.miner_id for entry in inventory if not switchable(entry)}
        return LocalRequests(
            self._settings.site.state_dir,
            self.curtail,
            inventory,
            frozenset(fixed) | untouchable(self._settings, inventory),
            self._latest,
            self._meter_ages_s,
            self._clock,
            version(),
            os.getpid(),
        )

    def _certificate_keeper(self, identity: Identity) -> Renewal:
        settings = self._settings
        return Renewal(
            settings.identity_dir,
            identity,
            self._site_clock.now,
            asker(settings.link),
            self._go_over,
            Backoff(self._rng, 60.0, 3600.0),
        )

    def _go_over(self, identity: Identity) -> None:
        self.uplink = uplink_of(self._settings.link, identity, self._site_clock, self._ids)
        self.forwarder.change(self.uplink)

    def _forwarder(self, identity: Identity) -> Forwarder:
        return Forwarder(
            self.uplink,
            self.buffer,
            self._site_clock,
            self._ids,
            Backoff(self._rng, 0.5, 5.0),
            Introduction(identity.site_id, identity.agent_id, version(), self._ids()),
            partial(self._facts, KeyRing(identity.order_keys).key_ids),
            self.curtail.journal,
            self.curtail.site_time,
            self._settings.link.heartbeat_s,
        )

    def _facts(self, key_ids: tuple[str, ...]) -> SiteFacts:
        journal = self.curtail.journal
        trust, taken = self.curtail.site_time.now()[1], journal.taken
        return SiteFacts(
            journal.plan_revision, trust, key_ids, taken.highest, taken.order_id, self._keeper.identity.generation
        )

    async def _load(self) -> None:
        await self._formers.load()
        await self.curtail.load()
        self._loaded = True

    async def _run_curtailment(self) -> None:
        # After a failure its memory may be ahead of its journal: what is on disk is what was promised.
        if not self._loaded:
            await self._load()
        self._loaded = False
        await self.curtail.run()

    async def _report(self) -> None:
        path = self._settings.site.state_dir / "status.json"
        while True:
            miners = Counter(
                reading.state.value if reading.reason is Reason.NONE else f"{reading.state} ({reading.reason})"
                for reading in self.poller.latest.values()
            )
            status = DaemonStatus(
                version=version(),
                boot_id=self._clock.boot_id(),
                mono_s=self._clock.monotonic(),
                written_at=self._site_clock.now(),
                link_up=self.forwarder.link_up,
                link_age_s=self.forwarder.link_age_s,
                miners=miners,
                curtailed=self.curtail.status().counts,
                disk_is_full=self.buffer.disk_is_full,
                link_trouble=self.forwarder.link_trouble,
                certificate=self._keeper.standing,
            )
            await on_disk(partial(write_status, path, status))
            await asyncio.sleep(self._settings.link.heartbeat_s)

    async def _show_link(self) -> None:
        while True:
            await self.uplink.show(self.forwarder.link_up)
            await asyncio.sleep(self._settings.link.heartbeat_s)

    async def _tell(self, code: NoticeCode, detail: str) -> None:
        notice = Notice(self._ids(), self._site_clock.now(), code, self._settings.site.site_id, detail)
        try:
            await self.curtail.tell(notice)
        except Transient as error:
            _LOG.warning("the notice %s could not be kept: %s", code, error)

    async def _finish(self) -> None:
        try:
            await self.sealer.flush()
        except Transient as error:
            _LOG.error("the last readings could not be kept: %s", error)
        await self._fleet.aclose()


def _schemas(connection: sqlite3.Connection) -> None:
    buffer_schema(connection)
    curtail_schema(connection)


def _outside(settings: Settings, fleet: Fleet, clock: Clock) -> Outside:
    """Return the prices and the thermometer that the site's own rule goes by."""
    rule = settings.fallback.rule
    prices = rule.file if isinstance(rule, PriceSettings) else None
    zone = ZoneInfo(rule.timezone) if isinstance(rule, PriceSettings) else UTC
    thermometer = None
    if isinstance(rule, TemperatureSettings) and rule.thermometer:
        (meter,) = fleet.meters((MeterEntry(_THERMOMETER, "site", "", parse_source(rule.thermometer)),), clock)
        thermometer = meter.read
    return Outside(clock, prices, zone, thermometer)


def version() -> str:
    """Return the agent's version."""
    return metadata.version("ballast-agent")
