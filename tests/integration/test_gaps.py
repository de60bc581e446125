"""A batch that comes thinner than it was sealed is one batch; what it lacks is stored as a gap and can be counted."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from cloud.core.access import Principal
from cloud.core.errors import Conflict
from cloud.hosting import gaps, queries, service
from cloud.hosting.model import GapCounts
from cloud.infra.db import Database
from sitelink.codec import pack
from sitelink.types import Batch, BatchBody, BatchKind, Gap, MeterSample, Receipt
from sitelink.units import Watts
from tests.telemetry import START, make_batch, make_readings

READINGS = make_readings(6, START)
METER = MeterSample("site", START, Watts(5.0))
MINUTE = timedelta(minutes=1)


def whole() -> Batch:
    return make_batch(0, READINGS, meters=(METER,))


def cut(keep: int, kept_every_s: int = 60) -> Batch:
    gap = Gap(START, START + MINUTE, kept_every_s, 7 - keep)
    return replace(whole(), payload=pack(BatchBody(readings=READINGS[:keep], gaps=(gap,))))


def put(database: Database, principal: Principal, batch: Batch) -> Receipt:
    with database.unit_of_work(principal) as uow:
        return service.ingest(uow, batch)


def readings_stored(database: Database, principal: Principal) -> int:
    with database.unit_of_work(principal) as uow:
        return int(uow.session.execute(text("SELECT sum(readings) FROM miner_telemetry")).scalar_one())


def test_a_thin_batch_covers_all_its_numbers_and_its_gap_is_counted(database: Database, principal: Principal) -> None:
    assert put(database, principal, cut(2)) == Receipt("pecos-1", "e1", 0, 6, 6)
    later = replace(cut(0, kept_every_s=0), first_seq=7)
    assert put(database, principal, later) == Receipt("pecos-1", "e1", 7, 13, 13)
    with database.unit_of_work(principal) as uow:
        counts = queries.stored_counts(uow)
        assert (counts.items, counts.missing, counts.doubled) == (14, 0, 0)
        assert gaps.counted(uow, "pecos-1") == (
            GapCounts(60, 1, 5, START, START + MINUTE),
            GapCounts(0, 1, 7, START, START + MINUTE),
        )
    assert readings_stored(database, principal) == 2


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [(whole(), cut(2), 6), (cut(2), whole(), 2), (cut(4), cut(2, 300), 4), (cut(2), cut(0, 0), 2)],
    ids=["whole-then-thin", "thin-then-whole", "thin-then-thinner", "thin-then-given-up"],
)
def test_the_first_to_be_stored_stays_and_the_other_gets_its_receipt(
    database: Database, principal: Principal, first: Batch, second: Batch, kept: int
) -> None:
    receipt = put(database, principal, first)
    assert put(database, principal, second) == receipt
    assert readings_stored(database, principal) == kept
    with database.unit_of_work(principal) as uow:
        records = sum(item.records for item in gaps.counted(uow, "pecos-1"))
    assert records == (0 if first == whole() else 1)


def test_other_items_under_the_same_numbers_are_refused_thin_or_not(database: Database, principal: Principal) -> None:
    put(database, principal, whole())
    gap = Gap(START, START + MINUTE, 60, 5)
    other = pack(BatchBody(readings=make_readings(2, START, power_w=9.0), gaps=(gap,)))
    with pytest.raises(Conflict, match="overlap"):
        put(database, principal, replace(whole(), payload=other))
    same_but_control = replace(cut(2), kind=BatchKind.CONTROL)
    with pytest.raises(Conflict, match="overlap"):
        put(database, principal, same_but_control)
    with pytest.raises(Conflict, match="overlap"):
        put(database, principal, replace(cut(2), first_seq=1))


def test_of_very_many_ranges_the_first_and_the_last_are_told(
    database: Database, principal: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaps, "_RANGES_TOLD", 3)
    for first_seq in (3, 9, 15, 21, 24):
        put(database, principal, make_batch(first_seq))
    with database.unit_of_work(principal) as uow:
        assert gaps.beyond(uow, "pecos-1", "e1", -1) == ((3, 5), (9, 11), (21, 26))
        assert gaps.beyond(uow, "pecos-1", "e1", 20) == ((21, 26),)
        assert gaps.beyond(uow, "pecos-1", "other", -1) == ()
