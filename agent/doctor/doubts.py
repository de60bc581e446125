"""The doctor's look at what stands against the word of miners: liars, those that woke, feeders that draw too much."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing

from agent.doctor.finding import Finding, bad, ok, warn
from agent.doctor.fleet import listed
from agent.errors import AgentError
from agent.failsafe.sights import Around, feeder_words
from agent.findings import filled_in
from agent.local_curtail.doubts import WOKEN, stored_doubts
from agent.reasons import cause_of, next_step
from agent.settings import Settings
from agent.storage import connect_read_only


def liars(settings: Settings) -> Iterator[Finding]:
    """Return each miner and each feeder whose word does not stand, as long as stops of theirs are in force."""
    fleet = listed(settings)
    feeders: defaultdict[str, list[str]] = defaultdict(list)
    for entry in fleet.values():
        feeders[entry.feeder_id].append(entry.miner_id)
    try:
        with closing(connect_read_only(settings.database)) as connection:
            around = Around(doubts=stored_doubts(connection, feeders))
    except (AgentError, sqlite3.Error, ValueError, KeyError, TypeError):
        return  # there is no file yet, or what is wrong with it stands under database
    for name, codes in around.codes().items():
        for code in codes:
            known = fleet.get(name)
            at = f" in rack {known.rack}" if known is not None and known.rack else ""
            what, step = f"{name}{at}: {cause_of(code)}", filled_in(next_step(code), known)
            yield warn("liars", what, step) if code == WOKEN else bad("liars", what, step)
    for feeder in around.feeders():
        yield bad("feeders", feeder_words(feeder), next_step("feeder_disagrees"))
    if not around.codes() and not around.feeders():
        yield ok("liars", "no miner and no feeder is known to say other than it does")
