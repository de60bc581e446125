"""The doctor's look at the journal: whether each entry follows from the one before, and goes to the cloud."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Final

from agent.doctor.finding import Finding, bad, ok, warn
from agent.errors import AgentError
from agent.local_curtail.chain import check
from agent.settings import Settings
from agent.storage import connect_read_only

_MANY_UNCARRIED: Final = 5000
_KEEP_IT: Final = "agent.db was changed: keep a copy, and compare with the cloud's: ballast journal SITE --verify"


def journal(settings: Settings) -> Iterator[Finding]:
    """Return whether the journal is whole."""
    try:
        with closing(connect_read_only(settings.database)) as connection:
            found = check(connection)
    except (AgentError, sqlite3.Error):
        return  # there is no file yet, or what is wrong with it stands under database
    for fault in found.faults:
        yield bad("journal", f"broken: {fault}", _KEEP_IT)
    if found.head is None:
        return
    if not found.faults:
        yield ok("journal", f"{found.entries} entries, each follows from the one before")
    waits = found.head.seq - found.head.carried_seq
    if waits > _MANY_UNCARRIED:
        yield warn("journal", f"{waits} entries are not handed to the link yet", "start the daemon: it carries them")
