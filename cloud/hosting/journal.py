"""The sites' journals: entries as the agents wrote them, each chain checked against the last hash that is known good.

    entries --insert, never changed--> site_journal
            --walk from the last good hash--> site_journal_chains.through    whole up to here
            --does not fit--> site_journal_faults: gap, fork, altered        shown until mended, and after

Invariants:

* Every entry that arrives is stored, whatever is wrong with it: two under one number stand side by side.
* A chain is whole only as far as each hash follows from the one before, from its first entry on.
* The same entry again changes nothing. Batches that arrive out of order leave a gap that is mended once it is filled;
  forks and altered entries are for good.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from cloud.core.access import Permission
from cloud.infra.db import UnitOfWork
from cloud.models.hosting import SITE_JOURNAL, SITE_JOURNAL_CHAINS, SITE_JOURNAL_FAULTS
from sitelink.codec import MalformedFrame
from sitelink.journal import begins, fault_of, is_itself
from sitelink.types import JournalEntry

GAP: Final = "gap"
FORK: Final = "fork"
ALTERED: Final = "altered"
SETTLES: Final = timedelta(minutes=2)
"""So long batches may arrive out of their order before a gap is one."""
_FIELDS: Final = ("chain", "seq", "at_us", "trust", "kind", "subject", "detail", "previous", "hash")
_LONGEST_NAME: Final = 64
_LONGEST_TEXT: Final = 1000
_HASH_BYTES: Final = 32
_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Fault:
    """What does not fit in a chain: ``fault`` is GAP, FORK or ALTERED; ``mended_at`` is when a gap was filled."""

    chain: str
    seq: int
    fault: str
    detail: str
    seen_at: datetime
    mended_at: datetime | None


@dataclass(frozen=True, slots=True)
class ChainState:
    """How far a chain is whole: from ``first_seq`` through ``through_seq`` of ``last_seq``; None where unknown."""

    chain: str
    first_seq: int | None
    through_seq: int | None
    last_seq: int
    entries: int
    heard_at: datetime

    @property
    def whole(self) -> bool:
        """Return whether every entry heard of follows from the first."""
        return self.through_seq == self.last_seq


def check_entries(entries: Iterable[JournalEntry]) -> None:
    """Refuse entries that no table takes.

    Raises:
        MalformedFrame: a name is empty or too long, a text holds a NUL, a number or a hash is out of range.
    """
    for entry in entries:
        names = (entry.chain, entry.trust, entry.kind)
        texts = (*names, entry.subject, entry.detail)
        if not all(0 < len(name) <= _LONGEST_NAME for name in names) or any(
            "\0" in text or len(text) > _LONGEST_TEXT for text in texts
        ):
            raise MalformedFrame(f"journal: entry {entry.seq} has a name or text that is empty, too long or broken")
        if entry.seq < 1 or len(entry.previous) != _HASH_BYTES or len(entry.hash) != _HASH_BYTES:
            raise MalformedFrame(f"journal: entry {entry.seq} has a number or hash that is out of range")


def take_in(uow: UnitOfWork, site_id: str, entries: Sequence[JournalEntry]) -> None:
    """Store ``entries`` and follow each of their chains as far as it is whole."""
    by_chain: defaultdict[str, list[JournalEntry]] = defaultdict(list)
    for entry in entries:
        by_chain[entry.chain].append(entry)
    for chain in sorted(by_chain):
        _take_in_chain(uow, site_id, chain, by_chain[chain])


def _take_in_chain(uow: UnitOfWork, site_id: str, chain: str, entries: list[JournalEntry]) -> None:
    before = _locked(uow, site_id, chain)
    key = {"tenant_id": uow.tenant_id, "site_id": site_id}
    rows = [{**key, "received_at": uow.now(), **{name: getattr(entry, name) for name in _FIELDS}} for entry in entries]
    uow.session.execute(insert(SITE_JOURNAL).on_conflict_do_nothing(), rows)
    found = [
        (entry.seq, ALTERED, f"entry {entry.seq} is not what its hash was made of")
        for entry in entries
        if not is_itself(entry)
    ]
    found += _doubled(uow, site_id, chain, [entry.seq for entry in entries])
    after, stopped = _walk(uow, site_id, chain, before)
    if stopped is not None:
        found.append(stopped)
    _note_faults(uow, site_id, chain, found)
    if after is not None:
        _advance(uow, site_id, chain, after)


def _locked(uow: UnitOfWork, site_id: str, chain: str) -> JournalEntry | None:
    """Return the last entry up to which the chain is known whole, None when it is not from its first; hold its row."""
    rows = SITE_JOURNAL_CHAINS.c
    fresh = insert(SITE_JOURNAL_CHAINS).values(
        tenant_id=uow.tenant_id, site_id=site_id, chain=chain, heard_at=uow.now()
    )
    kept = fresh.on_conflict_do_update(
        index_elements=["tenant_id", "site_id", "chain"], set_={"heard_at": fresh.excluded.heard_at}
    ).returning(rows.through_seq, rows.through_hash)
    row = uow.session.execute(kept).one()
    if row.through_seq is None:
        return None
    return JournalEntry(chain, row.through_seq, 0, "", "", "", "", b"", bytes(row.through_hash))


def _walk(
    uow: UnitOfWork, site_id: str, chain: str, before: JournalEntry | None
) -> tuple[JournalEntry | None, tuple[int, str, str] | None]:
    """Follow the chain from ``before``; return how far it is whole, and what stops it there: (number, fault, words)."""
    here = before
    while True:
        following = _entries_after(uow, site_id, chain, 0 if here is None else here.seq, _AT_ONCE)
        moved = False
        for entry in following:
            if here is None and not begins(entry):
                return None, (0, GAP, f"the chain's first entries are missing, up to {entry.seq - 1}")
            if here is not None and entry.seq == here.seq:
                continue  # another entry under a number already followed: a fork, told as such
            if fault := fault_of(entry, here):
                twin = any(other.seq == entry.seq and not fault_of(other, here) for other in following)
                if twin:
                    continue
                return here, _stop(entry, here, fault)
            here, moved = entry, True
        if not moved or len(following) < _AT_ONCE:
            return here, None


def _stop(entry: JournalEntry, here: JournalEntry | None, fault: str) -> tuple[int, str, str]:
    if here is not None and entry.seq > here.seq + 1:
        return here.seq + 1, GAP, fault
    return entry.seq, FORK if is_itself(entry) else ALTERED, fault


def _doubled(uow: UnitOfWork, site_id: str, chain: str, seqs: list[int]) -> list[tuple[int, str, str]]:
    """Return the forks among ``seqs``: numbers under which different entries stand."""
    rows = SITE_JOURNAL.c
    query = (
        select(rows.seq, func.count().label("times"))
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.chain == chain, rows.seq.in_(seqs))
        .group_by(rows.seq)
        .having(func.count() > 1)
        .order_by(rows.seq)
    )
    return [(row.seq, FORK, f"{row.times} different entries {row.seq}") for row in uow.session.execute(query)]


def _note_faults(uow: UnitOfWork, site_id: str, chain: str, found: list[tuple[int, str, str]]) -> None:
    key = {"tenant_id": uow.tenant_id, "site_id": site_id, "chain": chain}
    values = [
        {**key, "seq": seq, "fault": fault, "detail": detail, "seen_at": uow.now()} for seq, fault, detail in found
    ]
    if values:
        uow.session.execute(insert(SITE_JOURNAL_FAULTS).on_conflict_do_nothing(), values)


def _advance(uow: UnitOfWork, site_id: str, chain: str, through: JournalEntry) -> None:
    """Write how far the chain is whole, and that the gaps below are mended."""
    rows, faults = SITE_JOURNAL_CHAINS.c, SITE_JOURNAL_FAULTS.c
    key = (uow.tenant_id, site_id, chain)
    first = select(func.min(SITE_JOURNAL.c.seq)).where(
        SITE_JOURNAL.c.tenant_id == uow.tenant_id, SITE_JOURNAL.c.site_id == site_id, SITE_JOURNAL.c.chain == chain
    )
    uow.session.execute(
        update(SITE_JOURNAL_CHAINS)
        .where(tuple_(rows.tenant_id, rows.site_id, rows.chain) == tuple_(*key))
        .values(
            first_seq=func.coalesce(rows.first_seq, first.scalar_subquery()),
            through_seq=through.seq,
            through_hash=through.hash,
        )
    )
    uow.session.execute(
        update(SITE_JOURNAL_FAULTS)
        .where(tuple_(faults.tenant_id, faults.site_id, faults.chain) == tuple_(*key))
        .where(faults.fault == GAP, faults.seq <= through.seq, faults.mended_at.is_(None))
        .values(mended_at=uow.now())
    )


def chains(uow: UnitOfWork, site_id: str) -> tuple[ChainState, ...]:
    """Return the chains of a site, the one heard of last at the end."""
    uow.principal.require(Permission.READ_FLEET, site_id)
    known, rows = SITE_JOURNAL_CHAINS.c, SITE_JOURNAL.c
    query = (
        select(
            known.chain,
            known.first_seq,
            known.through_seq,
            known.heard_at,
            func.max(rows.seq).label("last_seq"),
            func.count().label("entries"),
        )
        .join(
            SITE_JOURNAL,
            (rows.tenant_id == known.tenant_id) & (rows.site_id == known.site_id) & (rows.chain == known.chain),
        )
        .where(known.tenant_id == uow.tenant_id, known.site_id == site_id)
        .group_by(known.chain, known.first_seq, known.through_seq, known.heard_at)
        .order_by(known.heard_at, func.max(rows.seq))
    )
    return tuple(
        ChainState(row.chain, row.first_seq, row.through_seq, row.last_seq, row.entries, row.heard_at)
        for row in uow.session.execute(query)
    )


def faults(uow: UnitOfWork, site_id: str) -> tuple[Fault, ...]:
    """Return everything that ever did not fit in the site's chains, oldest first."""
    uow.principal.require(Permission.READ_FLEET, site_id)
    rows = SITE_JOURNAL_FAULTS.c
    query = (
        select(rows.chain, rows.seq, rows.fault, rows.detail, rows.seen_at, rows.mended_at)
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id)
        .order_by(rows.seen_at, rows.chain, rows.seq)
    )
    return tuple(Fault(*row) for row in uow.session.execute(query))


def open_faults(uow: UnitOfWork, site_id: str) -> tuple[Fault, ...]:
    """Return what does not fit now: gaps that batches still under way may fill are left out for ``SETTLES``."""
    young = uow.now() - SETTLES
    return tuple(
        told for told in faults(uow, site_id) if told.mended_at is None and (told.fault != GAP or told.seen_at <= young)
    )


def entries_after(uow: UnitOfWork, site_id: str, chain: str, after_seq: int, count: int) -> list[JournalEntry]:
    """Return up to ``count`` entries of a chain above ``after_seq``, oldest first; a fork shows both."""
    uow.principal.require(Permission.READ_FLEET, site_id)
    return _entries_after(uow, site_id, chain, after_seq, count)


def verify(uow: UnitOfWork, site_id: str, chain: str) -> tuple[int, list[str]]:
    """Walk a chain from its first entry, every hash computed anew; return how many entries, and what does not fit."""
    uow.principal.require(Permission.READ_FLEET, site_id)
    before: JournalEntry | None = None
    found: list[str] = []
    count, after_seq = 0, 0
    while batch := _entries_after(uow, site_id, chain, after_seq, _AT_ONCE):
        for entry in batch:
            count += 1
            if before is not None and entry.seq == before.seq:
                found.append(f"different entries {entry.seq}")
                continue
            if fault := fault_of(entry, before):
                found.append(fault)
            before = entry
        after_seq = batch[-1].seq
    return count, found


def _entries_after(uow: UnitOfWork, site_id: str, chain: str, after_seq: int, count: int) -> list[JournalEntry]:
    rows = SITE_JOURNAL.c
    query = (
        select(*(rows[name] for name in _FIELDS))
        .where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id, rows.chain == chain)
        .where(rows.seq > after_seq)
        .order_by(rows.seq, rows.received_at, rows.hash)
        .limit(count)
    )
    return [_entry(row) for row in uow.session.execute(query)]


def _entry(row: Row[Any]) -> JournalEntry:
    return JournalEntry(
        row.chain,
        row.seq,
        row.at_us,
        row.trust,
        row.kind,
        row.subject,
        row.detail,
        bytes(row.previous),
        bytes(row.hash),
    )
