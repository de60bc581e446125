"""What the site's own rules do is told from its file: in status, doctor and plan show."""

import sqlite3
from dataclasses import replace

import pytest

from agent.doctor import limits as doctor
from agent.local_curtail import inbox, records
from agent.local_curtail.held import HEAT_MARK, held_of, mark_of_held
from agent.local_curtail.policy import MAX_OFF, MIN_LOAD
from agent.local_curtail.records import MinerRecord
from agent.local_curtail.restraint import Restraint, stored_restraint
from agent.local_curtail.schema import schema
from agent.local_curtail.standing import Standing, lines
from sitelink.types import ClockTrust, Verb
from tests.unit.sitelink.samples import NOON


@pytest.fixture
def file():
    connection = sqlite3.connect(":memory:")
    schema(connection)
    yield connection
    connection.close()


def fill(connection):
    for name, cause in (("m1", MIN_LOAD), ("m2", MIN_LOAD), ("m3", MAX_OFF), ("m4", "released")):
        record = MinerRecord(name, Verb.START, "c1", 1, cause)
        connection.execute("INSERT INTO curtail_miners VALUES (?, ?)", (name, records.to_json(record)))
    for mark in ((HEAT_MARK, mark_of_held({"m9", "m8"}, {"A"})), ("fallback", "fallback_stop_plan_expired")):
        connection.execute("INSERT INTO curtail_marks VALUES (?, ?)", mark)
    for code in ("verb_not_allowed", "verb_not_allowed", "expired"):
        inbox.count_refusal(connection, code)


def test_each_rule_at_work_is_one_line_that_begins_with_its_code(file):
    assert stored_restraint(file) == Restraint()
    assert Restraint().lines() == []
    fill(file)
    found = stored_restraint(file)
    assert found == Restraint(("m8", "m9"), ("A",), 2, 1, 2, "fallback_stop_plan_expired")
    assert [line.partition(":")[0] for line in found.lines()] == [
        "too_hot", "min_load", "max_off", "verb_not_allowed", "fallback_stop_plan_expired",
    ]  # fmt: skip
    assert found.document()["too_hot"] == {"miners": ["m8", "m9"], "racks": ["A"]}


def test_the_doctor_gives_each_a_next_step(file, monkeypatch, tmp_path):
    class Settings:
        database = tmp_path / "agent.db"

    class Kept:
        def __getattr__(self, name):
            return getattr(file, name)

        def close(self):
            pass

    monkeypatch.setattr(doctor, "connect_read_only", lambda _: Kept())
    assert [(one.level.value, one.step) for one in doctor.limits(Settings())] == [("ok", "")]
    fill(file)
    found = list(doctor.limits(Settings()))
    assert [one.level.value for one in found] == ["BAD", "warn", "warn", "warn", "warn"]
    assert all(one.step for one in found)
    file.execute("DROP TABLE curtail_marks")
    assert list(doctor.limits(Settings())) == []


def test_plan_show_names_who_is_held_for_heat():
    standing = Standing(NOON, ClockTrust.SYNCED, None, (), (), "", mark_of_held([f"m{n}" for n in range(7)], ["A"]))
    (line,) = [line for line in lines(standing.document()) if line.startswith("too hot")]
    assert line == "too hot     m0, m1, m2, m3, m4, rack A and 2 more: stopped until cooled, whatever the plan says"
    assert not any(line.startswith("too hot") for line in lines(replace(standing, heat="").document()))
    assert held_of(mark_of_held((), ())) == (set(), set())
