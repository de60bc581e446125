"""The journal's chain: written with what it tells, refused to be changed, found out when it was."""

import hashlib
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.errors import AgentError
from agent.local_curtail import chain as module
from agent.local_curtail.books import Books, Entry
from agent.local_curtail.chain import Chain, Kind, Note, check, entries, head_of, mark_carried, prune
from agent.local_curtail.evidence import Verdict
from agent.local_curtail.notices import NotedOutbox
from agent.local_curtail.records import MinerRecord
from agent.local_curtail.salvage import salvage
from agent.local_curtail.schema import schema
from agent.storage import StorageFull, connect, connect_read_only, in_transaction
from sitelink.journal import NOTHING_BEFORE, digest, fault_of
from sitelink.types import BatchBody, ClockTrust, Evidence, JournalEntry, NoticeCode, Outcome, Verb
from tests.unit.agent.storage_fakes import Crash, CrashPoint, InlineWriter

pytestmark = pytest.mark.agent

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
TRIGGERS = [statement.split()[5] for statement in module.TRIGGERS]


class Ids:
    def __init__(self) -> None:
        self.given = 0

    def __call__(self) -> str:
        self.given += 1
        return f"chain-{self.given}"


def notes(count: int, at: datetime = NOON) -> list[Note]:
    return [Note(at, ClockTrust.SYNCED, Kind.SENT, f"m{n}", "the device said ok") for n in range(count)]


@pytest.fixture
def file() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema(connection)
    return connection


@pytest.fixture
def chain() -> Chain:
    return Chain(Ids())


def forge(file: sqlite3.Connection, statement: str, *values: object) -> None:
    """Change the rows as somebody with the file in hands would: without the triggers."""
    for name in TRIGGERS:
        file.execute(f"DROP TRIGGER {name}")
    file.execute(statement, values)
    for trigger in module.TRIGGERS:
        file.execute(trigger)


def test_the_form_of_an_entry_never_changes() -> None:
    entry = JournalEntry(
        "c", 7, 1_764_000_000_000_000, "held", "sent", "mü", 'says "ok"', NOTHING_BEFORE, NOTHING_BEFORE
    )
    covered = '["ballast/journal/v1","c",7,1764000000000000,"held","sent","mü","says \\"ok\\""]'
    assert digest(entry) == hashlib.sha256(bytes(32) + covered.encode()).digest()


def test_entries_follow_each_other_whoever_writes_them(file: sqlite3.Connection, chain: Chain) -> None:
    chain.append(file, notes(3))
    chain.append(file, [])
    Chain(lambda: "of another process").append(file, notes(2))
    found = entries(file, 0, 99)
    assert [entry.seq for entry in found] == [1, 2, 3, 4, 5, 6]
    assert {entry.chain for entry in found} == {"chain-1"}
    assert [entry.kind for entry in found] == ["chain_began", *["sent"] * 5]
    assert found[0].detail == "the first of this file"
    assert check(file) == module.Checked(6, 1, head_of(file), ())


def test_an_entry_shares_the_fate_of_what_it_tells(file: sqlite3.Connection, chain: Chain) -> None:
    chain.append(file, notes(1))

    def work(connection: sqlite3.Connection) -> None:
        chain.append(connection, notes(2))
        raise Crash

    with pytest.raises(Crash):
        in_transaction(file, work)
    assert [entry.seq for entry in entries(file, 0, 9)] == [1, 2]
    assert check(file).faults == ()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE curtail_chain SET detail = 'x' WHERE seq = 2",
        "UPDATE curtail_chain SET seq = 99 WHERE seq = 4",
        "DELETE FROM curtail_chain WHERE seq = 4",
        "DELETE FROM curtail_chain",
        "INSERT OR REPLACE INTO curtail_chain VALUES (2, 'chain-1', 0, 'held', 'sent', 'm', '', x'00', x'00')",
        "UPDATE curtail_chain_head SET pruned_seq = 3",
    ],
)
def test_the_file_itself_refuses_changes(file: sqlite3.Connection, chain: Chain, statement: str) -> None:
    chain.append(file, notes(3))
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        file.execute(statement)
    assert check(file).entries == 4


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("chain", "other"),
        ("at_us", 5),
        ("trust", "held"),
        ("kind", "outcome"),
        ("subject", "m9"),
        ("detail", "it refused"),
        ("detail", b"no text"),
        ("at_us", "noon"),
        ("previous", b"\1" * 32),
        ("previous", "no bytes"),
        ("hash", b"\1" * 32),
    ],
)
def test_a_changed_field_is_found_and_a_new_chain_names_it(
    file: sqlite3.Connection, chain: Chain, column: str, value: object
) -> None:
    chain.append(file, notes(4))
    forge(file, f"UPDATE curtail_chain SET {column} = ? WHERE seq = 3", value)
    assert check(file).faults
    fault = chain.take_up(file, NOON, ClockTrust.HELD)
    assert fault
    first = entries(file, 5, 1)[0]
    assert (first.kind, first.chain, first.previous) == ("chain_began", "chain-2", NOTHING_BEFORE)
    assert fault in first.detail
    assert "follows chain-1 at 5" in first.detail
    chain.append(file, notes(1))
    assert check(file).entries == 7, "what is there is kept"
    assert chain.take_up(file, NOON, ClockTrust.HELD) == "", "named once"


def test_a_missing_end_and_a_missing_middle_are_found(file: sqlite3.Connection, chain: Chain) -> None:
    chain.append(file, notes(5))
    forge(file, "DELETE FROM curtail_chain WHERE seq = 3")
    assert check(file).faults == ("entries 3 to 3 are missing",)
    forge(file, "DELETE FROM curtail_chain WHERE seq >= 5")
    assert check(file).faults[-1] == "it ends at entry 4, not at 6 as its head says"
    assert chain.take_up(file, NOON, ClockTrust.HELD)
    assert entries(file, 4, 9)[0].seq == 7, "no number is used twice"


def test_a_fault_before_the_tail_is_found_by_the_whole_look(
    file: sqlite3.Connection, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TAIL", 3)
    chain.append(file, notes(9))
    forge(file, "UPDATE curtail_chain SET detail = 'x' WHERE seq = 2")
    assert chain.take_up(file, NOON, ClockTrust.HELD) == ""
    assert check(file).faults == ("entry 2 is not what its hash was made of",)


def test_without_its_head_a_new_chain_goes_on_above_what_is_there(file: sqlite3.Connection, chain: Chain) -> None:
    chain.append(file, notes(3))
    file.execute("DELETE FROM curtail_chain_head")
    assert chain.take_up(file, NOON, ClockTrust.HELD) == ""
    chain.append(file, notes(1))
    first = entries(file, 4, 1)[0]
    assert (first.kind, first.detail) == ("chain_began", "its head is lost; 4 entries stand before")
    assert check(file).chains == 2
    assert check(file).faults == ()


def test_only_old_entries_that_were_carried_go_and_leave_their_hash(file: sqlite3.Connection, chain: Chain) -> None:
    old = NOON - module.KEEP - timedelta(seconds=1)
    chain.append(file, notes(4, old))
    assert prune(file, NOON) == 0, "the cloud lacks them"
    mark_carried(file, 3, "e-1")
    assert prune(file, NOON) == 3
    chain.append(file, notes(3))
    mark_carried(file, 8, "e-1")
    assert prune(file, NOON) == 2
    assert prune(file, NOON) == 0, "the others are young"
    found = check(file)
    assert (found.entries, found.faults) == (3, ())
    assert head_of(file).pruned_seq == 5
    forge(file, "UPDATE curtail_chain_head SET pruned_hash = ?", b"\1" * 32)
    assert check(file).faults == ("entry 6 follows another entry than 5",)


def test_a_prefix_up_to_where_a_chain_began_can_go(file: sqlite3.Connection, chain: Chain) -> None:
    old = NOON - module.KEEP - timedelta(days=1)
    chain.append(file, notes(2, old))
    chain.begin(file, NOON, ClockTrust.HELD, "a test")
    chain.append(file, notes(1))
    mark_carried(file, 5, "e-1")
    assert prune(file, NOON) == 3
    assert check(file).faults == ()
    assert chain.take_up(file, NOON, ClockTrust.HELD) == ""


def test_what_devices_say_breaks_no_entry(file: sqlite3.Connection, chain: Chain) -> None:
    said = "a\n\0b\t\ud800" + "x" * 1000
    chain.append(file, [Note(NOON, ClockTrust.UNTRUSTED, Kind.BY_HAND, "m\n1", said)])
    entry = entries(file, 1, 1)[0]
    assert entry.subject == "m 1"
    assert entry.detail.startswith("a b ?xxx")
    assert len(entry.detail) == 400
    assert check(file).faults == ()


def test_an_entry_alone_must_begin_a_chain() -> None:
    first = JournalEntry("c", 5, 0, "held", "chain_began", "", "", NOTHING_BEFORE, NOTHING_BEFORE)
    first = replace(first, hash=digest(first))
    assert fault_of(first, None) == ""
    later = replace(first, kind="sent")
    later = replace(later, hash=digest(later))
    assert fault_of(later, None) == "entry 5 begins no chain, and what it follows is missing"
    assert fault_of(replace(later, chain="other"), first) == "entry 5 is not what its hash was made of"


def test_a_look_sees_one_moment_whoever_writes_meanwhile(
    tmp_path: Path, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(connect(tmp_path / "agent.db")) as daemon:
        schema(daemon)
        chain.append(daemon, notes(2))

        def read_and_written(connection: sqlite3.Connection) -> object:
            found = head_of(connection)
            in_transaction(daemon, lambda file: chain.append(file, notes(2)))
            return found

        with closing(connect_read_only(tmp_path / "agent.db")) as onlooker:
            monkeypatch.setattr(
                module,
                "head_of",
                lambda connection: (head_of if connection is daemon else read_and_written)(connection),
            )
            assert (check(onlooker).entries, check(onlooker).faults) == (3, ())
            assert not onlooker.in_transaction


class Time:
    def now(self) -> tuple[datetime, ClockTrust]:
        return NOON, ClockTrust.HELD


class Cloud:
    def __init__(self) -> None:
        self.bodies: list[BatchBody] = []

    def append_in(self, connection: sqlite3.Connection, body: BatchBody) -> None:
        self.bodies.append(body)


def books_of(file: sqlite3.Connection, chain: Chain) -> tuple[Books, InlineWriter]:
    writer = InlineWriter(file)
    return Books(writer, NotedOutbox(Cloud(), chain, Time()), Ids(), Time()), writer


RECORD = MinerRecord("m1", Verb.STOP, "c-1", 3, "price", baseline_w=3200.0, power_w=41.0)
OFF = Verdict(Outcome.COMPLETE, Evidence.FEEDER_METER, "power_below_idle")


async def test_an_order_leaves_intent_sending_and_what_was_read_back(file: sqlite3.Connection, chain: Chain) -> None:
    books, _ = books_of(file, chain)
    await books.apply(lambda: Entry(miners=[RECORD], journal=[(Kind.STOP_INTENT, "m1", "c-1, price")]))
    books.note(Kind.SENT, "m1", "stop under c-1: the device said ok")
    assert len(entries(file, 0, 9)) == 2, "what was sent is told with the next transaction, and costs none"
    told = Entry(acks=[(RECORD, OFF)], notices=[(NoticeCode.CURTAILMENT_HELD, "c-1", "1 of 1")])
    await books.apply(lambda: told)
    await books.apply(lambda: told)
    found = [(entry.kind, entry.subject, entry.detail) for entry in entries(file, 1, 9)]
    outcome = "stop under c-1: complete, power_below_idle (feeder_meter); read back 41 W, before 3200 W"
    assert found[:4] == [
        ("stop_intent", "m1", "c-1, price"),
        ("sent", "m1", "stop under c-1: the device said ok"),
        ("outcome", "m1", outcome),
        ("curtailment_held", "c-1", "1 of 1"),
    ]
    assert [kind for kind, _, _ in found[4:]] == ["curtailment_held"], "the same outcome again is none"


@pytest.mark.parametrize("point", [CrashPoint.BEFORE_COMMIT, CrashPoint.AFTER_COMMIT])
async def test_a_kill_leaves_both_or_neither(file: sqlite3.Connection, chain: Chain, point: CrashPoint) -> None:
    books, writer = books_of(file, chain)
    writer.crash_at = point
    with pytest.raises(Crash):
        await books.apply(lambda: Entry(miners=[RECORD], journal=[(Kind.STOP_INTENT, "m1", "c-1")]))
    (records,) = file.execute("SELECT count(*) FROM curtail_miners").fetchone()
    intents = [entry for entry in entries(file, 0, 9) if entry.kind == Kind.STOP_INTENT]
    assert records == len(intents) == (point is CrashPoint.AFTER_COMMIT)
    assert check(file).faults == ()


async def test_a_full_disk_owes_its_journal(file: sqlite3.Connection, chain: Chain) -> None:
    books, writer = books_of(file, chain)
    back = replace(RECORD, verb=Verb.START)

    async def full(_: object) -> None:
        raise StorageFull("full")

    took, writer.run = writer.run, full
    assert await books.apply(lambda: Entry(miners=[back], journal=[(Kind.START_INTENT, "m1", "c-1")]))
    books.note(Kind.SENT, "m1", "start under c-1: the device said ok")
    with pytest.raises(AgentError):
        await books.apply(lambda: Entry(notices=[(NoticeCode.SELF_WOKEN, "m2", "why")]))
    writer.run = took
    await books.apply(lambda: Entry(marks={"a": "b"}))
    assert [entry.kind for entry in entries(file, 1, 9)] == ["sent", "start_intent"]


def test_a_broken_file_hands_its_journal_on_and_a_new_chain_says_so(tmp_path: Path, chain: Chain) -> None:
    with closing(connect(tmp_path / "old.db")) as old:
        schema(old)
        chain.append(old, notes(3))
        mark_carried(old, 2, "e-1")
    with closing(connect(tmp_path / "agent.db")) as new:
        schema(new)
        assert salvage(new, tmp_path / "old.db")
        chain.begin(new, NOON, ClockTrust.UNTRUSTED, "agent.db was broken and moved to old.db")
        found = check(new)
        assert (found.entries, found.chains, found.faults) == (5, 2, ())
        assert "follows chain-1 at 4" in entries(new, 4, 1)[0].detail
        assert head_of(new).carried_seq == 2
