"""The latest state of a site's miners as packed columns: what ``site_latest.data`` holds.

Form: the 4 bytes ``BLS1``, then one fixed-width record a miner (``RECORD``), sorted by miner id. Reading it is one
``numpy.frombuffer``; merging 500 readings into 5,000 miners is a handful of array operations.

Invariants: the newest ``read_at`` of a miner wins, whatever the order of arrival; a reading from the future counts as
read when it was received, so that a gateway whose clock was wrong once cannot pin a miner's state; missing is NaN in
float columns and -1 in integer columns, and never zero.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cloud.hosting.model import LIAR_REASONS
from sitelink.codec import POWER_SOURCES, REASONS, STATES, MalformedFrame, ReadingColumns
from sitelink.miner_ids import MAX_MINER_ID_BYTES
from sitelink.types import Ack, Evidence, Notice, NoticeCode, Outcome, Verb

VERBS: Final = tuple(Verb)
OUTCOMES: Final = tuple(Outcome)
EVIDENCE: Final = tuple(Evidence)
_MAGIC: Final = b"BLS1"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

RECORD: Final = np.dtype(
    [
        ("miner_id", f"S{MAX_MINER_ID_BYTES}"),
        ("read_at_ms", "<i8"),
        ("state", "u1"),
        ("reason", "u1"),
        ("power_source", "u1"),
        ("liar", "u1"),
        ("hashrate_ths", "<f4"),
        ("power_w", "<f4"),
        ("board_temp_c", "<f4"),
        ("chip_temp_c", "<f4"),
        ("fan_rpm", "<i4"),
        ("accepted", "<i8"),
        ("rejected", "<i8"),
        ("uptime_s", "<i8"),
        ("ack_at_ms", "<i8"),
        ("ack_verb", "u1"),
        ("ack_outcome", "u1"),
        ("ack_evidence", "u1"),
        ("ack_reason", "S32"),
        ("ack_order", "S40"),
    ]
)
Records = NDArray[np.void]

_READING_COLUMNS: Final = (
    *("state", "reason", "power_source", "hashrate_ths", "power_w", "board_temp_c", "chip_temp_c"),
    *("fan_rpm", "accepted", "rejected", "uptime_s"),
)
_CODES: Final = {"state": len(STATES), "reason": len(REASONS), "power_source": len(POWER_SOURCES)}


def load(data: bytes | None) -> Records:
    """Return the records in ``data``; none for None.

    Raises:
        ValueError: the bytes are not of this form.
    """
    if data is None:
        return np.empty(0, dtype=RECORD)
    if data[:4] != _MAGIC or (len(data) - 4) % RECORD.itemsize:
        raise ValueError("site_latest.data is not of form BLS1")
    return np.frombuffer(data, dtype=RECORD, offset=4).copy()


def dump(records: Records) -> bytes:
    """Return ``records`` as bytes."""
    return _MAGIC + records.tobytes()


def check_columns(columns: ReadingColumns) -> None:
    """Refuse columns that no agent of this version sends.

    Raises:
        MalformedFrame: a code is unknown, or a miner id is empty or too long.
    """
    for name, known in _CODES.items():
        if any(code >= known for code in getattr(columns, name)):
            raise MalformedFrame(f"batch body: column {name} holds a code of a later version")
    for miner_id in columns.miner_id:
        if not miner_id or "\0" in miner_id or len(miner_id.encode()) > MAX_MINER_ID_BYTES:
            raise MalformedFrame(f"batch body: miner id {miner_id[:60]!r} is empty, binary or too long")


def merge_readings(records: Records, columns: ReadingColumns, received_at: datetime) -> Records:
    """Return ``records`` with every reading of ``columns`` that is newer than what is known."""
    if not len(columns):
        return records
    received_ms = _milliseconds(received_at)
    ids = np.array([miner_id.encode() for miner_id in columns.miner_id], dtype=RECORD["miner_id"])
    read_at = np.minimum(np.fromiter(columns.read_at_ms, dtype=np.int64, count=len(ids)), received_ms)
    order = np.lexsort((read_at, ids))
    newest = order[np.append(ids[order][1:] != ids[order][:-1], True)]
    records = _with_miners(records, ids[newest])
    places = np.searchsorted(records["miner_id"], ids[newest])
    wins = read_at[newest] >= records["read_at_ms"][places]
    places, rows = places[wins], newest[wins]
    records["read_at_ms"][places] = read_at[rows]
    for name in _READING_COLUMNS:
        column = np.fromiter(getattr(columns, name), dtype=_wide(RECORD[name]), count=len(ids))
        records[name][places] = _narrow(column[rows], RECORD[name])
    return records


def merge_control(records: Records, acks: Iterable[Ack], notices: Iterable[Notice]) -> Records:
    """Return ``records`` with the newest ack of each miner, and liars named or cleared by it.

    A stop that a meter contradicts names a liar; a later COMPLETE stop clears the name. Acks of a whole order (no
    miner) change nothing here.
    """
    acks = [ack for ack in sorted(acks, key=lambda ack: ack.at) if ack.miner_id]
    named = [notice for notice in notices if notice.code is NoticeCode.LIAR_NAMED]
    touched = [ack.miner_id for ack in acks] + [notice.subject for notice in named]
    ids = {name.encode() for name in touched if name and len(name.encode()) <= MAX_MINER_ID_BYTES}
    if not ids:
        return records
    records = _with_miners(records, np.array(sorted(ids), dtype=RECORD["miner_id"]))
    places = {bytes(miner_id): place for place, miner_id in enumerate(records["miner_id"])}
    for ack in acks:
        place = places.get(ack.miner_id.encode())
        if place is not None and _milliseconds(ack.at) >= records["ack_at_ms"][place]:
            _put_ack(records, place, ack)
    for notice in named:
        place = places.get(notice.subject.encode())
        if place is not None and _milliseconds(notice.at) >= records["ack_at_ms"][place]:
            records["liar"][place] = 1
    return records


def take(records: Records, ids: NDArray[Any]) -> Records:
    """Return one record for each of ``ids``, in their order; what was never read is missing throughout."""
    taken = _unread(ids)
    places = np.minimum(np.searchsorted(records["miner_id"], ids), max(0, len(records) - 1))
    if len(records):
        found = records["miner_id"][places] == ids
        taken[found] = records[places[found]]
    return taken


def moment(milliseconds: int) -> datetime | None:
    """Return the time of a millisecond column; None for -1."""
    return None if milliseconds < 0 else _EPOCH + timedelta(milliseconds=int(milliseconds))


def _put_ack(records: Records, place: int, ack: Ack) -> None:
    records["ack_at_ms"][place] = _milliseconds(ack.at)
    records["ack_verb"][place] = VERBS.index(ack.verb)
    records["ack_outcome"][place] = OUTCOMES.index(ack.outcome)
    records["ack_evidence"][place] = EVIDENCE.index(ack.evidence)
    records["ack_reason"][place] = ack.reason.encode()[:32]
    records["ack_order"][place] = ack.order_id.encode()[:40]
    if ack.verb is Verb.STOP and ack.outcome is Outcome.COMPLETE:
        records["liar"][place] = 0
    elif ack.verb is Verb.STOP and ack.outcome is Outcome.UNVERIFIED and ack.reason in LIAR_REASONS:
        records["liar"][place] = 1


def _with_miners(records: Records, ids: NDArray[Any]) -> Records:
    """Return ``records`` with an empty record for each of ``ids`` (sorted, distinct) that has none."""
    new = np.setdiff1d(ids, records["miner_id"], assume_unique=True)
    if not len(new):
        return records
    merged = np.concatenate((records, _unread(new)))
    return merged[np.argsort(merged["miner_id"], kind="stable")]


def _unread(ids: NDArray[Any]) -> Records:
    """Return a record for each of ``ids`` of which nothing is known."""
    made = np.zeros(len(ids), dtype=RECORD)
    made["miner_id"] = ids
    for name in ("read_at_ms", "fan_rpm", "accepted", "rejected", "uptime_s", "ack_at_ms"):
        made[name] = -1
    for name in ("hashrate_ths", "power_w", "board_temp_c", "chip_temp_c"):
        made[name] = np.nan
    return made


def _wide(kind: Any) -> Any:
    return np.dtype("f8") if kind.kind == "f" else np.dtype("i8")


def _narrow(values: NDArray[Any], kind: Any) -> NDArray[Any]:
    """Fit values into a column; what does not fit becomes missing rather than something else."""
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            narrow = values.astype(kind)
        return np.where(np.isfinite(narrow), narrow, np.nan).astype(kind)
    limits = np.iinfo(kind)
    return np.where((values >= limits.min) & (values <= limits.max), values, -1 if limits.min < 0 else 0).astype(kind)


def _milliseconds(when: datetime) -> int:
    return (when - _EPOCH) // timedelta(milliseconds=1)
