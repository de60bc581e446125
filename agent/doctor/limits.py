"""The doctor's look at what the site's own rules do now: heat, limits that hold against an order, the fallback."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Final

from agent.doctor.finding import Finding, bad, ok, warn
from agent.errors import AgentError
from agent.local_curtail.restraint import stored_restraint
from agent.reasons import next_step
from agent.settings import Settings
from agent.storage import connect_read_only

_STEPS: Final = {
    "min_load": "[limits] min_load_mw in agent.toml, or orders for fewer miners",
    "max_off": "[limits] max_off_s in agent.toml, or shorter orders",
}


def limits(settings: Settings) -> Iterator[Finding]:
    """Return each rule of the site's own that is at work."""
    try:
        with closing(connect_read_only(settings.database)) as connection:
            found = stored_restraint(connection).lines()
    except (AgentError, sqlite3.Error, ValueError, KeyError, TypeError):
        return  # there is no file yet, or what is wrong with it stands under database
    for line in found:
        code = line.partition(":")[0]
        if code == "too_hot":
            yield bad("limits", line, next_step(code))
        else:
            step = _STEPS.get(code) or next_step(code) or "ballast-agent plan show; ballast-agent journal"
            yield warn("limits", line, step)
    if not found:
        yield ok("limits", "none of the site's own rules holds anything up")
