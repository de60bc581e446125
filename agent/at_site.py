"""What somebody at the site may know of the agent: from the daemon's memory where it lives, else from its file.

Invariant: changes nothing; a daemon that is hung or dead keeps nobody from reading the file.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from agent.errors import AgentError, BadInput
from agent.local_curtail import inbox, overrides, records
from agent.local_curtail.anchor import StoredTime, stored_anchor
from agent.local_curtail.chain import Checked, check, last_entries
from agent.local_curtail.held import HEAT_MARK
from agent.local_curtail.history import last_events
from agent.local_curtail.overrides import StoredOverride
from agent.local_curtail.standing import Standing
from agent.local_socket import Conversation
from agent.settings import Settings
from agent.storage import connect_read_only
from sitelink.clock import Clock
from sitelink.orders import MalformedOrder, read_plan
from sitelink.types import ClockTrust, JournalEntry, SitePlan

DAEMON: Final = "the running daemon"


@dataclass(frozen=True, slots=True)
class Held:
    """The orders that the file holds, and the site's time by which they are meant."""

    now: datetime
    trust: ClockTrust
    plan: SitePlan | None
    overrides: tuple[StoredOverride, ...]


def held_orders(connection: sqlite3.Connection, clock: Clock) -> Held:
    """Return what the file holds.

    Raises:
        MalformedOrder, sqlite3.Error: it is broken.
    """
    now, trust = StoredTime(stored_anchor(connection), clock).now()
    held = inbox.held_plan(connection)
    plan = None if held is None else read_plan(held.payload)
    return Held(now, trust, plan, overrides.active(connection, clock))


class Site:
    """One site's ``state_dir``, read."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    def standing(self) -> tuple[dict[str, Any], str]:
        """Return how orders stand, and who says so.

        Raises:
            BadInput: no daemon answers, and its file is not there or cannot be read.
        """
        try:
            (answer,) = self._asked({"ask": "plan"})
            return dict(answer["result"]), DAEMON
        except (AgentError, KeyError, TypeError, ValueError) as error:
            with self.file() as connection:
                return self._stored(connection).document(), f"{self._settings.database} ({error})"

    def history(self, count: int) -> list[dict[str, Any]]:
        """Return the last ``count`` events, oldest first, each as plain values. Raises BadInput."""
        with self.file() as connection:
            return [event.document() for event in last_events(connection, count)]

    def journal(self) -> Checked:
        """Return whether the journal's chain is whole; every entry is looked at. Raises BadInput."""
        with self.file() as connection:
            return check(connection)

    def entries(self, count: int) -> list[JournalEntry]:
        """Return the last ``count`` entries of the journal's chain, oldest first. Raises BadInput."""
        with self.file() as connection:
            return last_entries(connection, count)

    @contextmanager
    def file(self) -> Iterator[sqlite3.Connection]:
        """Open the database to be read.

        Raises:
            BadInput: it is not there, or what the block reads of it is broken.
        """
        path = self._settings.database
        with closing(connect_read_only(path)) as connection:
            try:
                yield connection
            except (sqlite3.Error, MalformedOrder, ValueError, KeyError) as error:
                raise BadInput(
                    f"{path}: cannot be read: {error}; start the agent, it repairs or replaces the file"
                ) from None

    def _asked(self, request: dict[str, Any]) -> list[Any]:
        conversation = Conversation(self._settings.site.state_dir)
        try:
            return list(conversation.ask(request))
        finally:
            conversation.close()

    def _stored(self, connection: sqlite3.Connection) -> Standing:
        held = held_orders(connection, self._clock)
        rows = connection.execute("SELECT record FROM curtail_miners").fetchall()
        marks = dict(connection.execute("SELECT name, value FROM curtail_marks").fetchall())
        return Standing(
            now=held.now,
            trust=held.trust,
            plan=held.plan,
            overrides=held.overrides,
            records=tuple(records.miner_of(text) for (text,) in rows),
            fallback=marks.get("fallback", ""),
            heat=marks.get(HEAT_MARK, ""),
        )
