"""Drives the miners itself: for a site whose daemon is dead.

    miners, 64 at a time: first look -> intent in the ledger -> order -> looked at until it shows, or the deadline
    feeder meters: before the first order; then again and again, with a look at each miner, until they have told

Invariants: a miner counts as done only when it has been read back and who answers has said that it is the one, and a
stop only when its feeder's meter, where there is one, leaves no room for it still to draw (``weighing``), judged as the
daemon judges it. One miner's failure is its own. A stop waits for no limit, a start keeps to the site's, and none goes
to a miner too hot. The caller holds the journal's lock.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from agent.cgminer.control.driver import LOOK_S, SEND_AGAIN_S
from agent.cgminer.observation import Observation
from agent.cgminer.whose import check_whose
from agent.descriptors import open_files
from agent.errors import AccessDenied, AgentError, Permanent, Refused, Transient, UnsupportedDevice
from agent.failsafe.choice import Figures
from agent.failsafe.ledger import Earlier, Intent, Ledger
from agent.failsafe.readings import Readings
from agent.failsafe.report import WANTED, progress_line, report
from agent.failsafe.settling import Settling
from agent.failsafe.sights import Sight
from agent.failsafe.stops import Stop, Told, stop_of
from agent.failsafe.weighing import Weighing
from agent.findings import Finding, Proof
from agent.fleet import switchable
from agent.local_curtail.evidence import MeterWord, judge_start
from agent.local_curtail.heat import NO_HEAT_RULES, Heat, HeatRules, look_of
from agent.local_curtail.policy import TOO_HOT
from agent.local_curtail.ports import Control, FeederMeter, Observed, Warm
from agent.local_curtail.ramp import Pace, SitePace, Switched
from agent.local_curtail.rules import ASSUMED_NAMEPLATE_W
from agent.reasons import cause_of, in_words, next_step
from agent.settings import Settings
from sitelink.clock import Clock
from sitelink.inventory import MinerEntry
from sitelink.types import MinerState, Verb
from sitelink.units import Watts

_CONCURRENCY: Final = 64
_OTHER_FILES: Final = 32
_PROGRESS_S: Final = 5.0
_START_DEADLINE_S: Final = 30.0
_NOT_TAKEN: Final = (Refused, AccessDenied, UnsupportedDevice)
"""After these nothing has changed at the device; after a garbled answer it may have."""
_Answer = TypeVar("_Answer")
_Order = Callable[[], Awaitable[None]]
_Shows = Callable[[Observed | None, float], bool]
"""Whether what was ordered shows in a look (None: the miner was silent) that began at a monotonic second."""


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
        fleet: Sequence[MinerEntry] = (),
        heat: HeatRules = NO_HEAT_RULES,
    ) -> None:
        """``spared`` are the miners that no order may touch; ``at_once`` are talked to at a time.

        ``fleet`` are all that ``controls`` reach, those too that are only looked at, beside the ones that are ordered.
        By ``heat`` no miner is started that is too hot.
        """
        self._settings = settings
        self._spared = spared
        self._controls = controls
        self._clock = clock
        self._ledger = ledger
        self._say = say
        self._at_once = at_once
        self._fleet = tuple(fleet)
        self._places = asyncio.Semaphore(at_once)
        self._done: set[str] = set()
        self._ordered = 0
        self._order_id = ""
        self._heat = heat
        self._pace = SitePace(Pace(settings.limits.max_step_w, settings.limits.max_per_min_w))
        self._earlier = Earlier()
        share, readings = settings.control.idle_share, Readings(meters, clock)
        self._settling = Settling(readings, controls, fleet, self._places, clock, share, say)

    async def looks(self, entries: tuple[MinerEntry, ...]) -> list[Sight]:
        """Return how each miner reads now."""
        return list(await asyncio.gather(*(self._look(entry) for entry in entries)))

    async def figures(self, entries: tuple[MinerEntry, ...]) -> dict[str, Figures]:
        """Return what each miner that answers says of itself now."""
        seen = await asyncio.gather(*(self._figures(entry) for entry in entries))
        return {entry.miner_id: found for entry, found in zip(entries, seen, strict=True) if found is not None}

    async def switch(self, verb: Verb, entries: tuple[MinerEntry, ...], order_id: str) -> int:
        """Order ``verb`` of each miner, and print what is proven; return 1 when one is not."""
        if verb is Verb.STOP:
            await self._settling.measure(entries)
            await self._go_on_from(entries)
        self._say(f"{verb.value}: {len(entries)} miners, {self._at_once} at a time")
        self._order_id = order_id
        self._take_up_pace(entries)
        progress = asyncio.create_task(self._tell_progress([entry.miner_id for entry in entries]))
        try:
            found = await asyncio.gather(*(self._counted(entry, verb) for entry in entries))
            progress.cancel()
            weighings = await self._settling.settle([each for each in found if isinstance(each, Stop)])
        except asyncio.CancelledError:
            self._say(
                f"interrupted: {self._ordered} of {len(entries)} miners were ordered, {len(self._done)} looked at to "
                "the end; what was sent is recorded, and the override stands: failsafe release ends it"
            )
            raise
        finally:
            progress.cancel()
        findings = await asyncio.gather(*(self._judged(each, weighings) for each in found))
        missing = sum(finding.proof is not Proof.YES for finding in findings)
        await self._ledger.ended(order_id, f"{len(findings) - missing} of {len(findings)} miners {WANTED[verb]}")
        balances = [balance for weighing in weighings.values() if (balance := weighing.balance()) is not None]
        await self._ledger.balanced({entry.feeder_id for entry in entries}, balances)
        lines = [line for weighing in weighings.values() if (line := weighing.line())]
        return report(findings, lines, WANTED[verb], self._say)

    async def _go_on_from(self, entries: tuple[MinerEntry, ...]) -> None:
        """Take up the stops of a run that was killed: what it measured before them is what their feeders fell from.

        Where it also stopped miners that are not of this run, their fall is not to be told apart: then nothing is.
        """
        self._earlier = await self._ledger.earlier()
        unfinished = self._earlier.unfinished
        by_id = {entry.miner_id: entry for entry in entries}
        if not unfinished.keys() <= by_id.keys():
            self._earlier = replace(self._earlier, unfinished={})
            return
        for name, intent in unfinished.items():
            feeder, before = by_id[name].feeder_id, intent.before
            measured = self._settling.before.get(feeder)
            if before is not None and measured is not None and before.power_w > measured.power_w:
                self._settling.before[feeder] = before
        if unfinished:
            self._say(f"going on from a run that did not end: {len(unfinished)} miners were told to stop already")

    async def _judged(self, each: Finding | Stop, weighings: Mapping[str, Weighing]) -> Finding:
        if isinstance(each, Finding):
            return each
        weighing = weighings.get(each.entry.feeder_id)
        finding = each.finding(MeterWord.NONE if weighing is None else weighing.word(each.member))
        if finding.proof is Proof.YES:
            finding = await self._vouched(finding)
        if not each.told.refused:
            await self._note(finding, Verb.STOP)
        return finding

    async def _vouched(self, finding: Finding) -> Finding:
        """Return ``finding``, unproven unless who answers now is the miner: a look tells what it does, not who."""
        name = finding.entry.miner_id
        async with self._places:
            try:
                await _twice(lambda: check_whose(self._controls[name], name))
            except AgentError as error:
                return replace(finding, proof=Proof.NO, what=str(error), verdict=None)
            except Exception as error:  # noqa: BLE001 - each miner's supervisor; the table shows it
                return replace(finding, proof=Proof.NO, what=f"failed: {error!r}", verdict=None)
        return finding

    async def _note(self, finding: Finding, verb: Verb) -> None:
        await self._ledger.found(finding, verb, self._order_id)

    async def _tell_progress(self, ids: list[str]) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_S)
            self._say(progress_line(ids, self._done))

    async def _counted(self, entry: MinerEntry, verb: Verb) -> Finding | Stop:
        """Do one miner's work; a stop whose feeder has yet to tell is returned as it stands."""
        found = await self._alone(entry, self._stop(entry) if verb is Verb.STOP else self._start(entry))
        self._done.add(entry.miner_id)
        if isinstance(found, Finding):
            if found.proof is Proof.YES:
                found = await self._vouched(found)
            await self._note(found, verb)
        elif found.told.refused:
            await self._note(found.finding(MeterWord.NONE), verb)
        return found

    async def _alone(self, entry: MinerEntry, work: Awaitable[Finding | Stop]) -> Finding | Stop:
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
        by_outlet = isinstance(seen, Observation) and seen.by_outlet
        return Sight(entry, seen.state, in_words("outlet_off" if by_outlet else seen.reason.value), seen.power_w)

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

    async def _stop(self, entry: MinerEntry) -> Finding | Stop:
        refused = self._untouchable(entry)
        if refused is not None:
            return refused
        control, began_s = self._controls[entry.miner_id], self._clock.monotonic()
        first = await _twice(control.observe)
        stop = stop_of(entry, first, self._settings.control.idle_share, self._earlier)
        member = stop.member
        member.look(first, began_s, self._clock.monotonic())
        intent = Intent(entry.miner_id, Verb.STOP, self._order_id)
        if stop.was_hashing and not member.resumed:
            told = self._earlier.unfinished.get(entry.miner_id)
            before = self._settling.before.get(entry.feeder_id) if told is None else told.before
            intent = replace(intent, baseline_w=member.load_w, before=before)
        await self._intend(intent)
        if intent.baseline_w is not None:
            member.sent(self._clock.monotonic())

        def off(seen: Observed | None, began_s: float) -> bool:
            member.look(seen, began_s, self._clock.monotonic())
            return seen is not None and member.idle_s is not None

        stop.told = await self._until(control, control.stop, off, self._settings.control.device_deadline_s)
        if stop.told.unsent:
            member.withdraw()
        return stop

    async def _start(self, entry: MinerEntry) -> Finding:
        control = self._controls[entry.miner_id]
        first = await _twice(control.observe)
        refused = self._untouchable(entry)
        if refused is not None:
            runs = first.state is MinerState.HASHING
            return replace(refused, proof=Proof.YES, what="hashing", after_w=first.power_w) if runs else refused
        heat = await self._too_hot(entry, first)
        if heat:
            return Finding(entry, Proof.NO, heat, first.power_w, unsent=True)
        load_w = entry.nameplate_w or ASSUMED_NAMEPLATE_W
        found = Finding(entry, Proof.NO, "not hashing after the order", first.power_w)

        def back(seen: Observed | None, _: float) -> bool:
            nonlocal found
            verdict = None if seen is None else judge_start(seen, first.power_w, load_w)
            if seen is not None:
                found = replace(found, after_w=seen.power_w)
            if verdict is not None:
                found = replace(found, proof=Proof.YES, what=f"{verdict.reason}, read back")
            return verdict is not None

        await self._its_turn(entry.miner_id, load_w)
        await self._intend(Intent(entry.miner_id, Verb.START, self._order_id))
        told = await self._until(control, control.start, back, _START_DEADLINE_S)
        if found.proof is Proof.YES or (told.taken and not told.refused):
            return found
        return replace(found, what=told.trouble or found.what, unsent=told.unsent)

    async def _too_hot(self, entry: MinerEntry, first: Observed) -> str:
        """Return why a miner must not be started, "" where two looks do not agree that it is too hot."""
        heat, seen = Heat(self._heat.of(entry.rack, entry.feeder_id, entry.model)), first
        for number in range(2):
            if isinstance(seen, Warm):
                heat.shown(look_of(float(number + 1), seen.board_temps_c, seen.chip_temps_c, seen.power_w))
            if not heat.suspect:
                break
            await asyncio.sleep(LOOK_S)
            seen = await _twice(self._controls[entry.miner_id].observe)
        return f"{cause_of(TOO_HOT)} ({heat.words()}): {next_step(TOO_HOT)}" if heat.held else ""

    def _take_up_pace(self, entries: tuple[MinerEntry, ...]) -> None:
        """Count what was started a moment ago; a stop by hand is never slowed, a start keeps to the site's limits."""
        loads_w = {entry.miner_id: entry.nameplate_w or ASSUMED_NAMEPLATE_W for entry in (*self._fleet, *entries)}
        now_s, ago_s = self._clock.monotonic(), self._ledger.started_ago_s()
        self._pace.remember(
            Verb.START,
            (Switched(name, now_s - s, loads_w.get(name, ASSUMED_NAMEPLATE_W)) for name, s in ago_s.items()),
        )

    async def _its_turn(self, miner_id: str, load_w: Watts) -> None:
        while True:
            now_s = self._clock.monotonic()
            if self._pace.fits(Verb.START, load_w, now_s):
                self._pace.take(Verb.START, miner_id, load_w, now_s)
                return
            await asyncio.sleep(LOOK_S)

    async def _intend(self, intent: Intent) -> None:
        await self._ledger.intend(intent)
        self._ordered += 1

    async def _until(self, control: Control, order: _Order, shows: _Shows, patience_s: float) -> Told:
        """Order until it is taken, look until it shows; the order's own answer proves nothing."""
        deadline_s = self._clock.monotonic() + patience_s
        taken, sends, sent_s, untold = False, 0, float("-inf"), ""
        while True:
            if not taken and self._clock.monotonic() - sent_s >= SEND_AGAIN_S:
                sent_s, sends = self._clock.monotonic(), sends + 1
                try:
                    await order()
                    taken, untold = True, ""
                except (Permanent, Refused) as error:
                    unsent = sends == 1 and isinstance(error, _NOT_TAKEN)
                    return Told(taken, str(error), refused=True, unsent=unsent)
                except AgentError as error:
                    untold = str(error)
            seen, silent, began_s = None, "", self._clock.monotonic()
            try:
                seen = await control.observe()
            except AgentError as error:
                silent = str(error)
            if shows(seen, began_s):
                return Told(taken)
            if self._clock.monotonic() >= deadline_s:
                return Told(taken, untold or silent)
            await asyncio.sleep(LOOK_S)

    def _untouchable(self, entry: MinerEntry) -> Finding | None:
        if entry.miner_id in self._spared:
            return Finding(entry, Proof.NO, "this site never touches it ([limits] never_touch)")
        if not switchable(entry):
            return Finding(
                entry, Proof.NO, f"{entry.dialect} firmware cannot be switched by us; use its own page or breaker"
            )
        return None


async def _twice(ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """Return what a miner answers; a packet may be lost, so one that does not is asked twice. Raises AgentError."""
    try:
        return await ask()
    except Transient:
        await asyncio.sleep(LOOK_S)
        return await ask()


def at_once(meters: int, say: Callable[[str], None]) -> int:
    """Return how many miners can be talked to at a time with the files and sockets that the system allows."""
    others = meters + _OTHER_FILES
    allowed = max(1, open_files(_CONCURRENCY + others) - others)
    if allowed < _CONCURRENCY:
        say(f"warning: few files may be open, so only {allowed} miners at a time; raise ulimit -Hn")
    return allowed
