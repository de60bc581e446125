"""What a run without a daemon has found stays found: told by the file, handed on, and struck once it is over."""

import json
from contextlib import closing
from datetime import timedelta

import pytest

from agent.local_curtail.doubts import mark_of
from agent.local_curtail.evidence import Lie
from agent.local_curtail.history import last_events
from agent.local_curtail.records import Phase
from agent.storage import connect, connect_read_only
from sitelink.types import MeterSample, MinerState, Outcome, Verb
from sitelink.units import Watts
from tests.unit.agent.failsafe.test_direct import T0, FakeControl, FakeMeter, Rig, Seen, _quick, entry

__all__ = ["_quick"]
NOTHING = {"miners": [], "feeders": []}
ACK, IDLE = "ack_without_effect", "reports_idle"


class Deaf(FakeControl):
    """Takes the order and hashes on; its figures waver, so they are of after the order."""

    looks = 0

    async def observe(self):
        self.looks += 1
        return Seen(MinerState.HASHING, Watts(3000 + self.looks % 2)) if self.liar else await super().observe()

    async def stop(self):
        self.off = not self.liar


def doubts(rig):
    return rig.ledger(read_only=True).doubts()


def told(rig):
    """The notices that wait for the cloud, without those of orders."""
    rows = rig.rows("SELECT record FROM curtail_unsent WHERE kind = 'notice' ORDER BY place")
    found = [json.loads(record) for (record,) in rows]
    return [(one["code"], one["subject"]) for one in found if one["code"] != "override_set"]


def acks(rig):
    rows = rig.rows("SELECT record FROM curtail_unsent WHERE kind = 'ack'")
    return [(one["miner_id"], one["outcome"], one["reason"]) for one in (json.loads(record) for (record,) in rows)]


async def run(rig, verb, *names, order="failsafe-1"):
    named = None if len(names) == len(rig.controls) else frozenset(names)
    return await rig.switch(verb, tuple(entry(name) for name in names), named, order)


async def found(tmp_path):
    """A site after one run: m1 pretends to be off, m2 takes the order and hashes on, m3 is honest."""
    rig = Rig(tmp_path, {"m1": FakeControl(liar=True), "m2": Deaf(liar=True), "m3": FakeControl()})
    assert await run(rig, Verb.STOP, "m1", "m2", "m3") == 1
    return rig


async def test_a_silent_meter_proves_nobody_off_and_strikes_nothing(tmp_path, monkeypatch):
    async def silent(_):
        return MeterSample("meter", T0, None)

    rig = await found(tmp_path)
    before = doubts(rig)
    monkeypatch.setattr(FakeMeter, "read", silent)
    assert await run(rig, Verb.STOP, "m1", "m3", order="failsafe-2") == 1
    assert "0 of 2 miners proven off" in rig.out
    assert doubts(rig)["feeders"] == before["feeders"]


async def test_a_liar_and_a_feeder_are_kept_and_wait_for_the_cloud(tmp_path):
    rig = await found(tmp_path)
    known = doubts(rig)
    assert known["miners"] == [{"miner": "m2", "codes": [ACK]}]
    assert known["feeders"] == [{"feeder": "F1", "excess_w": 2950, "since": T0.isoformat(), "open": ["m1", "m3"]}]
    assert told(rig) == [("liar_named", "m2"), ("feeder_disagrees", "F1")]
    assert acks(rig) == [("m2", "unverified", "still_hashing")]
    m1, m2, m3 = (rig.records()[name] for name in ("m1", "m2", "m3"))
    assert (m2.phase, m2.outcome, m2.lie, m2.acked) == (Phase.DONE, Outcome.UNVERIFIED, Lie.ACK_WITHOUT_EFFECT, True)
    assert (m1.phase, m1.outcome, m1.lie) == (Phase.SENT, None, Lie.NONE), "the daemon reads back itself"
    assert (m3.phase, m3.outcome) == (Phase.SENT, None)
    with closing(connect_read_only(rig.settings.database)) as file:
        events = {event.event: event.what for event in last_events(file, 50)}
    assert "it said ok and goes on hashing" in events["liar_named"]
    assert events["feeder_disagrees"].startswith("F1: the feeder draws 0.0029 MW more than its miners own up to")
    assert "read off, not proven: m1, m3" in events["feeder_disagrees"]


async def test_one_alone_that_reads_off_while_its_feeder_draws_on_is_a_named_liar_until_its_meter_clears_it(tmp_path):
    rig = Rig(tmp_path, {"m1": FakeControl(liar=True)})
    assert await run(rig, Verb.STOP, "m1") == 1
    assert doubts(rig)["miners"] == [{"miner": "m1", "codes": [IDLE]}]
    assert [each["open"] for each in doubts(rig)["feeders"]] == [["m1"]]
    rig.clock.advance(3600)
    assert await run(rig, Verb.STOP, "m1", order="failsafe-2") == 1
    assert doubts(rig)["miners"] == [{"miner": "m1", "codes": [IDLE]}], "by saying the same again nobody is cleared"
    assert told(rig) == [("liar_named", "m1"), ("feeder_disagrees", "F1")], "once each"
    rig.controls["m1"].liar = False
    assert await run(rig, Verb.STOP, "m1", order="failsafe-3") == 0
    assert doubts(rig) == NOTHING
    assert rig.rows("SELECT value FROM curtail_marks") == [("",)]
    assert rig.records()["m1"].lie is Lie.NONE


async def test_a_caught_one_is_not_proven_by_its_own_word_once_the_meter_is_dead(tmp_path, monkeypatch):
    rig = Rig(tmp_path, {"m1": FakeControl(liar=True)})
    await run(rig, Verb.STOP, "m1")

    async def silent(_):
        return MeterSample("meter", T0, None)

    monkeypatch.setattr(FakeMeter, "read", silent)
    rig.told.clear()
    assert await run(rig, Verb.STOP, "m1", order="failsafe-2") == 1
    assert "  open  " in rig.out
    assert doubts(rig)["miners"] == [{"miner": "m1", "codes": [IDLE]}]
    assert doubts(rig)["feeders"], "and what its feeder drew too much stands"


async def test_a_later_run_that_proves_them_off_strikes_what_stood_against_them(tmp_path):
    rig = await found(tmp_path)
    for name in ("m1", "m2"):
        rig.controls[name].liar = False
    assert await run(rig, Verb.STOP, "m1", "m2", "m3", order="failsafe-2") == 0, rig.out
    assert doubts(rig) == NOTHING
    assert {record.lie for record in rig.records().values()} == {Lie.NONE}


async def test_a_start_ends_what_stood_against_the_stop_and_a_new_stop_is_told_anew(tmp_path):
    rig = await found(tmp_path)
    rig.controls["m2"].liar = False
    await run(rig, Verb.START, "m1", order="failsafe-2")
    assert [each["open"] for each in doubts(rig)["feeders"]] == [["m3"]], "it may still be the other"
    await run(rig, Verb.START, "m3", order="failsafe-3")
    assert doubts(rig) == {"miners": [{"miner": "m2", "codes": [ACK]}], "feeders": []}
    await run(rig, Verb.START, "m2", order="failsafe-4")
    assert doubts(rig) == NOTHING
    rig.clock.advance(60)
    before = len(told(rig))
    assert await run(rig, Verb.STOP, "m1", order="failsafe-5") == 1
    assert told(rig)[before:] == [("liar_named", "m1"), ("feeder_disagrees", "F1")]
    assert doubts(rig)["feeders"][0]["since"] == (T0 + timedelta(seconds=60)).isoformat()


@pytest.mark.parametrize("named", [None, frozenset({"m1", "m2", "m3"})])
async def test_a_release_ends_it_too(tmp_path, named):
    rig = await found(tmp_path)
    async with rig.ledger() as ledger:
        assert await ledger.release(named, rig.controls) == ("failsafe-1",)
    assert doubts(rig) == NOTHING
    assert rig.rows("SELECT value FROM curtail_marks") == [("",)]
    assert rig.records()["m2"].lie is Lie.ACK_WITHOUT_EFFECT, "a daemon under whose plan it stays off is not misled"


async def test_a_release_of_one_leaves_the_others(tmp_path):
    rig = await found(tmp_path)
    async with rig.ledger() as ledger:
        await ledger.release(frozenset({"m1"}), rig.controls)
    assert doubts(rig)["miners"] == [{"miner": "m2", "codes": [ACK]}]
    assert [each["open"] for each in doubts(rig)["feeders"]] == [["m3"]]
    async with rig.ledger() as ledger:
        await ledger.release(frozenset({"m3"}), rig.controls)
    assert doubts(rig) == {"miners": [{"miner": "m2", "codes": [ACK]}], "feeders": []}


async def test_what_one_run_found_stands_beside_what_the_next_finds_on_the_same_feeder(tmp_path):
    rig = Rig(tmp_path, {name: FakeControl(liar=name != "m3") for name in ("m1", "m2", "m3", "m4")})
    await run(rig, Verb.STOP, "m1")
    await run(rig, Verb.STOP, "m3", order="failsafe-2")
    assert [each["excess_w"] for each in doubts(rig)["feeders"]] == [2950], "an honest neighbour strikes nothing"
    rig.clock.advance(60)
    await run(rig, Verb.STOP, "m2", order="failsafe-3")
    (feeder,) = doubts(rig)["feeders"]
    assert (feeder["excess_w"], feeder["open"], feeder["since"]) == (5900, ["m1", "m2"], T0.isoformat())


async def test_a_miner_that_is_not_seen_to_have_heard_of_its_order_is_no_liar(tmp_path):
    class Frozen(Deaf):
        async def observe(self):
            return Seen(MinerState.HASHING, Watts(3000))

    rig = Rig(tmp_path, {"m1": Frozen(liar=True)})
    assert await run(rig, Verb.STOP, "m1") == 1
    assert doubts(rig) == NOTHING
    assert rig.records()["m1"].outcome is None


async def test_a_stranger_that_idles_clears_no_liar(tmp_path):
    rig = Rig(tmp_path, {"m1": Deaf(liar=True)})
    await run(rig, Verb.STOP, "m1")
    rig.controls["m1"].liar = False

    async def another():
        return "another"

    rig.controls["m1"].identity = another
    assert await run(rig, Verb.STOP, "m1", order="failsafe-2") == 1
    assert doubts(rig)["miners"] == [{"miner": "m1", "codes": [ACK]}]


async def test_a_broken_mark_and_a_disk_that_fills_keep_nobody_from_being_stopped_or_told_of(tmp_path):
    rig = Rig(tmp_path, {"m1": FakeControl(liar=True)})
    async with rig.ledger():
        pass
    with closing(connect(rig.settings.database)) as file:
        file.execute("INSERT INTO curtail_marks VALUES (?, '{')", (mark_of("F1"),))
    assert await run(rig, Verb.STOP, "m1") == 1
    assert "it still draws about 2950 W that no miner owns up to" in rig.out
    assert "takes nothing" in rig.out
    rig.controls["m1"].off = False
    rig.told.clear()
    async with rig.ledger() as ledger:
        size = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
        ledger._connection.execute(f"PRAGMA max_page_count = {size}")
        ledger._connection.execute(
            "CREATE TEMP TRIGGER full BEFORE INSERT ON curtail_marks BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
        assert await rig.failsafe(ledger).switch(Verb.STOP, (entry("m1"),), "failsafe-2") == 1
    assert rig.controls["m1"].off
    assert "it still draws about 2950 W that no miner owns up to" in rig.out
