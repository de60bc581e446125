"""Stop, start and look at miners with the cloud, the link, the broker and the daemon dead.

    override row in agent.db --> every living or later daemon keeps to it until it expires
    miners, 64 at a time: first look -> order -> looked at until it shows, or the deadline
    feeder meters before and after: what the devices claim must have left the feeder

Invariants: no generated messages, grpc or broker are imported; a miner counts as done only when it has been read back,
and a stop only when its feeder's meter, where there is one, leaves no room for it still to draw. A database that cannot
be opened is said and does not keep anybody from stopping a miner. Exit code 1 when any miner asked for is not proven
done.
"""

import asyncio
import sqlite3
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final, TextIO, TypeVar

from agent.descriptors import open_files
from agent.errors import AgentError, BadInput, Permanent, Refused, Transient
from agent.findings import Finding, Proof, table, verdict, weigh
from agent.fleet import control_of, device_of, switchable, untouchable
from agent.inventory import load_as_found, load_meters
from agent.local_curtail import overrides
from agent.local_curtail.evidence import judge_start, reads_idle
from agent.local_curtail.formers import FormersOnFile
from agent.local_curtail.ports import Control, FeederMeter, Observed
from agent.local_curtail.rules import ASSUMED_NAMEPLATE_W
from agent.local_curtail.schema import schema
from agent.meters import ModbusMeter
from agent.settings import Settings
from agent.storage import StorageLost, connect, in_transaction, is_there
from agent.vault import Vault
from sitelink.clock import Clock, SystemClock
from sitelink.inventory import MinerEntry
from sitelink.types import MinerState, Verb
from sitelink.units import Watts

_CONCURRENCY: Final = 64
_OTHER_FILES: Final = 32
_LOOK_S: Final = 1.0
_START_DEADLINE_S: Final = 30.0
_SEND_AGAIN_S: Final = 3.0
_Result = TypeVar("_Result")
_Order = Callable[[], Awaitable[None]]
_Shows = Callable[[Observed], str | None]
_VERBS: Final = {"off": Verb.STOP, "on": Verb.START}


async def run_failsafe(
    settings: Settings, action: str, miners: tuple[str, ...], duration: timedelta, out: TextIO
) -> int:
    """Stop ("off"), start ("on") or look at ("status") ``miners`` (none: all) and print what is proven of each.

    Returns:
        0 when everything asked for is proven, else 1.

    Raises:
        BadInput: the inventory is broken or lists no miner, or a miner named, here or as never to be touched, is not
            in it.
    """
    fleet = load_as_found(settings.site.inventory, settings.site.state_dir)
    if not fleet:
        raise BadInput(f"{settings.site.inventory}: no miner is listed; write one row for each miner of the site")
    chosen = _chosen(fleet, miners, settings)
    spared = untouchable(settings, fleet)
    clock = SystemClock()
    meters = _feeder_meters(settings, clock, out)
    vault = Vault.open(settings)
    if vault.problem is not None:
        print(f"vault: {vault.problem}", file=out, flush=True)
    formers = FormersOnFile(settings.database)
    controls = {
        entry.miner_id: control_of(entry, device_of(entry, settings, clock, vault), settings, formers)
        for entry in chosen
    }
    at_once = _at_once(len(meters), out)
    failsafe = Failsafe(settings, spared, dict(controls), dict(meters), clock, out, at_once)
    try:
        if action == "status":
            return await failsafe.status(chosen)
        return await failsafe.switch(_VERBS[action], chosen, frozenset(miners) or None, duration)
    finally:
        for meter in meters.values():
            await meter.close()


class Failsafe:
    """One run of the command."""

    def __init__(
        self,
        settings: Settings,
        spared: frozenset[str],
        controls: dict[str, Control],
        meters: dict[str, FeederMeter],
        clock: Clock,
        out: TextIO,
        at_once: int = _CONCURRENCY,
    ) -> None:
        """``spared`` are the miners that no order may touch; ``at_once`` are talked to at a time."""
        self._settings = settings
        self._spared = spared
        self._controls = controls
        self._meters = meters
        self._clock = clock
        self._out = out
        self._at_once = at_once
        self._places = asyncio.Semaphore(at_once)
        self._done = 0

    async def status(self, entries: tuple[MinerEntry, ...]) -> int:
        """Print how each miner reads and which overrides are in force; return 1 when one does not answer."""
        self._say_overrides()
        findings = await asyncio.gather(*(self._alone(entry, self._look(entry)) for entry in entries))
        return self._report(findings, [], "answer")

    async def switch(
        self, verb: Verb, entries: tuple[MinerEntry, ...], named: frozenset[str] | None, duration: timedelta
    ) -> int:
        """Store the override, order ``verb`` of each miner, and print what is proven; return 1 when one is not."""
        self._override(verb, named, duration)
        feeders = sorted({entry.feeder_id for entry in entries} & set(self._meters))
        before_w = await self._read(feeders)
        self._say(f"{verb.value}: {len(entries)} miners, {self._at_once} at a time")
        findings = await asyncio.gather(*(self._counted(entry, verb, len(entries)) for entry in entries))
        if verb is Verb.START:
            return self._report(findings, [], "proven running")
        weighed, lines = weigh(findings, before_w, await self._read(feeders))
        return self._report(weighed, lines, "proven off")

    async def _counted(self, entry: MinerEntry, verb: Verb, total: int) -> Finding:
        finding = await self._alone(entry, self._stop(entry) if verb is Verb.STOP else self._start(entry))
        self._done += 1
        if self._done % 25 == 0 and self._done < total:
            self._say(f"  {self._done} of {total} looked at")
        return finding

    async def _alone(self, entry: MinerEntry, work: Awaitable[Finding]) -> Finding:
        """Do one miner's work; its failure, whatever it is, is its own: the others are still stopped."""
        async with self._places:
            try:
                return await work
            except AgentError as error:
                return Finding(entry, Proof.NO, str(error))
            except Exception as error:  # noqa: BLE001 - each miner's supervisor; the table shows it
                return Finding(entry, Proof.NO, f"failed: {error!r}")

    async def _look(self, entry: MinerEntry) -> Finding:
        seen = await self._controls[entry.miner_id].observe()
        return Finding(entry, Proof.YES, f"{seen.state.value} ({seen.reason.value})", after_w=seen.power_w)

    async def _stop(self, entry: MinerEntry) -> Finding:
        refused = self._untouchable(entry)
        if refused is not None:
            return refused
        control = self._controls[entry.miner_id]
        share = self._settings.control.idle_share
        first = await control.observe()
        hashing = first.state is MinerState.HASHING
        baseline_w = first.power_w if hashing and first.power_w else entry.nameplate_w or ASSUMED_NAMEPLATE_W
        found = Finding(entry, Proof.NO, "still hashing after the order", first.power_w, was_hashing=hashing)
        return await self._until(
            found,
            control.stop,
            lambda seen: f"{seen.state.value}, read back" if reads_idle(seen, baseline_w, share) else None,
            self._settings.control.device_deadline_s,
        )

    async def _start(self, entry: MinerEntry) -> Finding:
        control = self._controls[entry.miner_id]
        first = await control.observe()
        refused = self._untouchable(entry)
        if refused is not None:
            runs = first.state is MinerState.HASHING
            return replace(refused, proof=Proof.YES, what="hashing", after_w=first.power_w) if runs else refused
        load_w = entry.nameplate_w or ASSUMED_NAMEPLATE_W

        def back(seen: Observed) -> str | None:
            verdict = judge_start(seen, first.power_w, load_w)
            return None if verdict is None else f"{verdict.reason}, read back"

        found = Finding(entry, Proof.NO, "not hashing after the order", first.power_w)
        return await self._until(found, control.start, back, _START_DEADLINE_S)

    async def _until(self, found: Finding, order: _Order, shows: _Shows, patience_s: float) -> Finding:
        """Order until it is taken, look until it shows; the order's own answer proves nothing."""
        control = self._controls[found.entry.miner_id]
        deadline_s = self._clock.monotonic() + patience_s
        taken, sent_s, trouble = False, float("-inf"), found.what
        while True:
            if not taken and self._clock.monotonic() - sent_s >= _SEND_AGAIN_S:
                sent_s = self._clock.monotonic()
                try:
                    await order()
                    taken = True
                except (Permanent, Refused) as error:
                    return replace(found, what=str(error))
                except AgentError as error:
                    trouble = str(error)
            try:
                seen = await control.observe()
            except AgentError as error:
                trouble = str(error)
            else:
                found = replace(found, after_w=seen.power_w)
                proof = shows(seen)
                if proof is not None:
                    return replace(found, proof=Proof.YES, what=proof)
            if self._clock.monotonic() >= deadline_s:
                return replace(found, what=found.what if taken else trouble)
            await asyncio.sleep(_LOOK_S)

    def _untouchable(self, entry: MinerEntry) -> Finding | None:
        if entry.miner_id in self._spared:
            return Finding(entry, Proof.NO, "this site never touches it ([limits] never_touch)")
        if not switchable(entry):
            return Finding(
                entry, Proof.NO, f"{entry.dialect} firmware cannot be switched by us; use its own page or breaker"
            )
        return None

    def _override(self, verb: Verb, named: frozenset[str] | None, duration: timedelta) -> None:
        override_id = f"failsafe-{uuid.uuid4().hex[:12]}"
        try:
            self._settings.database.parent.mkdir(parents=True, exist_ok=True)
            self._in_database(lambda db: overrides.write(db, override_id, verb, named, duration, self._clock))
        except (OSError, BadInput) as error:
            self._say(f"warning: no override could be stored ({error}); a daemon may undo this: stop it")
            return
        until = self._clock.now() + duration
        self._say(f"override {override_id}: the daemon keeps to it until {until:%Y-%m-%d %H:%M} UTC")

    def _say_overrides(self) -> None:
        try:
            if not is_there(self._settings.database):
                self._say("no override: the agent has not run here yet")
                return
            stored = self._in_database(lambda db: overrides.active(db, self._clock))
        except BadInput as error:
            self._say(f"overrides: unknown ({error})")
            return
        for item in stored:
            scope = "all miners" if item.override.miner_ids is None else f"{len(item.override.miner_ids)} miners"
            self._say(f"override: {item.override.verb.value} of {scope} until {item.until:%Y-%m-%d %H:%M} UTC")
        if not stored:
            self._say("no override in force")

    def _in_database(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Return ``work(connection)`` after committing its transaction.

        Raises:
            BadInput: the file cannot be used, whatever is wrong with it; no miner waits for its repair.
        """
        path = self._settings.database
        try:
            connection = connect(path)
            try:
                in_transaction(connection, schema)
                return in_transaction(connection, work)
            finally:
                connection.close()
        except (sqlite3.Error, Transient, StorageLost) as error:
            raise BadInput(f"{path}: {error.__cause__ or error}") from None

    async def _read(self, feeders: list[str]) -> dict[str, Watts | None]:
        samples = await asyncio.gather(*(self._meters[feeder].read() for feeder in feeders))
        return {feeder: sample.power_w for feeder, sample in zip(feeders, samples, strict=True)}

    def _report(self, findings: list[Finding], feeder_lines: list[str], wanted: str) -> int:
        for line in (*table(findings), *feeder_lines, *verdict(findings, wanted)):
            self._say(line)
        return 0 if all(finding.proof is Proof.YES for finding in findings) else 1

    def _say(self, line: str) -> None:
        print(line, file=self._out, flush=True)


def _chosen(fleet: tuple[MinerEntry, ...], miners: tuple[str, ...], settings: Settings) -> tuple[MinerEntry, ...]:
    by_id = {entry.miner_id: entry for entry in fleet}
    unknown = [name for name in miners if name not in by_id]
    if unknown:
        raise BadInput(f"--miner: {unknown[0]!r} is not in {settings.site.inventory}; write one of its miner_id")
    return tuple(by_id[name] for name in dict.fromkeys(miners)) if miners else fleet


def _at_once(meters: int, out: TextIO) -> int:
    """Return how many miners can be talked to at a time with the files and sockets that the system allows."""
    others = meters + _OTHER_FILES
    at_once = max(1, open_files(_CONCURRENCY + others) - others)
    if at_once < _CONCURRENCY:
        print(f"warning: few files may be open, so only {at_once} miners at a time; raise ulimit -Hn", file=out)
    return at_once


def _feeder_meters(settings: Settings, clock: Clock, out: TextIO) -> dict[str, ModbusMeter]:
    try:
        entries = load_meters(settings.site.meters)
    except BadInput as error:
        print(f"warning: {error}; going on without meters, on the devices' word alone", file=out)
        return {}
    return {entry.feeder_id: ModbusMeter(entry, clock) for entry in entries if entry.kind == "feeder"}
