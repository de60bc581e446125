"""What stands against the word of miners and feeders, as one plain document for whoever is at the site. Pure.

    record of a stop: a lie, woken        -> {"miners": [{"miner", "codes"}]}
    mark of a feeder: a difference        -> {"feeders": [{"feeder", "excess_w", "since", "open"}]}

Invariants: a doubt stands while a stop of its miner, or on its feeder, is in force, and no longer; the daemon's memory
and its file say the same, but that the file also knows whom a failsafe has since proven off, or let go.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from agent.local_curtail import by_hand, overrides
from agent.local_curtail.evidence import ALREADY_IDLE, CLOUDED, Lie
from agent.local_curtail.moments import microseconds, moment_of
from agent.local_curtail.policy import OVERRIDE
from agent.local_curtail.records import MinerRecord, miner_of
from sitelink.types import Verb
from sitelink.units import Watts, megawatts

WOKEN: Final = "self_woken"
NO_DOUBTS: Final[Mapping[str, Any]] = {"miners": (), "feeders": ()}
_MARK: Final = "feeder:"
_NAMED: Final = 6
_SAYS_OFF: Final = {ALREADY_IDLE.reason, CLOUDED.reason, "feeder_did_not_drop", "feeder_meter_silent"}


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much a feeder draws more than its miners own up to, and since when.

    ``step`` counts whole tolerances: while it stays, noise does not count as a change.
    """

    step: int
    excess_w: Watts
    since: datetime

    def text(self) -> str:
        """Return it as it is marked in the books."""
        return json.dumps({"step": self.step, "excess_w": self.excess_w, "since_us": microseconds(self.since)})


def mark_of(feeder_id: str) -> str:
    """Return the name under which a feeder's difference is marked."""
    return f"{_MARK}{feeder_id}"


def difference_of(mark: str) -> Difference | None:
    """Return the difference that ``mark`` holds, None where there is none; an earlier version's tells no figure."""
    if not mark.startswith("{"):
        return None
    fields: dict[str, Any] = json.loads(mark)
    return Difference(fields["step"], Watts(fields["excess_w"]), moment_of(fields["since_us"]))


def reads_off(record: MinerRecord) -> bool:
    """Return whether the miner itself says that it is off."""
    return record.complete or record.lie is Lie.REPORTS_IDLE or record.reason in _SAYS_OFF


def open_stops(records: Iterable[MinerRecord]) -> list[str]:
    """Return the stopped miners of ``records`` that read off and are not proven so, in order."""
    stops = (record for record in records if record.verb is Verb.STOP)
    return sorted(record.miner_id for record in stops if reads_off(record) and not record.complete)


def difference_words(excess_w: Watts, open_names: Sequence[str], silent: int = 0) -> str:
    """Return by how much a feeder differs, and who may draw that; ``silent`` of its miners do not answer."""
    shown = ", ".join(open_names[:_NAMED]) + ("" if len(open_names) <= _NAMED else " and others")
    return (
        f"the feeder draws {megawatts(excess_w):.4f} MW more than its miners own up to; that much is not shed"
        + (f"; read off, not proven: {shown}" if shown else "")
        + (f"; not answering: {silent}" if silent else "")
    )


def doubts(
    records: Mapping[str, MinerRecord], marks: Mapping[str, str], feeders: Mapping[str, Collection[str]]
) -> dict[str, Any]:
    """Return the document; ``feeders`` names the miners of each."""
    stops = {name: record for name, record in records.items() if record.verb is Verb.STOP}
    found = []
    for feeder_id, names in sorted(feeders.items()):
        difference = difference_of(marks.get(mark_of(feeder_id), ""))
        held = [stops[name] for name in names if name in stops]
        if difference is not None and held:
            found.append(_feeder(feeder_id, difference, held))
    miners = [{"miner": name, "codes": codes} for name, record in sorted(stops.items()) if (codes := _codes(record))]
    return {"miners": miners, "feeders": found}


def stored_doubts(connection: sqlite3.Connection, feeders: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """Return the document of a file whose daemon is dead, or lives and is not asked.

    Raises:
        ValueError, KeyError, TypeError, sqlite3.Error: the file is broken.
    """
    rows = connection.execute("SELECT record FROM curtail_miners").fetchall()
    by_name = {record.miner_id: record for record in (miner_of(text) for (text,) in rows)}
    found, let_go = by_hand.last_found(connection), overrides.let_go(connection)
    # Taken up by a failsafe since and proven off: what its daemon held against it before is over.
    standing = {
        name: record
        for name, record in by_name.items()
        if record.outcome is not None or found.get(name) != by_hand.PROVEN
        if record.cause != OVERRIDE or not let_go(record.order_id, name)
    }
    marks = connection.execute("SELECT name, value FROM curtail_marks").fetchall()
    return doubts(standing, dict(marks), feeders)


def _codes(record: MinerRecord) -> list[str]:
    return [code for code in (record.lie.value, WOKEN if record.woken else "") if code]


def _feeder(feeder_id: str, difference: Difference, held: Iterable[MinerRecord]) -> dict[str, Any]:
    return {
        "feeder": feeder_id,
        "excess_w": difference.excess_w,
        "since": difference.since.isoformat(),
        "open": open_stops(held),
    }
