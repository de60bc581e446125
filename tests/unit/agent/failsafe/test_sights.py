"""What a technician is shown of miners, of liars among them, and of feeders that draw too much."""

import json

from agent.failsafe.sights import Around, Sight, document, show
from sitelink.inventory import MinerEntry
from sitelink.types import MinerState
from sitelink.units import Watts

FEEDER = {"feeder": "F1", "excess_w": 3400.0, "since": "2026-11-24T12:00:07+00:00", "open": ["m0"]}
AROUND = Around(
    [{"override_id": "failsafe-1"}], {"miners": [{"miner": "m0", "codes": ["reports_idle"]}], "feeders": [FEEDER]}
)


def sight(name, state=MinerState.IDLE, why="stopped by an order"):
    entry = MinerEntry(name, "10.0.0.1", 4028, "luxos", "S19", "F1", "R1", 1, Watts(3400), None)
    return Sight(entry, state, why, Watts(50))


def shown(sights, around):
    told = []
    return show(sights, around, told.append), told


def test_a_liar_is_told_in_words_and_its_feeder_by_how_much():
    code, told = shown([sight("m0"), sight("m1")], AROUND)
    assert code == 0
    assert told[1] == (
        "m0  R1       idle         50 W  LIAR: it says it is off, but its feeder did not drop: go to its rack, cut "
        "its outlet or breaker, then say failsafe off --miner m0 again; stopped by an order"
    )
    assert told[2].endswith("50 W  stopped by an order")
    assert told[4] == ("feeder F1 draws 0.0034 MW more than its miners own up to, since 2026-11-24 12:00 UTC; open: m0")
    assert told[5].startswith("  -> measure its open miners at the rack")


def test_nothing_is_told_where_nothing_stands_and_many_open_ones_are_cut_short():
    _, told = shown([sight("m1")], Around(doubts={"miners": [], "feeders": []}))
    assert told[-1] == "1 miner: 1 idle"
    many = {**FEEDER, "open": [f"m{n}" for n in range(11)]}
    _, told = shown([sight("m1")], Around(doubts={"feeders": [many, {**FEEDER, "feeder": "F2", "open": []}]}))
    assert told[3].endswith("open: m0, m1, m2, m3, m4, m5, m6, m7 and 3 more")
    assert told[4].endswith("open: none of those stopped")
    assert [line.startswith("  ->") for line in told[3:]] == [False, False, True]


def test_as_json_it_is_one_line_and_what_is_unknown_is_null():
    found = json.loads(document([sight("m0"), sight("m1", MinerState.UNKNOWN, "")], AROUND))
    assert found["overrides"] == [{"override_id": "failsafe-1"}]
    assert found["feeders"] == [FEEDER]
    assert [(miner["miner"], miner["doubts"], miner["state"]) for miner in found["miners"]] == [
        ("m0", ["reports_idle"], "idle"), ("m1", [], "unknown"),
    ]  # fmt: skip
    assert "\n" not in document([sight("m0")], AROUND)
    assert json.loads(document([sight("m0")], Around()))["feeders"] is None
