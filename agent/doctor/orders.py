"""The doctor's look at orders: which stops and starts are not proven, and why."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from typing import Final

from agent.doctor.finding import Finding, bad, ok
from agent.errors import AgentError
from agent.local_curtail import records
from agent.local_curtail.records import MinerRecord
from agent.settings import Settings
from agent.storage import connect_read_only
from sitelink.types import Verb

_SHOWN: Final = 3
_AS_ORDERED: Final = frozenset({"already_idle", "power_unknown", "feeder_meter_silent"})
"""What a stop is unproven by though its miner reads off."""


def orders(settings: Settings) -> Iterator[Finding]:
    """Return the stops and starts that were judged and are not proven, by their cause."""
    by_cause: defaultdict[tuple[str, str], list[MinerRecord]] = defaultdict(list)
    for record in _records(settings):
        reads_off = record.verb is Verb.STOP and record.reason in _AS_ORDERED
        if record.outcome is not None and not record.complete and not reads_off:
            by_cause[record.verb.value, record.reason].append(record)
    for (verb, reason), unproven in sorted(by_cause.items(), key=lambda item: -len(item[1])):
        names = ", ".join(record.miner_id for record in unproven[:_SHOWN]) + (", ..." if len(unproven) > _SHOWN else "")
        told = next((record.detail for record in unproven if record.detail), "")
        step = told or "ballast-agent failsafe status looks at them; ballast-agent journal tells what was tried"
        yield bad("orders", f"{len(unproven)} not proven: {verb}: {reason}: {names}", step)
    if not by_cause:
        yield ok("orders", "none is unproven")


def _records(settings: Settings) -> list[MinerRecord]:
    try:
        with closing(connect_read_only(settings.database)) as connection:
            rows = connection.execute("SELECT record FROM curtail_miners").fetchall()
        return [records.miner_of(text) for (text,) in rows]
    except (AgentError, sqlite3.Error, ValueError, KeyError, TypeError):
        return []  # there is no file yet, or what is wrong with it stands under database
