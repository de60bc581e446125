"""Use cases of hosting: take in what sites report, keep their inventory, follow their links.

Invariants:

* ``(site, epoch, first_seq)`` always covers the same items. The same batch again, from any replica, gives its receipt
  again, and so does one with fewer items and a gap in their place (see ``gaps``); an overlap of another shape or other
  items under the same key is ``Conflict`` and is never stored over.
* A receipt's items, and the acks, notices, meter samples and latest state they carry, are one transaction.
* Services do not commit.

      prepare (decode, check; no database)  ->  ingest (lock cursor, store, merge, advance)  ->  commit  ->  Receipt
"""

import hashlib
import uuid
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cloud.core.access import Permission
from cloud.core.errors import BadInput, Conflict, NotFound, SecondGateway
from cloud.core.events import SiteLinkChanged
from cloud.hosting import gaps, journal, latest, queries, store
from cloud.hosting.inventory import read_meters, read_miners
from cloud.hosting.model import LINK_SILENT_AFTER, ImportReport
from cloud.hosting.orders import dispatch_plan, queue_command
from cloud.infra.db import UnitOfWork
from sitelink.codec import MalformedFrame, ReadingColumns, unpack_columns
from sitelink.types import Ack, Batch, BatchBody, Cursor, Heartbeat, Hello, MeterSample, Notice, NoticeCode, Receipt

__all__ = [
    "PreparedBatch",
    "check_frame",
    "create_site",
    "dispatch_plan",
    "drop_silent_links",
    "import_inventory",
    "ingest",
    "ingest_prepared",
    "link_down",
    "link_heard",
    "link_up",
    "prepare",
    "quarantine",
    "queue_command",
    "report_trust",
]

_OWN_NOTICES: Final = uuid.UUID("5f0c5c52-6b0b-4e55-9a86-6f3f3a2f8a11")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST_SEQ: Final = 2**62
_LONGEST_NAME: Final = 64


@dataclass(frozen=True, slots=True)
class PreparedBatch:
    """A batch whose payload has been decoded and checked, outside any transaction; ``key_id`` signed it."""

    batch: Batch
    key_id: str
    columns: ReadingColumns
    rest: BatchBody


def check_frame(batch: Batch) -> None:
    """Refuse a batch whose very key cannot be kept.

    Raises:
        MalformedFrame: the epoch is not a short printable name, or the numbers are out of range.
    """
    if not 0 < len(batch.epoch) <= _LONGEST_NAME or not batch.epoch.isascii() or not batch.epoch.isprintable():
        raise MalformedFrame(
            f"batch: epoch {batch.epoch[:80]!r} is not a name of 1 to {_LONGEST_NAME} printable letters"
        )
    if batch.first_seq < 0 or batch.count <= 0 or batch.last_seq > _LARGEST_SEQ:
        raise MalformedFrame(f"batch: items {batch.first_seq} + {batch.count} are out of range")


def prepare(batch: Batch, key_id: str = "") -> PreparedBatch:
    """Return ``batch``, which the key ``key_id`` was found to have signed, decoded and checked.

    Raises:
        MalformedFrame: the payload is not a body of this version, or does not hold ``count`` items.
    """
    check_frame(batch)
    columns, rest = unpack_columns(batch.payload)
    if len(columns) + len(rest) != batch.count:
        raise MalformedFrame(f"batch body: {len(columns) + len(rest)} items where the frame says {batch.count}")
    latest.check_columns(columns)
    journal.check_entries(rest.journal)
    return PreparedBatch(batch, key_id, columns, rest)


def ingest(uow: UnitOfWork, batch: Batch) -> Receipt:
    """Store one batch and return its receipt, to be sent only after the commit.

    Raises: MalformedFrame, Conflict (nothing stored; the caller quarantines), Forbidden, Transient.
    """
    return ingest_prepared(uow, [prepare(batch)])[0]


def ingest_prepared(uow: UnitOfWork, prepared: Sequence[PreparedBatch]) -> tuple[Receipt, ...]:
    """Store batches of one site in one transaction and return a receipt for each, in order.

    Raises: Conflict when any of them overlaps other items (then none is stored), Forbidden, Transient.
    """
    site_id = prepared[0].batch.site_id
    uow.principal.require(Permission.REPORT_TELEMETRY, site_id)
    through: dict[str, int] = {}
    for epoch in sorted({item.batch.epoch for item in prepared}):
        through[epoch] = store.lock_cursor(uow, site_id, epoch)
    fresh = [item for item in prepared if _add(uow, item)]
    for epoch in sorted({item.batch.epoch for item in fresh}):
        through[epoch] = store.advance_cursor(uow, site_id, epoch, through[epoch])
    _merge(uow, site_id, fresh)
    return tuple(
        Receipt(site_id, item.batch.epoch, item.batch.first_seq, item.batch.last_seq, through[item.batch.epoch])
        for item in prepared
    )


def quarantine(uow: UnitOfWork, batch: Batch, cause: str) -> bool:
    """Keep the bytes of a batch that may not be stored, with the cause; nothing is acknowledged.

    Return whether these bytes are new here; the same again only count.

    Raises:
        MalformedFrame: even its key cannot be kept.
    """
    check_frame(batch)
    uow.principal.require(Permission.REPORT_TELEMETRY, batch.site_id)
    return store.add_quarantined(uow, batch, hashlib.sha256(batch.payload).hexdigest(), cause[:500])


def create_site(uow: UnitOfWork, site_id: str, name: str, timezone: str) -> None:
    """Add a site.

    Raises:
        BadInput: the id is not a slug, or the zone is unknown.
        Conflict: the id is taken.
    """
    uow.principal.require(Permission.MANAGE_SITES, site_id)
    words = site_id.replace("-", "")
    if not words.isascii() or not words.isalnum() or site_id != site_id.lower() or len(site_id) > _LONGEST_NAME:
        raise BadInput(f"site_id: {site_id!r} is not a slug; use lower-case letters, digits and hyphens")
    try:
        zoneinfo.ZoneInfo(timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise BadInput(f"timezone: {timezone!r} is unknown; write an IANA name such as America/Chicago") from None
    if not store.add_site(uow, site_id, name or site_id, timezone):
        raise Conflict(f"site {site_id} exists already; choose another id, or import its inventory")


def import_inventory(uow: UnitOfWork, site_id: str, inventory_path: Path, meters_path: Path | None) -> ImportReport:
    """Make the files the site's inventory; device addresses are dropped, for they never leave the site.

    Raises:
        BadInput: a row is broken; nothing changes.
        NotFound: there is no such site.
    """
    uow.principal.require(Permission.MANAGE_SITES, site_id)
    miners = read_miners(inventory_path)
    meters = read_meters(meters_path) if meters_path is not None else ()
    if queries.site(uow, site_id) is None:
        raise NotFound(f"there is no site {site_id}; create it first: ballast site create {site_id}")
    removed_miners = store.replace_miners(uow, site_id, miners)
    removed_meters = store.replace_meters(uow, site_id, meters) if meters_path is not None else 0
    uow.notify("telemetry", site_id=site_id)
    return ImportReport(
        miners=len(miners),
        controllable=sum(miner.controllable for miner in miners),
        meters=len(meters),
        removed_miners=removed_miners,
        removed_meters=removed_meters,
    )


def link_up(uow: UnitOfWork, hello: Hello, connection_id: str) -> Cursor:
    """Record a site's new connection and return what is stored of the agent's epoch.

    Raises:
        SecondGateway: another process of the same agent was heard on the site's link just now.
    """
    uow.principal.require(Permission.REPORT_TELEMETRY, hello.site_id)
    before = store.link_row(uow, hello.site_id)
    if before is not None and _is_driven_by_another(before, hello, uow.now()):
        raise SecondGateway(hello.site_id, hello.agent_id)
    if store.link_up(uow, hello, connection_id):
        uow.add_event(SiteLinkChanged(hello.site_id, up=True))
    uow.notify("link", site_id=hello.site_id)
    through_seq = queries.cursor(uow, hello.site_id, hello.epoch)
    beyond = gaps.beyond(uow, hello.site_id, hello.epoch, through_seq)
    return Cursor(hello.site_id, hello.epoch, through_seq, beyond)


def report_trust(uow: UnitOfWork, site_id: str, subject: str, code: NoticeCode, detail: str) -> None:
    """Put what the cloud itself noticed about a site's gateway among the site's notices; once a subject and code."""
    notice_id = uuid.uuid5(_OWN_NOTICES, f"{site_id}/{code.value}/{subject}").hex
    store.add_notices(uow, site_id, [Notice(notice_id, uow.now(), code, subject, detail)])
    uow.notify("control", site_id=site_id)


def _is_driven_by_another(before: Any, hello: Hello, now: datetime) -> bool:
    """Return whether another process of the agent holds the link; one that fell silent holds it no longer."""
    same_agent = before.agent_id == hello.agent_id
    other = "" not in (before.instance_id, hello.instance_id) and before.instance_id != hello.instance_id[:64]
    return bool(before.up and same_agent and other and now - before.last_heard <= LINK_SILENT_AFTER)


def link_heard(uow: UnitOfWork, site_id: str, connection_id: str, beat: Heartbeat) -> bool:
    """Record a heartbeat; return False when a newer connection carries the site."""
    uow.notify("link", site_id=site_id)
    return store.link_heard(uow, site_id, connection_id, beat)


def link_down(uow: UnitOfWork, site_id: str, connection_id: str) -> None:
    """Record that a connection ended; a later one is left alone."""
    if store.link_down(uow, site_id, connection_id):
        uow.add_event(SiteLinkChanged(site_id, up=False))
        uow.notify("link", site_id=site_id)


def drop_silent_links(uow: UnitOfWork) -> tuple[str, ...]:
    """Record as down every link that says it is up and was not heard of lately; return the sites, by id.

    A replica that died left its links up; a site that reconnected meanwhile has another connection and is left alone.
    """
    silent = store.silent_links(uow, uow.now() - LINK_SILENT_AFTER)
    for site_id, connection_id in silent:
        link_down(uow, site_id, connection_id)
    return tuple(site_id for site_id, _ in silent)


def _add(uow: UnitOfWork, item: PreparedBatch) -> bool:
    """Store the batch; return False when it is stored already."""
    batch = item.batch
    near = store.neighbour(uow, batch)
    if near is not None and near.last_seq >= batch.first_seq:
        same_range = (near.first_seq, near.last_seq) == (batch.first_seq, batch.last_seq)
        if same_range and (near.same_bytes or gaps.is_cut_of_stored(uow, batch)):
            return False
        raise Conflict(
            f"site {batch.site_id} epoch {batch.epoch}: items {batch.first_seq}..{batch.last_seq} overlap stored"
            f" {near.first_seq}..{near.last_seq} with other content; quarantined, look at the agent's buffer"
        )
    if not store.add_batch(uow, batch, item.key_id, len(item.columns), _span(item.columns)):
        raise Conflict(f"site {batch.site_id} epoch {batch.epoch}: items at {batch.first_seq} were stored meanwhile")
    gaps.add(uow, batch, item.rest.gaps)
    return True


def _span(columns: ReadingColumns) -> tuple[datetime | None, datetime | None]:
    if not len(columns):
        return None, None
    try:
        return tuple(_EPOCH + timedelta(milliseconds=pick(columns.read_at_ms)) for pick in (min, max))  # type: ignore[return-value]
    except OverflowError:
        return None, None


def _merge(uow: UnitOfWork, site_id: str, fresh: Sequence[PreparedBatch]) -> None:
    """Let what the fresh batches carry show in acks, notices, meter readings and latest state."""
    if not fresh:
        return
    meters: list[MeterSample] = [sample for item in fresh for sample in item.rest.meters]
    acks: list[Ack] = [ack for item in fresh for ack in item.rest.acks]
    notices: list[Notice] = [notice for item in fresh for notice in item.rest.notices]
    store.add_meter_samples(uow, site_id, meters)
    store.add_acks(uow, site_id, acks)
    store.add_notices(uow, site_id, notices)
    journal.take_in(uow, site_id, [entry for item in fresh for entry in item.rest.journal])
    readings = [item.columns for item in fresh if len(item.columns)]
    if readings or acks or notices:
        records = latest.load(store.lock_latest(uow, site_id))
        for columns in readings:
            records = latest.merge_readings(records, columns, uow.now())
        records = latest.merge_control(records, acks, notices)
        as_of = latest.moment(int(records["read_at_ms"].max())) if len(records) else None
        store.put_latest(uow, site_id, latest.dump(records), as_of)
    uow.notify("telemetry", site_id=site_id)
    if acks or notices:
        uow.notify("control", site_id=site_id)
