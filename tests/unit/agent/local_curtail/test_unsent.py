"""What a failsafe had to report leaves its table in the transaction that puts it into the daemon's buffer."""

import sqlite3
from datetime import UTC, datetime

import pytest

from agent.local_curtail.schema import schema
from agent.local_curtail.unsent import UnsentOutbox, hand_on
from agent.storage import in_transaction
from sitelink.types import Ack, BatchBody, Evidence, Notice, NoticeCode, Outcome, Verb
from sitelink.units import Watts

NOON = datetime(2026, 11, 24, 12, 0, 0, 250, tzinfo=UTC)
ACK = Ack("a", "o", 3, "m1", Verb.STOP, Outcome.EXPIRED, Evidence.NONE, "superseded", NOON, Watts(3000), None)
NOTICE = Notice("n", NOON, NoticeCode.OVERRIDE_SET, "failsafe-1", "stop of all miners")


class Kept:
    def __init__(self) -> None:
        self.bodies: list[BatchBody] = []

    def append_in(self, connection: sqlite3.Connection, body: BatchBody) -> object:
        self.bodies.append(body)
        return None


@pytest.fixture
def database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    in_transaction(connection, schema)
    return connection


def test_it_comes_out_as_it_went_in_and_once(database: sqlite3.Connection) -> None:
    in_transaction(database, lambda db: UnsentOutbox().append_in(db, BatchBody(acks=(ACK,), notices=(NOTICE,))))
    outbox = Kept()
    assert in_transaction(database, lambda db: hand_on(db, outbox)) == 2
    assert outbox.bodies == [BatchBody(acks=(ACK,), notices=(NOTICE,))]
    assert in_transaction(database, lambda db: hand_on(db, outbox)) == 0
    assert len(outbox.bodies) == 1


def test_what_the_buffer_does_not_take_waits_on(database: sqlite3.Connection) -> None:
    class Full(Kept):
        def append_in(self, connection: sqlite3.Connection, body: BatchBody) -> object:
            raise RuntimeError("full")

    in_transaction(database, lambda db: UnsentOutbox().append_in(db, BatchBody(acks=(ACK,))))
    with pytest.raises(RuntimeError):
        in_transaction(database, lambda db: hand_on(db, Full()))
    assert database.execute("SELECT count(*) FROM curtail_unsent").fetchone() == (1,)
