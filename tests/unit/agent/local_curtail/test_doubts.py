"""What stands against the word of miners and feeders: as long as their stops are in force, and no longer."""

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agent.local_curtail import by_hand, notices
from agent.local_curtail.chain import Chain
from agent.local_curtail.doubts import Difference, difference_of, doubts, mark_of, stored_doubts
from agent.local_curtail.evidence import Lie
from agent.local_curtail.history import last_events
from agent.local_curtail.notices import NotedOutbox, last_notices
from agent.local_curtail.records import MinerRecord, to_json
from agent.local_curtail.schema import schema
from sitelink.types import BatchBody, ClockTrust, Notice, NoticeCode, Outcome, Verb
from sitelink.units import Watts

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
DONE = MinerRecord("m1", Verb.STOP, "c1", 1, "price", outcome=Outcome.COMPLETE, reason="power_below_idle")
CLOUDED = replace(DONE, miner_id="m2", outcome=Outcome.UNVERIFIED, reason="feeder_clouded")
LIAR = replace(CLOUDED, miner_id="m3", reason="feeder_did_not_drop", lie=Lie.REPORTS_IDLE)
DEAF = replace(CLOUDED, miner_id="m4", reason="still_hashing", lie=Lie.ACK_WITHOUT_EFFECT)
WOKEN = replace(DONE, miner_id="m5", woken=True)
RECORDS = {record.miner_id: record for record in (DONE, CLOUDED, LIAR, DEAF, WOKEN)}
MARKS = {mark_of("F1"): Difference(2, Watts(3400), NOON).text(), "fallback": ""}
FEEDERS = {"F1": tuple(RECORDS), "F2": ("m9",)}
FOUND = {
    "miners": [
        {"miner": "m3", "codes": ["reports_idle"]},
        {"miner": "m4", "codes": ["ack_without_effect"]},
        {"miner": "m5", "codes": ["self_woken"]},
    ],
    "feeders": [{"feeder": "F1", "excess_w": 3400, "since": NOON.isoformat(), "open": ["m2", "m3"]}],
}
NOTHING = {"miners": [], "feeders": []}


@pytest.fixture
def file():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema(connection)
    for record in RECORDS.values():
        connection.execute("INSERT INTO curtail_miners VALUES (?, ?)", (record.miner_id, to_json(record)))
    connection.executemany("INSERT INTO curtail_marks VALUES (?, ?)", MARKS.items())
    return connection


def test_liars_the_woken_and_a_feeder_with_its_open_miners():
    assert doubts(RECORDS, MARKS, FEEDERS) == FOUND


def test_the_file_says_the_same(file):
    assert stored_doubts(file, FEEDERS) == FOUND


@pytest.mark.parametrize("mark", ["", "0", "3"])
def test_a_mark_that_is_struck_or_of_an_earlier_version_tells_no_difference(mark):
    assert difference_of(mark) is None
    assert doubts(RECORDS, {mark_of("F1"): mark}, FEEDERS)["feeders"] == []


def test_nothing_stands_once_the_miners_are_started():
    started = {name: replace(record, verb=Verb.START) for name, record in RECORDS.items()}
    assert doubts(started, MARKS, FEEDERS) == NOTHING


def test_whom_a_failsafe_has_proven_off_since_is_no_liar_any_more(file):
    taken_up = replace(LIAR, outcome=None, reason="")
    file.execute("UPDATE curtail_miners SET record = ? WHERE miner_id = 'm3'", (to_json(taken_up),))
    line = by_hand.Line(NOON, "failsafe-1", "m3", by_hand.UNPROVEN, "open")
    by_hand.write_lines(file, [line])
    assert stored_doubts(file, FEEDERS)["miners"][0] == FOUND["miners"][0]
    by_hand.write_lines(file, [replace(line, event=by_hand.PROVEN)])
    found = stored_doubts(file, FEEDERS)
    assert found["miners"] == FOUND["miners"][1:]
    assert found["feeders"][0]["open"] == ["m2"]


class Cloud:
    def __init__(self):
        self.got = []

    def append_in(self, _, body):
        self.got += body.notices


class Now:
    def now(self):
        return NOON, ClockTrust.SYNCED


def noted(outbox):
    return NotedOutbox(outbox, Chain(lambda: "chain-1"), Now())


def notice(code, subject="m3", at=NOON):
    return Notice("n", at, code, subject, "why")


def test_notices_are_kept_as_they_are_handed_on(file):
    cloud = Cloud()
    given = [notice(NoticeCode.LIAR_NAMED), notice(NoticeCode.OVERRIDE_SET, "failsafe-1")]
    noted(cloud).append_in(file, BatchBody(notices=tuple(given)))
    assert cloud.got == given
    # The override has a row of its own, and is told once.
    assert [(one.code, one.subject, one.detail, one.at) for one in last_notices(file, 9)] == [
        (NoticeCode.LIAR_NAMED, "m3", "why", NOON)
    ]


def test_they_are_bounded_by_number_and_age(file, monkeypatch):
    monkeypatch.setattr(notices, "MOST", 3)
    outbox = noted(Cloud())
    outbox.append_in(file, BatchBody(notices=(notice(NoticeCode.SELF_WOKEN, "old"),)))
    later = NOON + notices.KEEP + timedelta(seconds=1)
    outbox.append_in(file, BatchBody(notices=(notice(NoticeCode.SELF_WOKEN, "m0", later),)))
    assert [one.subject for one in last_notices(file, 9)] == ["m0"]
    for n in range(5):
        outbox.append_in(file, BatchBody(notices=(notice(NoticeCode.SELF_WOKEN, f"m{n}", later),)))
    assert [one.subject for one in last_notices(file, 9)] == ["m2", "m3", "m4"]


def test_the_journal_lists_them_with_whom_they_are_about(file):
    file.execute("DELETE FROM curtail_miners")
    told = [
        notice(NoticeCode.CURTAILMENT_STARTED, "c1"), notice(NoticeCode.LIAR_NAMED),
        notice(NoticeCode.FEEDER_DISAGREES, "F1"),
    ]  # fmt: skip
    noted(Cloud()).append_in(file, BatchBody(notices=tuple(told)))
    assert [(event.event, event.order_id, event.miner_id, event.what) for event in last_events(file, 9)] == [
        ("curtailment_started", "c1", "", "why"),
        ("liar_named", "", "m3", "why"),
        ("feeder_disagrees", "", "", "F1: why"),
    ]
    file.execute("DROP TABLE curtail_notices")
    assert last_events(file, 9) == ()
