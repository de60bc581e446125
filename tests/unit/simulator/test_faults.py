import json

import pytest

from agent.cgminer.repair import decode
from agent.errors import Garbled
from simulator.faults import GARBAGE, OVERSIZE_BYTES, BadFault, Fault, as_json, parse_fault, spoil

LISTS = as_json(
    {
        "STATUS": [{"STATUS": "S", "When": 1700000000, "Code": 70, "Msg": "stats", "Description": "cgminer 1.0.0"}],
        "STATS": [
            {"Type": "Antminer S9", "Miner": "1.2"},
            {"Elapsed": 900, "GHS 5s": 13500.25, "temp_chip1": "60-50-61-52", "Power": 1320, "Watts": 1320},
        ],
        "id": 1,
    }
)
STILL_JSON = {"inf_string", "nan_string", "duplicate_keys", "numbers_as_strings", "power_minus_one", "message_string"}
STILL_JSON |= {"negative_temps", "oversize", "empty_number"}
HOPELESS = {"html", "binary", "empty"}


@pytest.mark.parametrize("kind", sorted(set(GARBAGE) - STILL_JSON))
def test_these_kinds_are_no_json_any_more(kind):
    with pytest.raises(ValueError):
        json.loads(spoil(kind, LISTS))


@pytest.mark.parametrize("kind", sorted(STILL_JSON))
def test_these_kinds_are_json_with_other_content(kind):
    spoilt = spoil(kind, LISTS)
    assert spoilt != LISTS
    json.loads(spoilt)


@pytest.mark.parametrize("kind", sorted(set(GARBAGE) - STILL_JSON - HOPELESS))
def test_the_agents_repair_reads_what_the_field_sends(kind):
    decoded = decode(spoil(kind, LISTS))
    assert decoded.repaired
    assert isinstance(decoded.document, dict)


@pytest.mark.parametrize("kind", sorted(HOPELESS))
def test_nothing_is_read_out_of_rubbish(kind):
    with pytest.raises(Garbled):
        decode(spoil(kind, LISTS))


def test_oversize_is_beyond_any_cap():
    assert len(spoil("oversize", LISTS)) > OVERSIZE_BYTES > 262_144


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("dead", Fault("dead")),
        ("garbage:truncated", Fault("garbage", "truncated")),
        ("self_waking", Fault("self_waking", "", 20.0)),
        ("self_waking:5", Fault("self_waking", "", 5.0)),
        ("wrong_identity:02:00:00:00:00:01", Fault("wrong_identity", "02:00:00:00:00:01")),
    ],
)
def test_faults_are_named_in_words(text, fault):
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    "text", ["", "sleepy", "garbage", "garbage:nonsense", "self_waking:soon", "delayed:nan", "delayed:-1"]
)
def test_an_unknown_fault_is_refused_in_one_line(text):
    with pytest.raises(BadFault) as raised:
        parse_fault(text)
    assert "\n" not in str(raised.value)
    assert "write" in str(raised.value)
