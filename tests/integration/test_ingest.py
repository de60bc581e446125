"""Telemetry is stored exactly once, whatever arrives twice, late, at once or wrongly."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select, text

from cloud.core.access import Principal, Role
from cloud.core.errors import Conflict, Forbidden, Transient
from cloud.hosting import queries, service
from cloud.infra.db import Database
from cloud.models.hosting import METER_READINGS, MINER_TELEMETRY, SITE_ACKS, SITE_NOTICES
from sitelink.clock import ManualClock
from sitelink.codec import MalformedFrame
from sitelink.types import Ack, Evidence, MeterSample, Notice, NoticeCode, Outcome, Receipt, Verb
from sitelink.units import Watts
from tests.telemetry import START, make_batch, make_readings


@pytest.fixture(autouse=True)
def clock(database: Database) -> ManualClock:
    database.clock = ManualClock(START + timedelta(seconds=60))
    return database.clock


def stored(database: Database, principal: Principal) -> tuple[int, int, int]:
    with database.unit_of_work(principal) as uow:
        counts = queries.stored_counts(uow)
    return counts.items, counts.missing, counts.doubled


def put(database: Database, principal: Principal, first_seq: int) -> Receipt:
    with database.unit_of_work(principal) as uow:
        return service.ingest(uow, make_batch(first_seq))


def test_a_batch_is_stored_and_the_cursor_follows(database: Database, principal: Principal) -> None:
    assert put(database, principal, 0) == Receipt("pecos-1", "e1", 0, 2, 2)
    assert put(database, principal, 3) == Receipt("pecos-1", "e1", 3, 5, 5)
    assert stored(database, principal) == (6, 0, 0)


def test_the_same_batch_again_gets_its_receipt_again(database: Database, principal: Principal) -> None:
    put(database, principal, 0)
    put(database, principal, 3)
    assert put(database, principal, 0) == Receipt("pecos-1", "e1", 0, 2, 5)
    assert stored(database, principal) == (6, 0, 0)


def test_a_gap_holds_the_cursor_until_it_is_filled(database: Database, principal: Principal) -> None:
    put(database, principal, 0)
    assert put(database, principal, 6).through_seq == 2
    assert put(database, principal, 9).through_seq == 2
    assert stored(database, principal) == (9, 3, 0)
    assert put(database, principal, 3).through_seq == 11
    assert stored(database, principal) == (12, 0, 0)


@pytest.mark.parametrize("first_seq", [2, 4, 1, 3])
def test_an_overlap_is_a_conflict_and_changes_nothing(database: Database, principal: Principal, first_seq: int) -> None:
    put(database, principal, 3)
    other = make_batch(first_seq, make_readings(2 if first_seq == 3 else 3, START, power_w=9.0))
    with pytest.raises(Conflict, match="overlap"), database.unit_of_work(principal) as uow:
        service.ingest(uow, other)
    assert stored(database, principal)[0] == 3


def test_other_bytes_under_the_same_key_are_quarantined_once(database: Database, principal: Principal) -> None:
    put(database, principal, 0)
    other = make_batch(0, make_readings(3, START, power_w=9.0))
    with pytest.raises(Conflict), database.unit_of_work(principal) as uow:
        service.ingest(uow, other)
    for _ in range(2):
        with database.unit_of_work(principal) as uow:
            service.quarantine(uow, other, "conflict")
    with database.unit_of_work(principal) as uow:
        assert queries.stored_counts(uow).quarantined == 1
        kept = uow.session.execute(text("SELECT times, payload FROM telemetry_quarantine")).one()
    assert (kept.times, bytes(kept.payload)) == (2, other.payload)
    assert stored(database, principal) == (3, 0, 0)


@pytest.mark.parametrize(
    "change",
    [{"payload": b"garbage"}, {"count": 7}, {"epoch": "e\0"}, {"epoch": ""}, {"first_seq": 2**63 - 1}],
    ids=["payload", "count", "nul", "empty", "range"],
)
def test_a_malformed_batch_changes_nothing(database: Database, principal: Principal, change: dict[str, object]) -> None:
    with pytest.raises(MalformedFrame), database.unit_of_work(principal) as uow:
        service.ingest(uow, replace(make_batch(0), **change))  # type: ignore[arg-type]
    assert stored(database, principal)[0] == 0


def test_an_agent_cannot_report_for_another_site(database: Database, principal: Principal) -> None:
    agent = Principal(principal.tenant_id, "agent:a", Role.AGENT, frozenset({"pecos-2"}))
    with pytest.raises(Forbidden), database.unit_of_work(agent) as uow:
        service.ingest(uow, make_batch(0))


def together(*work: Callable[[], object]) -> list[object]:
    """Run everything at once and return results or errors."""
    barrier, results = threading.Barrier(len(work)), [None] * len(work)

    def run(place: int) -> None:
        barrier.wait()
        try:
            results[place] = work[place]()  # type: ignore[call-overload]
        except Exception as error:  # noqa: BLE001 - the test judges it
            results[place] = error  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return list(results)


def test_two_replicas_store_the_same_batch_once(database: Database, principal: Principal) -> None:
    other = Database(database.url, database.clock)
    for first_seq in range(0, 30, 3):
        results = together(
            lambda seq=first_seq: put(database, principal, seq), lambda seq=first_seq: put(other, principal, seq)
        )
        assert results == [Receipt("pecos-1", "e1", first_seq, first_seq + 2, first_seq + 2)] * 2
    other.close()
    assert stored(database, principal) == (30, 0, 0)


def test_two_overlapping_batches_at_once_leave_one(database: Database, principal: Principal) -> None:
    for base in range(0, 100, 10):
        results = together(
            lambda seq=base: put(database, principal, seq), lambda seq=base + 1: put(database, principal, seq)
        )
        assert sorted(type(result).__name__ for result in results) == ["Conflict", "Receipt"]
    assert stored(database, principal)[0] == 30


def test_several_batches_of_one_transaction(database: Database, principal: Principal) -> None:
    batches = [service.prepare(make_batch(seq)) for seq in (0, 3, 6)]
    batches.append(service.prepare(make_batch(0, epoch="e2")))
    with database.unit_of_work(principal) as uow:
        receipts = service.ingest_prepared(uow, batches)
    assert [(receipt.epoch, receipt.through_seq) for receipt in receipts] == [("e1", 8)] * 3 + [("e2", 2)]


def test_what_a_batch_carries_is_visible_with_it(database: Database, principal: Principal) -> None:
    now = database.clock.now()
    with database.unit_of_work(principal) as uow:
        service.create_site(uow, "pecos-1", "Pecos", "America/Chicago")
        uow.session.execute(
            text(
                "INSERT INTO hosting_miners SELECT :tenant, 'pecos-1', 'm' || to_char(n, 'FM000'), 'luxos', 'S19', 'F1',"
                " 'C1-R1', n, 3000, 100, true FROM generate_series(0, 2) n"
            ),
            {"tenant": principal.tenant_id},
        )
        uow.session.execute(
            text("INSERT INTO hosting_meters VALUES (:tenant, 'pecos-1', 'site', 'site', '')"),
            {"tenant": principal.tenant_id},
        )
        ack = Ack(
            "a1", "c1", 1, "m001", Verb.STOP, Outcome.UNVERIFIED, Evidence.FEEDER_METER, "feeder_did_not_drop", now
        )
        batch = make_batch(
            0,
            make_readings(2, now - timedelta(seconds=5)),
            meters=(MeterSample("site", now, Watts(6100.0), 12.0), MeterSample("site", now, Watts(float("nan")))),
            acks=(ack,),
            notices=(Notice("n1", now, NoticeCode.LIAR_NAMED, "m001", "feeder did not drop"),),
        )
        service.ingest(uow, batch)
    with database.unit_of_work(principal) as uow:
        (site,) = queries.fleet_overview(uow)
        miners = {miner.miner_id: miner for miner in queries.site_miners(uow, "pecos-1")}
        history = queries.miner_history(uow, "pecos-1", "m000", now - timedelta(hours=1), now)
        series = queries.power_series(uow, "pecos-1", now - timedelta(minutes=1), now + timedelta(minutes=1))
        assert queries.acks(uow, "pecos-1", "c1") == (ack,)
        assert [notice.subject for notice in queries.notices(uow, "pecos-1")] == ["m001"]
    assert (site.miners_total, site.hashing, site.unknown, site.power_w, site.device_power_w) == (
        3,
        2,
        1,
        6100.0,
        6000.0,
    )
    assert not site.link.up
    assert miners["m001"].liar and not miners["m000"].liar
    assert (miners["m001"].last_ack_outcome, miners["m002"].state.value) == (Outcome.UNVERIFIED, "unknown")
    assert [reading.power_w for reading in history] == [3000.0]
    assert series.power_w.tolist() == [6100.0]


def test_a_silent_site_becomes_unknown(database: Database, principal: Principal, clock: ManualClock) -> None:
    test_what_a_batch_carries_is_visible_with_it(database, principal)
    clock.advance(3600)
    with database.unit_of_work(principal) as uow:
        (site,) = queries.fleet_overview(uow)
    assert (site.unknown, site.power_w, site.device_power_w, site.hashrate_ths) == (3, None, None, None)


def test_nothing_of_a_failed_transaction_remains(database: Database, principal: Principal) -> None:
    batch = make_batch(0, meters=(MeterSample("site", START, Watts(1.0)),))
    with pytest.raises(ZeroDivisionError), database.unit_of_work(principal) as uow:
        _ = service.ingest(uow, batch).through_seq / 0
    with database.unit_of_work(principal) as uow:
        for table in (MINER_TELEMETRY, METER_READINGS, SITE_ACKS, SITE_NOTICES):
            assert not uow.session.execute(select(table)).all()
    assert not isinstance(put(database, principal, 0), Transient)
