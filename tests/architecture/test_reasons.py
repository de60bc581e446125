"""Reason codes as a technician reads them: whatever a reading, a stop or a start ends with has words."""

import ast

import pytest

from agent.failsafe.report import doubted
from agent.findings import Finding, Proof
from agent.reasons import in_words, judged_in_words, next_step
from sitelink.inventory import MinerEntry
from sitelink.types import Evidence, Reason
from tests.architecture.source import modules

BY_CURTAILMENT = ("agent/local_curtail/evidence.py", "agent/local_curtail/stopping.py")
NOTHING_TO_DO = {"power_below_idle", "already_idle", "hashing", "starting", "power_rising", "superseded"}


def verdicts() -> set[str]:
    """Every code that the judges of stops and starts write out."""
    return {
        argument.value
        for module in modules("agent/local_curtail")
        if module.path in BY_CURTAILMENT
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Verdict"
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }


def test_every_reading_and_every_verdict_has_words():
    codes = verdicts()
    assert {"feeder_clouded", "feeder_did_not_drop", "power_below_idle"} <= codes
    assert [code for code in codes | {reason.value for reason in Reason} if in_words(code) == code] in ([], ["hashing"])


def test_every_verdict_that_leaves_something_to_do_has_a_next_step_of_its_own():
    left = verdicts() - NOTHING_TO_DO
    assert [
        code for code in sorted(left | {"not_hashing", "wiring_unchecked", "wrong_outlet"}) if not next_step(code)
    ] == []
    assert not any(next_step(code).endswith("?") for code in left)


def test_a_reading_has_a_next_step_where_a_person_must_do_something():
    calls = {reason.value for reason in Reason if next_step(reason.value)}
    assert calls == {reason.value for reason in Reason} - {"none", "commanded", "starting", "not_reported"}
    assert (next_step("of_a_later_version"), next_step("")) == ("", "")
    assert in_words("session_busy").endswith(f": {next_step('session_busy')}")


@pytest.mark.parametrize(
    ("code", "evidence", "told"),
    [
        ("power_below_idle", Evidence.FEEDER_METER, "off, its feeder's meter agrees (power_below_idle)"),
        ("power_below_idle", Evidence.DEVICE_POWER, "off, by its own figure of power (power_below_idle)"),
        (
            "feeder_clouded",
            Evidence.FEEDER_METER,
            "it reads off, but the meter cannot tell it from its neighbours: measure it at the rack (feeder_clouded)",
        ),
        ("outlet_off", Evidence.DEVICE_STATE, "its outlet reads off (outlet_off)"),
        ("outlet_off", Evidence.FEEDER_METER, "its outlet reads off, its feeder's meter agrees (outlet_off)"),
        ("of_a_later_version", Evidence.NONE, "of_a_later_version"),
    ],
)
def test_a_verdict_is_told_in_words_with_its_code(code, evidence, told):
    assert judged_in_words(code, evidence) == told


def test_who_is_to_be_measured_is_said_by_feeder():
    def finding(name, proof):
        return Finding(MinerEntry(name, "127.0.0.1", 4028, "luxos", "", "F2", "R1", 1, None, None), proof, "")

    found = [finding("m1", Proof.YES), finding("m2", Proof.OPEN), finding("m3", Proof.NO), finding("m4", Proof.OPEN)]
    assert doubted(found) == ["feeder F2: its meter does not prove m2, m4 off: measure those marked open at the rack"]
