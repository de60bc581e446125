"""Hands the journal to the link: every entry once, in order, in control batches; and looks at all of it after a start.

    curtail_chain --up to 500 a second, one transaction--> buffer --> cloud
                     the mark moves in the same transaction

Invariants: an entry and the mark behind it are sealed together, so a kill neither skips nor doubles one; with the link
down entries wait in the buffer like acks. What the cloud has receipted and is older than 90 days is pruned.
"""

import asyncio
import logging
import sqlite3
from functools import partial
from typing import Final, Protocol

from agent.errors import AgentError
from agent.local_curtail.chain import Chain, chain_faults, entries, head_of, mark_carried, prune
from agent.local_curtail.ports import SiteNow
from agent.storage import Writer
from sitelink.types import Batch, BatchBody, ClockTrust, JournalEntry

_LOG: Final = logging.getLogger(__name__)
_EVERY_S: Final = 1.0
_AT_ONCE: Final = 500
_LOOKED_AT: Final = 1000
_BETWEEN_LOOKS_S: Final = 0.05
"""Orders share the writer and the processor with the look at all entries."""


class Waiting(Protocol):
    """How much waits for a receipt."""

    @property
    def backlog_batches(self) -> int:
        """Return how many batches no receipt has settled."""
        ...


class Carrier(Protocol):
    """The part of the buffer that carries the journal."""

    def append_in(self, connection: sqlite3.Connection, body: BatchBody) -> Batch:
        """Seal ``body`` in the transaction of ``connection``."""
        ...

    def status_in(self, connection: sqlite3.Connection) -> Waiting:
        """Return what waits, in the transaction of ``connection``."""
        ...


class Backfill:
    """Carries the chain of one file."""

    def __init__(self, writer: Writer, buffer: Carrier, chain: Chain, site_time: SiteNow) -> None:
        self._writer = writer
        self._buffer = buffer
        self._chain = chain
        self._site_time = site_time
        self._failing = False

    async def run(self) -> None:
        """Look at the whole chain once, and carry what is new, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_at_all())
            while True:
                try:
                    await self.round()
                except AgentError as error:
                    if not self._failing:
                        _LOG.warning("the journal's entries wait: %s", error)
                    self._failing = True
                else:
                    self._failing = False
                await asyncio.sleep(_EVERY_S)

    async def round(self) -> int:
        """Seal what is new, or prune what is old; return how many entries were carried.

        Raises:
            Transient: the database takes nothing now; the same entries are carried in a later round.
        """
        return await self._writer.run(self._carry)

    def _carry(self, connection: sqlite3.Connection) -> int:
        head = head_of(connection)
        found = [] if head is None else entries(connection, head.carried_seq, _AT_ONCE)
        if head is None or not found:
            self._prune(connection)
            return 0
        sound = tuple(entry for entry in found if _is_sound(entry))
        epoch = head.carried_epoch
        if sound:
            epoch = self._buffer.append_in(connection, BatchBody(journal=sound)).epoch
        if head.carried_epoch not in ("", epoch):
            # The cloud holds what this disk forgot: under the same name its entries would contradict those there.
            now, trust = self._site_time.now()
            self._chain.begin(
                connection, now, trust, "the buffer began a new epoch: this disk was restored or replaced"
            )
        mark_carried(connection, found[-1].seq, epoch)
        return len(found)

    def _prune(self, connection: sqlite3.Connection) -> None:
        now, trust = self._site_time.now()
        if trust is not ClockTrust.UNTRUSTED and self._buffer.status_in(connection).backlog_batches == 0:
            prune(connection, now)

    async def _look_at_all(self) -> None:
        from_seq = 1
        while from_seq:
            try:
                from_seq = await self._writer.run(partial(self._look, from_seq))
            except AgentError as error:
                _LOG.warning("the journal is not looked at whole: %s", error)
                return
            await asyncio.sleep(_BETWEEN_LOOKS_S)

    def _look(self, from_seq: int, connection: sqlite3.Connection) -> int:
        """Look at some entries and return where to go on, 0 at the end; a broken chain is followed by a new one."""
        head = head_of(connection)
        if head is None:
            return 0
        first = max(from_seq, head.first_seq, head.pruned_seq + 1)
        last = first + _LOOKED_AT - 1
        fault = next(chain_faults(connection, head, first, last if last < head.seq else None), "")
        if fault:
            now, trust = self._site_time.now()
            _LOG.error("the journal is broken: %s; a new chain begins, what is there is kept", fault)
            self._chain.begin(connection, now, trust, fault)
        return last + 1 if last < head.seq and not fault else 0


def _is_sound(entry: JournalEntry) -> bool:
    """Return whether the link can carry it: what a broken file holds in its place stays here, and is missed there."""
    fields: tuple[tuple[object, type], ...] = (
        *((text, str) for text in (entry.chain, entry.trust, entry.kind, entry.subject, entry.detail)),
        *((number, int) for number in (entry.seq, entry.at_us)),
        *((digest, bytes) for digest in (entry.previous, entry.hash)),
    )
    return all(isinstance(value, kind) for value, kind in fields)
