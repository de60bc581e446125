"""Drives the miners itself: for a site whose daemon is dead.

    miners, 64 at a time: first look -> intent in the ledger -> order -> looked at until it shows, or the deadline
    feeder meters before and after: what the devices claim must have left the feeder

Invariants: a miner counts as done only when it has been read back, and a stop only when its feeder's meter, where there
is one, leaves no room for it still to draw. One miner's failure is its own. The caller holds the journal's lock.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from agent.cgminer.control.driver import LOOK_S, SEND_AGAIN_S
from agent.cgminer.whose import check_whose
from agent.descriptors import open_files
from agent.errors import AccessDenied, AgentError, Permanent, Refused, Transient, UnsupportedDevice
from agent.failsafe.choice import Figures
from agent.failsafe.ledger import Intent, Ledger
from agent.failsafe.report import WANTED, progress_line, report
from agent.failsafe.sights import Sight, show
from agent.findings import Finding, Proof, weigh
from agent.fleet import switchable
from agent.local_curtail.evidence import FeederBefore, judge_start, reads_idle
from agent.local_curtail.ports import Control, FeederMeter, Observed
from agent.local_curtail.rules import ASSUMED_NAMEPLATE_W
from agent.reasons import in_words
from agent.settings import Settings
from sitelink.clock import Clock
from sitelink.inventory import MinerEntry
from sitelink.types import MinerState, Verb
from sitelink.units import Watts

_CONCURRENCY: Final = 64
_OTHER_FILES: Final = 32
_PROGRESS_S: Final = 5.0
_SAMPLES: Final = 3
_SAMPLE_S: Final = 0.25
_BEFORE_S: Final = 2.0
_AFTER_S: Final = 10.0
"""Where many meters share a gateway they answer one after the other; what was sent is proven by them."""
_START_DEADLINE_S: Final = 30.0
_NOT_TAKEN: Final = (Refused, AccessDenied, UnsupportedDevice)
"""After these nothing has changed at the device; after a garbled answer it may have."""
_Order = Callable[[], Awaitable[None]]
_Shows = Callable[[Observed], str | None]


class Failsafe:
    """One run of the command over miners that nobody else drives meanwhile."""

    def __init__(
        self,
        settings: Settings,
        spared: frozenset[str],
        controls: dict[str, Control],
        meters: dict[str, FeederMeter],
        clock: Clock,
        ledger: Ledger,
        say: Callable[[str], None],
        at_once: int = _CONCURRENCY,
    ) -> None:
        """``spared`` are the miners that no order may touch; ``at_once`` are talked to at a time."""
        self._settings = settings
        self._spared = spared
        self._controls = controls
        self._meters = meters
        self._clock = clock
        self._ledger = ledger
        self._say = say
        self._at_once = at_once
        self._places = asyncio.Semaphore(at_once)
        self._done: set[str] = set()
        self._ordered = 0
        self._order_id = ""
        self._before: dict[str, FeederBefore | None] = {}
        self._unfinished: dict[str, Intent] = {}

    async def status(self, entries: tuple[MinerEntry, ...]) -> int:
        """Print how each miner reads; return 1 when the state of one is unknown."""
        return show(await asyncio.gather(*(self._look(entry) for entry in entries)), self._say)

    async def figures(self, entries: tuple[MinerEntry, ...]) -> dict[str, Figures]:
        """Return what each miner that answers says of itself now."""
        seen = await asyncio.gather(*(self._figures(entry) for entry in entries))
        return {entry.miner_id: found for entry, found in zip(entries, seen, strict=True) if found is not None}

    async def switch(self, verb: Verb, entries: tuple[MinerEntry, ...], order_id: str) -> int:
        """Order ``verb`` of each miner, and print what is proven; return 1 when one is not."""
        feeders = sorted({entry.feeder_id for entry in entries} & set(self._meters))
        self._before = await self._measured(feeders)
        if verb is Verb.STOP:
            self._go_on_from(entries)
        self._say(f"{verb.value}: {len(entries)} miners, {self._at_once} at a time")
        self._order_id = order_id
        progress = asyncio.create_task(self._tell_progress([entry.miner_id for entry in entries]))
        try:
            findings = await asyncio.gather(*(self._counted(entry, verb) for entry in entries))
        except asyncio.CancelledError:
            self._say(
                f"interrupted: {self._ordered} of {len(entries)} miners were ordered, {len(self._done)} looked at to "
                "the end; what was sent is recorded, and the override stands: failsafe release ends it"
            )
            raise
        finally:
            progress.cancel()
        if verb is Verb.START:
            return report(findings, (), WANTED[verb], self._say)
        before_w = {feeder: None if item is None else item.power_w for feeder, item in self._before.items()}
        weighed, lines = weigh(findings, before_w, await self._read(feeders, _AFTER_S))
        return report(weighed, lines, WANTED[verb], self._say)

    def _go_on_from(self, entries: tuple[MinerEntry, ...]) -> None:
        """Take up the stops of a run that was killed: what it measured before them is what their feeders fell from.

        Where it also stopped miners that are not of this run, their fall is not to be told apart: then nothing is.
        """
        unfinished = self._ledger.unfinished()
        by_id = {entry.miner_id: entry for entry in entries}
        if not unfinished.keys() <= by_id.keys():
            return
        self._unfinished = unfinished
        for name, intent in unfinished.items():
            feeder, before = by_id[name].feeder_id, intent.before
            measured = self._before.get(feeder)
            if before is not None and measured is not None and before.power_w > measured.power_w:
                self._before[feeder] = before
        if unfinished:
            self._say(f"going on from a run that did not end: {len(unfinished)} miners were told to stop already")

    async def _tell_progress(self, ids: list[str]) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_S)
            self._say(progress_line(ids, self._done))

    async def _counted(self, entry: MinerEntry, verb: Verb) -> Finding:
        finding = await self._alone(entry, self._stop(entry) if verb is Verb.STOP else self._start(entry))
        self._done.add(entry.miner_id)
        proven = finding.proof is Proof.YES
        await self._ledger.found(
            entry.miner_id, verb, self._order_id, proven=proven, unsent=finding.unsent, what=finding.what
        )
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

    async def _look(self, entry: MinerEntry) -> Sight:
        """Return how one miner reads; its failure, whatever it is, is its own."""
        async with self._places:
            try:
                seen = await self._seen(entry)
            except AgentError as error:
                return Sight(entry, MinerState.UNKNOWN, str(error))
            except Exception as error:  # noqa: BLE001 - each miner's supervisor; the table shows it
                return Sight(entry, MinerState.UNKNOWN, f"failed: {error!r}")
        return Sight(entry, seen.state, in_words(seen.reason.value), seen.power_w)

    async def _figures(self, entry: MinerEntry) -> Figures | None:
        async with self._places:
            try:
                seen = await self._seen(entry)
            except AgentError:
                return None
            except Exception:  # noqa: BLE001 - each miner's supervisor: one that cannot be read is not picked
                return None
        return Figures(seen.state, seen.power_w, seen.hashrate_ths)

    async def _seen(self, entry: MinerEntry) -> Observed:
        """Return how a miner reads, once who answers has said that it is the one; a stranger's figures are not its."""
        control = self._controls[entry.miner_id]
        seen = await control.observe()
        await check_whose(control, entry.miner_id)
        return seen

    async def _stop(self, entry: MinerEntry) -> Finding:
        refused = self._untouchable(entry)
        if refused is not None:
            return refused
        control = self._controls[entry.miner_id]
        share = self._settings.control.idle_share
        first = await _first_look(control)
        hashing = first.state is MinerState.HASHING
        baseline_w = first.power_w if hashing and first.power_w else entry.nameplate_w or ASSUMED_NAMEPLATE_W
        found = Finding(entry, Proof.NO, "still hashing after the order", first.power_w, was_hashing=hashing)
        intent = Intent(entry.miner_id, Verb.STOP, self._order_id)
        told = self._unfinished.get(entry.miner_id)
        if told is not None and told.baseline_w is not None:
            baseline_w = told.baseline_w
            found = replace(found, before_w=baseline_w, was_hashing=True)
            intent = replace(intent, baseline_w=baseline_w, before=told.before)
        elif hashing:
            intent = replace(intent, baseline_w=baseline_w, before=self._before.get(entry.feeder_id))
        await self._intend(intent)
        return await self._until(
            found,
            control.stop,
            lambda seen: f"{seen.state.value}, read back" if reads_idle(seen, baseline_w, share) else None,
            self._settings.control.device_deadline_s,
        )

    async def _start(self, entry: MinerEntry) -> Finding:
        control = self._controls[entry.miner_id]
        first = await _first_look(control)
        refused = self._untouchable(entry)
        if refused is not None:
            runs = first.state is MinerState.HASHING
            return replace(refused, proof=Proof.YES, what="hashing", after_w=first.power_w) if runs else refused
        load_w = entry.nameplate_w or ASSUMED_NAMEPLATE_W

        def back(seen: Observed) -> str | None:
            verdict = judge_start(seen, first.power_w, load_w)
            return None if verdict is None else f"{verdict.reason}, read back"

        found = Finding(entry, Proof.NO, "not hashing after the order", first.power_w)
        await self._intend(Intent(entry.miner_id, Verb.START, self._order_id))
        return await self._until(found, control.start, back, _START_DEADLINE_S)

    async def _intend(self, intent: Intent) -> None:
        await self._ledger.intend(intent)
        self._ordered += 1

    async def _until(self, found: Finding, order: _Order, shows: _Shows, patience_s: float) -> Finding:
        """Order until it is taken, look until it shows; the order's own answer proves nothing."""
        control = self._controls[found.entry.miner_id]
        deadline_s = self._clock.monotonic() + patience_s
        taken, sends, sent_s, trouble = False, 0, float("-inf"), found.what
        while True:
            if not taken and self._clock.monotonic() - sent_s >= SEND_AGAIN_S:
                sent_s, sends = self._clock.monotonic(), sends + 1
                try:
                    await order()
                    taken = True
                except (Permanent, Refused) as error:
                    return replace(found, what=str(error), unsent=sends == 1 and isinstance(error, _NOT_TAKEN))
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
            await asyncio.sleep(LOOK_S)

    def _untouchable(self, entry: MinerEntry) -> Finding | None:
        if entry.miner_id in self._spared:
            return Finding(entry, Proof.NO, "this site never touches it ([limits] never_touch)")
        if not switchable(entry):
            return Finding(
                entry, Proof.NO, f"{entry.dialect} firmware cannot be switched by us; use its own page or breaker"
            )
        return None

    async def _read(self, feeders: Sequence[str], within_s: float) -> dict[str, Watts | None]:
        """Return what each feeder draws now; None where its meter has not answered ``within_s`` seconds."""
        reads = {feeder: asyncio.ensure_future(self._meters[feeder].read()) for feeder in feeders}
        if reads:
            await asyncio.wait(reads.values(), timeout=within_s)
        late = [read for read in reads.values() if not read.done()]
        for read in late:
            read.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return {feeder: None if read.cancelled() else read.result().power_w for feeder, read in reads.items()}

    async def _measured(self, feeders: list[str]) -> dict[str, FeederBefore | None]:
        """Return what each feeder draws before anything is sent, from a few samples; None when its meter is silent.

        No order waits longer than ``_BEFORE_S`` for them: a silent meter is not asked a second time.
        """
        samples: dict[str, list[Watts]] = {feeder: [] for feeder in feeders}
        ends_s, speaking = self._clock.monotonic() + _BEFORE_S, list(feeders)
        for place in range(_SAMPLES):
            if place and speaking:
                await asyncio.sleep(_SAMPLE_S)
            left_s = ends_s - self._clock.monotonic()
            if not speaking or left_s <= 0:
                break
            found = await self._read(speaking, left_s)
            for feeder, power_w in found.items():
                if power_w is not None:
                    samples[feeder].append(power_w)
            speaking = [feeder for feeder in speaking if found[feeder] is not None]
        return {feeder: FeederBefore.of(found) for feeder, found in samples.items()}


async def _first_look(control: Control) -> Observed:
    """Return how a miner reads; a packet may be lost, so one that does not answer is asked twice. Raises AgentError."""
    try:
        return await control.observe()
    except Transient:
        await asyncio.sleep(LOOK_S)
        return await control.observe()


def at_once(meters: int, say: Callable[[str], None]) -> int:
    """Return how many miners can be talked to at a time with the files and sockets that the system allows."""
    others = meters + _OTHER_FILES
    allowed = max(1, open_files(_CONCURRENCY + others) - others)
    if allowed < _CONCURRENCY:
        say(f"warning: few files may be open, so only {allowed} miners at a time; raise ulimit -Hn")
    return allowed
