"""Whatever a device sends, parsing it ends in an observation."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cgminer.dialects import TABLES
from agent.cgminer.replies import parse
from sitelink.types import MinerState
from tests.unit.agent.cgminer import replies_of as made

pytestmark = pytest.mark.agent

DIALECTS = st.sampled_from([*sorted(TABLES), "auto", "nonsense"])
SAMPLES: list[dict[str, bytes]] = [
    made.luxos(),
    made.avalon(),
    {"stats": made.antminer_stats(), "pools": made.POOLS},
    {"summary": made.whatsminer_summary(), "devs": made.WHATSMINER_DEVS},
]
KEYS = sorted(
    {
        key
        for sample in SAMPLES
        for reply in sample.values()
        for rows in json.loads(reply).values()
        if isinstance(rows, list)
        for row in rows
        for key in row
    }
    | {"chain", "fan", "temp_chip1", "GHS 5s", "MM ID0", "chain_power", "error_code", "mineroff", "Error Code 0", "PS"}
)
ODD: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300, max_value=10**310)
    | st.floats()
    | st.sampled_from(["", "nan", "inf", "1e999", "-1", "2--1-20", "0-0-0-0", "m-m", "PS[1 2 3 4 5]", "٣", "1_0"])
    | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(DIALECTS, st.binary(max_size=300))
def test_arbitrary_bytes(dialect: str, reply: bytes) -> None:
    assert parse(dialect, {"summary": reply}).dialect


@given(DIALECTS, st.sampled_from(SAMPLES), st.data())
def test_damaged_replies(dialect: str, sample: dict[str, bytes], data: st.DataObject) -> None:
    command = data.draw(st.sampled_from(sorted(sample)))
    reply = bytearray(sample[command])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(reply)))
        reply[place : place + data.draw(st.integers(0, 6))] = data.draw(st.binary(max_size=4))
    parse(dialect, {**sample, command: bytes(reply)})


@given(
    DIALECTS,
    st.dictionaries(
        st.sampled_from(["STATUS", "SUMMARY", "STATS", "DEVS", "POOLS", "Msg", "CONFIG", "TEMPS", "POWER", "VERSION"]),
        st.lists(st.dictionaries(st.sampled_from(KEYS), ODD, max_size=8), max_size=3) | ODD,
    ),
)
def test_documents_of_odd_values(dialect: str, document: dict[str, Any]) -> None:
    seen = parse(dialect, {"x": json.dumps(document).encode()})
    assert seen.hashrate_ths is None or seen.hashrate_ths >= 0
    assert seen.power_w is None or seen.power_w >= 0
    if seen.hashrate_ths is None:
        assert seen.state is not MinerState.HASHING
