"""What the daemon answers at its local socket: overrides set and released, a look, figures, plan, journal.

    one request, checked --> curtailment (the same books and lanes as for every order) --> answers, as they come

Invariants: an override goes on when its client hangs up. A miner that is not known here keeps no order from the others.
"""

import asyncio
import math
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from agent.errors import AgentError, BadInput, Refused
from agent.findings import Proof, of_outlet, proof_of
from agent.local_curtail.records import MinerRecord
from agent.local_curtail.site import LocalCurtail
from agent.local_server import Answer, Ask, LocalServer
from agent.local_socket import HUNG, NOT_KNOWN
from agent.reasons import in_words, judged_in_words
from sitelink.clock import Clock
from sitelink.inventory import CONTROLLABLE, MinerEntry
from sitelink.types import MinerState, Reading, Verb

_STORE_S: Final = 2.5
"""Less than the silence after which a client would take us for hung anyway."""
_LOOK_EVERY_S: Final = 0.25
_STUCK_S: Final = 90.0
"""So long without any miner newly judged, a follower is told that the daemon goes on without it."""
_LONGEST_S: Final = 7 * 86400.0
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERBS: Final = (Verb.STOP, Verb.START)
_ORDERS: Final = frozenset({"hello", "override", "release"})
"""What must get through however many look on; each order is preceded by a hello."""

_Result = TypeVar("_Result")


class LocalRequests:
    """Answers what is asked at the socket of one ``state_dir``."""

    def __init__(
        self,
        state_dir: Path,
        curtail: LocalCurtail,
        inventory: tuple[MinerEntry, ...],
        fixed: frozenset[str],
        latest: Callable[[str], Reading | None],
        meter_ages_s: Callable[[], Mapping[str, float | None]],
        clock: Clock,
        version: str,
        pid: int,
    ) -> None:
        """``fixed`` are the miners that no order may or can switch.

        ``meter_ages_s`` tells how old each meter's last figure is, None where it has none.
        """
        self._curtail = curtail
        self._fleet = {entry.miner_id: entry for entry in inventory}
        self._fixed = fixed
        self._latest = latest
        self._meter_ages_s = meter_ages_s
        self._clock = clock
        self._hello = {"version": version, "pid": pid, "miners": len(inventory)}
        asks: Mapping[str, Ask] = {
            "hello": self._say_hello,
            "override": self._override,
            "release": self._release,
            "look": self._look,
            "figures": self._figures,
            "meters": self._meters,
            "plan": self._plan,
            "journal": self._journal,
        }
        self._server = LocalServer(state_dir, asks, first=_ORDERS)

    async def run(self) -> None:
        """Serve until cancelled. The caller holds the state lock."""
        await self._server.run()

    async def _say_hello(self, _: Answer) -> AsyncGenerator[Answer, None]:
        yield {"result": self._hello}

    async def _override(self, request: Answer) -> AsyncGenerator[Answer, None]:
        order_id = _text(request, "id")
        verb = next((verb for verb in _VERBS if verb.value == request.get("verb")), None)
        seconds = request.get("seconds")
        if verb is None:
            raise BadInput("verb: write stop or start")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
            raise BadInput("seconds: write a number")
        if not 0 < seconds <= _LONGEST_S:
            raise BadInput(f"seconds: write more than 0 and at most {_LONGEST_S:.0f}")
        named, unknown = self._named(request)
        if named == ():
            raise Refused("unknown_miners", f"{unknown[0]}: {NOT_KNOWN}")
        duration = timedelta(seconds=seconds)
        trouble = await _stored(self._curtail.override(order_id, verb, named, duration))
        until = self._clock.now() + duration
        yield {"say": f"override {order_id}: the daemon keeps to it until {until:%Y-%m-%d %H:%M} UTC"}
        if trouble:
            yield {"say": f"warning: {trouble}; the daemon keeps to this order only as long as it lives"}
        names = tuple(self._fleet) if named is None else named
        yield {"say": f"{verb.value}: {len(names)} miners, by the daemon"}
        for name in unknown:
            yield _finding(name, Proof.NO, NOT_KNOWN)
        async for answer in self._follow(order_id, verb, names):
            yield answer
        yield {"result": {"id": order_id}}

    async def _release(self, request: Answer) -> AsyncGenerator[Answer, None]:
        named, unknown = self._named(request)
        changed, trouble = await _stored(self._curtail.release(named if named is None else (*named, *unknown)))
        if trouble:
            yield {"say": f"warning: {trouble}; should the daemon be killed now, what is released may come back"}
        yield {"result": {"released": list(changed)}}

    async def _look(self, request: Answer) -> AsyncGenerator[Answer, None]:
        named, unknown = self._named(request)
        tasks = [asyncio.create_task(self._seen(name)) for name in (self._fleet if named is None else named)]
        try:
            overrides = await self._curtail.overrides()
            for item in overrides:
                yield {"say": f"override: {item.words()}"}
            for name in unknown:
                yield _sight(name, MinerState.UNKNOWN, NOT_KNOWN)
            for done in asyncio.as_completed(tasks):
                yield await done
        finally:
            for task in tasks:
                task.cancel()
        yield {"result": {"overrides": [item.document() for item in overrides], "doubts": self._curtail.doubts()}}

    async def _figures(self, _: Answer) -> AsyncGenerator[Answer, None]:
        readings = {name: self._latest(name) for name in self._fleet}
        miners = {
            name: (reading.state.value, reading.power_w, reading.hashrate_ths)
            for name, reading in readings.items()
            if reading is not None
        }
        yield {"result": {"miners": miners, "fixed": sorted(self._fixed)}}

    async def _meters(self, _: Answer) -> AsyncGenerator[Answer, None]:
        yield {"result": {"meters": dict(self._meter_ages_s())}}

    async def _plan(self, _: Answer) -> AsyncGenerator[Answer, None]:
        yield {"result": await self._curtail.standing()}

    async def _journal(self, request: Answer) -> AsyncGenerator[Answer, None]:
        last = request.get("last")
        if isinstance(last, bool) or not isinstance(last, int) or not 0 < last <= 10_000:
            raise BadInput("last: write a whole number from 1 to 10000")
        for event in await self._curtail.history(last):
            yield {"event": event.document()}
        yield {"result": {}}

    async def _seen(self, miner_id: str) -> Answer:
        try:
            seen = await self._curtail.observe(miner_id)
        except AgentError as error:
            return _sight(miner_id, MinerState.UNKNOWN, str(error))
        except Exception as error:  # noqa: BLE001 - each miner's supervisor; the table shows it
            return _sight(miner_id, MinerState.UNKNOWN, f"failed: {error!r}")
        return _sight(miner_id, seen.state, in_words(seen.reason.value), seen.power_w)

    async def _follow(self, order_id: str, verb: Verb, names: tuple[str, ...]) -> AsyncGenerator[Answer, None]:
        """Yield each of ``names`` once it is judged under the order, until all are or nothing comes any more."""
        for name in names:
            if name in self._fixed:
                yield await self._untouched(name, verb)
        left = {name for name in names if name not in self._fixed}
        until_s = self._clock.monotonic() + _STUCK_S
        while left and self._clock.monotonic() < until_s:
            records = self._curtail.status().miners
            judged = [
                record
                for name in left
                if (record := records.get(name)) is not None and record.outcome is not None and record.verb is verb
                if record.order_id == order_id
            ]
            for name in [name for name in left if verb is Verb.START and self._curtail.too_hot(name)]:
                left.discard(name)
                yield _finding(name, Proof.NO, in_words("too_hot"))
            for name in [name for name in left if self._curtail.ruling(name) != order_id]:
                left.discard(name)
                yield _finding(name, Proof.NO, "no longer under this order: another took over, or its time is over")
            for record in judged:
                if record.miner_id not in left:
                    continue
                left.discard(record.miner_id)
                until_s = self._clock.monotonic() + _STUCK_S
                yield judged_answer(record, by_outlet=_stopped_by_outlet(self._fleet[record.miner_id]))
            if left:
                await asyncio.sleep(_LOOK_EVERY_S)
        for name in left:
            yield _finding(name, Proof.NO, "not judged yet: the daemon goes on; look again with failsafe status")

    async def _untouched(self, miner_id: str, verb: Verb) -> Answer:
        """Return how a miner stands that no order may or can switch: one that runs needs no start."""
        why = "this site never touches it, or its firmware cannot be switched by us; use its own page or breaker"
        if verb is not Verb.START:
            return _finding(miner_id, Proof.NO, why)
        try:
            seen = await self._curtail.observe(miner_id)
        except AgentError as error:
            return _finding(miner_id, Proof.NO, f"{why} ({error})")
        runs = seen.state is MinerState.HASHING
        return _finding(miner_id, Proof.YES if runs else Proof.NO, "hashing" if runs else why, after_w=seen.power_w)

    def _named(self, request: Answer) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
        """Return the miners named that are known here, None for all, and those that are not."""
        names = request.get("miners")
        if names is None:
            return None, ()
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise BadInput("miners: write a list of miner ids, or null for all")
        once = dict.fromkeys(names)
        known = tuple(name for name in once if name in self._fleet)
        return known, tuple(name for name in once if name not in self._fleet)


async def _stored(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Return what ``work`` returns. Raises Refused when the disk does not let it end: for its asker, this is hung."""
    try:
        async with asyncio.timeout(_STORE_S):
            return await work
    except TimeoutError:
        raise Refused(HUNG, f"the daemon waits for its disk for more than {_STORE_S:g} s") from None


def judged_answer(record: MinerRecord, *, by_outlet: bool = False) -> Answer:
    """Return how the books judge a miner, in the failsafe's words; ``by_outlet``: it has no stop but its outlet."""
    verdict = record.verdict
    assert verdict is not None
    if by_outlet and record.verb is Verb.STOP and not verdict.lie:
        verdict = of_outlet(verdict)
    proof = proof_of(record.verb, verdict)
    told = record.detail and proof is not Proof.YES  # the device's own cause and next step say more than the code's
    what = f"{record.detail} ({record.reason})" if told else judged_in_words(verdict.reason, verdict.evidence)
    return _finding(record.miner_id, proof, what, record.baseline_w, record.power_w)


def _stopped_by_outlet(entry: MinerEntry) -> bool:
    return bool(entry.outlet) and entry.dialect not in CONTROLLABLE


def _finding(
    miner_id: str, proof: Proof, what: str, before_w: float | None = None, after_w: float | None = None
) -> Answer:
    return {"miner": miner_id, "proof": proof.value, "what": what, "before_w": before_w, "after_w": after_w}


def _sight(miner_id: str, state: MinerState, why: str, power_w: float | None = None) -> Answer:
    return {"miner": miner_id, "state": state.value, "why": why, "power_w": power_w}


def _text(request: Answer, name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        raise BadInput(f"{name}: write letters, digits, dots and dashes, at most 64")
    return value
