"""From the operator's words to rules; what is surely drawn; who waits for whose fans."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.house_settings import CapSettings, HeatSettings, PriceSettings, RampSettings, TemperatureSettings
from agent.local_curtail.cooling import Cooling
from agent.local_curtail.evidence import Lie
from agent.local_curtail.heat import Heat, HeatLimit, HeatRules, Look
from agent.local_curtail.house import heat_rules, ramp_rules, silent_rule
from agent.local_curtail.policy import FALLBACK_ORDER, whom
from agent.local_curtail.ramp import RampRules
from agent.local_curtail.records import MinerRecord, Phase
from agent.local_curtail.rules import SiteMiner, SiteRules
from agent.local_curtail.silence import CapRule, DeadMeter, PriceRule, Steps, TemperatureRule
from agent.local_curtail.surroundings import Surroundings, is_settled, sure_w
from sitelink.types import Fallback, MinerState, Outcome, Reading, Reason, Verb
from sitelink.units import Watts

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_the_narrowest_group_sets_the_limit_of_a_miner():
    rules = heat_rules(
        HeatSettings(75.0, None, 70.0, 8.0, (("R7", 60.0, None), ("F1", None, 90.0), ("S21", 80.0, None)))
    )
    assert rules == HeatRules(
        HeatLimit(75.0, None, 8.0),
        {"R7": HeatLimit(60.0, None, 8.0), "F1": HeatLimit(None, 90.0, 8.0), "S21": HeatLimit(80.0, None, 8.0)},
        70.0,
    )
    found = [
        rules.of(*group).board_c
        for group in (("R7", "F1", "S21"), ("R8", "F1", "S21"), ("R8", "F2", "S21"), ("", "", ""))
    ]
    assert found == [60.0, None, 80.0, 75.0]


def test_a_figure_that_no_sensor_shows_is_looked_behind_only_where_its_kind_is_limited():
    for limit, odd in ((HeatLimit(board_c=75.0), True), (HeatLimit(chip_c=75.0), False)):
        heat = Heat(limit)
        assert not heat.is_odd
        heat.shown(Look(1.0, 255.0, 60.0))
        assert heat.is_odd is odd


@pytest.mark.parametrize(
    ("written", "rule"),
    [
        (None, None),
        (PriceSettings(Path("p"), "UTC", ((80.0, 1.0),), Fallback.STOP), PriceRule(Steps(((80.0, 1.0),)), Fallback.STOP)),
        (TemperatureSettings("", ((70.0, 1.0),), 4.0, Fallback.HOLD),
         TemperatureRule(Steps(((70.0, 1.0),), 4.0), False, Fallback.HOLD)),
        (TemperatureSettings("file:///t", ((30.0, 1.0),), 4.0, Fallback.RUN),
         TemperatureRule(Steps(((30.0, 1.0),), 4.0), True, Fallback.RUN)),
        (CapSettings(Watts(9.0), Watts(1.0), Watts(2.0), 30.0, "hold"),
         CapRule(Watts(9.0), Watts(1.0), Watts(2.0), 30.0, DeadMeter.HOLD)),
    ],
)  # fmt: skip
def test_each_rule_for_silence_is_as_it_was_written(written, rule):
    assert silent_rule(written) == rule


def test_ramps_are_carried_out_as_it_was_written():
    written = RampSettings(0.1, 0.2, 3.0, 4.0, ("fan wall",), 5.0)
    assert ramp_rules(written) == RampRules(0.1, 0.2, 3.0, 4.0, frozenset({"fan wall"}), 5.0)


def reading(state=MinerState.HASHING, power_w=3000.0, board_c=None, read_at=NOON):
    return Reading("m1", read_at, state, Reason.NONE, 100.0, power_w, board_temp_c=board_c)


START = MinerRecord("m1", Verb.START, "c1", 1, "released", touched=True, baseline_w=Watts(2900.0))


@pytest.mark.parametrize(
    ("record", "read", "age_s", "sure"),
    [
        (None, reading(), 0.0, 3000.0), (None, reading(), 301.0, None), (None, reading(), -301.0, None),
        (None, None, 0.0, None), (None, reading(power_w=None), 0.0, None), (None, reading(MinerState.IDLE), 0.0, None),
        (None, reading(MinerState.UNKNOWN, None), 0.0, None), (None, reading(power_w=9000.0), 0.0, 3500.0),
        (START, reading(MinerState.IDLE, 50.0), 0.0, 2900.0),
        (replace(START, outcome=Outcome.UNVERIFIED), reading(MinerState.IDLE, 50.0), 0.0, None),
        (replace(START, lie=Lie.REPORTS_IDLE), reading(), 0.0, None),
    ],
)  # fmt: skip
def test_only_what_is_sure_is_counted(record, read, age_s, sure):
    assert sure_w(record, read, Watts(3500.0), age_s) == sure


@pytest.mark.parametrize(
    ("changes", "settled"),
    [
        ({"order_id": "c1"}, True), ({}, False), ({"phase": Phase.SENT}, False),
        ({"phase": Phase.DONE, "outcome": Outcome.COMPLETE, "sent_at": NOON}, False),
        ({"phase": Phase.DONE, "outcome": Outcome.COMPLETE, "sent_at": NOON - timedelta(seconds=30)}, True),
        ({"phase": Phase.DONE, "outcome": Outcome.COMPLETE, "sent_at": NOON + timedelta(hours=1)}, True),
        ({"phase": Phase.DONE, "outcome": Outcome.UNVERIFIED, "sent_at": NOON}, True),
    ],
)  # fmt: skip
def test_a_rule_looks_again_once_what_it_switched_shows(changes, settled):
    record = replace(MinerRecord("m1", Verb.STOP, FALLBACK_ORDER, 0, "x"), **changes)
    assert is_settled([record], NOON, 30.0) is settled
    assert whom(None) == "all miners"


def surroundings(readings, silence):
    miners = {name: SiteMiner(name, "F1", None if name == "m3" else Watts(3500.0), True, nameplate_ths=ths)
              for name, ths in (("m1", 100.0), ("m2", 200.0), ("m3", 100.0), ("m4", None))}  # fmt: skip
    rules = SiteRules(
        "s", "a", frozenset(), 3600.0, Watts(0), Fallback.RUN, 0.0, silence=silence, min_load_w=Watts(1.0)
    )
    return Surroundings(rules, miners, readings.get, lambda: Watts(9000.0), None, None)


def test_what_a_rule_sees_of_the_site():
    warm = TemperatureRule(Steps(((70.0, 1.0),)))
    temps = {"m1": reading(board_c=60.0), "m2": reading(board_c=62.0), "m3": reading(board_c=255.0)}
    assert surroundings(temps, warm).sights({}, NOON).board_c is None, "two tell too little of four"
    idle = {**temps, "m4": reading(MinerState.IDLE, 10.0, 20.0)}
    assert surroundings(idle, warm).sights({}, NOON).board_c == 60.0
    assert surroundings({}, warm).order == ("m3", "m4", "m1", "m2"), "the least efficient first; unknown is the worst"
    cap = CapRule(Watts(9.0), Watts(1.0), Watts(2.0), 30.0)
    liar = MinerRecord("m1", Verb.STOP, FALLBACK_ORDER, 0, "x", lie=Lie.REPORTS_IDLE)
    seen = surroundings({}, cap).sights({"m1": liar}, NOON)
    assert (seen.site_w, seen.settled, seen.liars) == (9000.0, False, {"m1"})
    assert surroundings({}, None).sights({}, NOON).site_w is None


def test_the_loads_of_a_site_name_who_is_gone_and_what_could_come_back():
    off = MinerRecord("m1", Verb.STOP, "c1", 1, "price", Phase.DONE, True, baseline_w=Watts(3100.0), sent_at=NOON,
                      off_since=NOON, outcome=Outcome.COMPLETE)  # fmt: skip
    around = surroundings({"m2": reading()}, None)
    early, late = (around.loads({"m1": off}, NOON + timedelta(seconds=s)) for s in (29, 30))
    assert (early.gone, late.gone) == (frozenset(), {"m1"})
    assert (late.could_w, late.sure_w, late.site_w) == ({"m1": 3100.0}, {"m2": 3000.0}, 9000.0)
    assert set(late.most_w) == {"m1", "m2", "m4"}, "who has no nameplate may draw anything"


def records(**verbs):
    return {name: MinerRecord(name, verb, "c1", 1, "x", touched=True) for name, verb in verbs.items()}


def test_a_racks_miners_wait_for_its_fans_and_its_fans_for_its_miners():
    racks = {"fan": ("A", "wall"), "m1": ("A", "S21"), "m2": ("B", "S21")}
    miners = {name: SiteMiner(name, "F", None, True, rack, model) for name, (rack, model) in racks.items()}
    cooling = Cooling(frozenset({"wall"}), 20.0, miners)
    back = records(fan=Verb.START, m1=Verb.START, m2=Verb.START)
    assert [cooling.waits(back[name], back, 5.0) for name in racks] == [False, True, False]
    assert [cooling.waits(back["m1"], back, now_s) for now_s in (24.9, 25.0)] == [True, False]
    on = {**back, "fan": replace(back["fan"], phase=Phase.DONE, touched=False, outcome=Outcome.COMPLETE)}
    assert not cooling.waits(on["m1"], on, 6.0)
    cooling.settle(on)
    assert cooling.waits(back["m1"], back, 100.0), "the next time it waits anew"
    down = records(fan=Verb.STOP, m1=Verb.STOP, m2=Verb.STOP)
    assert [cooling.waits(down[name], down, 5.0) for name in racks] == [True, False, False]
    judged = {**down, "m1": replace(down["m1"], outcome=Outcome.UNVERIFIED)}
    assert not cooling.waits(judged["fan"], judged, 5.0)
    assert not cooling.waits(down["fan"], {"fan": down["fan"]}, 5.0)
    assert not Cooling(frozenset(), 20.0, miners).waits(back["m1"], back, 5.0)
