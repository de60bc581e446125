"""The doctor's look at orders: which stops and starts are not proven, and why.

Invariant: what to do is said by the reason's code; what a device or a rule said of one miner stands behind it.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Final, NamedTuple

from agent.doctor.finding import Finding, bad, ok, warn
from agent.doctor.fleet import listed
from agent.errors import AgentError
from agent.findings import filled_in
from agent.local_curtail import by_hand, inbox, overrides, records
from agent.local_curtail.records import MinerRecord
from agent.reasons import next_step
from agent.settings import Settings
from agent.storage import connect_read_only
from sitelink.clock import Clock
from sitelink.inventory import MinerEntry
from sitelink.types import Verb

_SHOWN: Final = 3
_LINES: Final = 100_000
_AS_ORDERED: Final = frozenset({"already_idle", "power_unknown"})
"""What a stop is unproven by though its miner reads off."""


_FORGED: Final = frozenset({"bad_signature", "malformed", "wrong_site", "already_forgotten", "sequence_reused"})
"""What a cloud that works never sends."""
_LOOK: Final = "ballast-agent failsafe status looks at them; ballast-agent journal tells what was tried"


class _Unproven(NamedTuple):
    miner_id: str
    what: str
    """The verb, and the reason or that it was ordered by hand."""
    code: str
    detail: str


def refused(settings: Settings) -> Iterator[Finding]:
    """Return how many orders were refused, by the reason's code, since agent.db was made."""
    try:
        with closing(connect_read_only(settings.database)) as connection:
            counts = inbox.refusals(connection)
    except (AgentError, sqlite3.Error):
        return  # there is no file yet, or what is wrong with it stands under database
    if not counts:
        yield ok("refused orders", "none")
        return
    said = ", ".join(f"{times} {code}" for code, times in counts.items())
    if counts.keys() & _FORGED:
        step = "somebody sends what the cloud did not sign, or sends it again: look at the network and the cloud's log"
        yield warn("refused orders", said, step)
    else:
        yield ok("refused orders", said)


def orders(settings: Settings, clock: Clock) -> Iterator[Finding]:
    """Return the stops and starts that were judged and are not proven, by their cause."""
    try:
        with closing(connect_read_only(settings.database)) as connection:
            judged = {record.miner_id: record for record in _records(connection)}
            found = [*_unproven(judged.values()), *_by_hand(connection, judged, clock)]
    except (AgentError, sqlite3.Error, ValueError, KeyError, TypeError):
        return  # there is no file yet, or what is wrong with it stands under database
    fleet = listed(settings)
    by_cause: defaultdict[str, list[_Unproven]] = defaultdict(list)
    for each in found:
        by_cause[each.what].append(each)
    for what, some in sorted(by_cause.items(), key=lambda item: -len(item[1])):
        names = ", ".join(each.miner_id for each in some[:_SHOWN]) + (", ..." if len(some) > _SHOWN else "")
        yield bad("orders", f"{len(some)} not proven: {what}: {names}", _step(some, fleet))
    if not found:
        yield ok("orders", "none is unproven")


def _step(some: list[_Unproven], fleet: Mapping[str, MinerEntry]) -> str:
    """Return what to do about orders unproven for one reason, and what was said of the first of them that tells."""
    told = next((each for each in some if each.detail), some[0])
    step = filled_in(next_step(told.code), fleet.get(told.miner_id)) or _LOOK
    return f"{step} ({told.miner_id}: {told.detail})" if told.detail else step


def _unproven(judged: Iterable[MinerRecord]) -> Iterator[_Unproven]:
    for record in judged:
        reads_off = record.verb is Verb.STOP and record.reason in _AS_ORDERED
        if record.outcome is not None and not record.complete and not reads_off:
            yield _Unproven(record.miner_id, f"{record.verb.value}: {record.reason}", record.reason, record.detail)


def _by_hand(connection: sqlite3.Connection, judged: Mapping[str, MinerRecord], clock: Clock) -> Iterator[_Unproven]:
    """Return what a failsafe without a daemon could not prove, of orders in force that no daemon has judged since."""
    verbs = {item.override.override_id: item.override.verb for item in overrides.active(connection, clock)}
    last = {line.miner_id: line for line in by_hand.last_lines(connection, _LINES) if line.order_id in verbs}
    for line in last.values():
        since = judged.get(line.miner_id)
        if line.event == by_hand.UNPROVEN and (since is None or since.outcome is None):
            yield _Unproven(line.miner_id, f"{verbs[line.order_id].value}: by hand", "", line.detail)


def _records(connection: sqlite3.Connection) -> list[MinerRecord]:
    return [records.miner_of(text) for (text,) in connection.execute("SELECT record FROM curtail_miners")]
