"""Replies read the same with orjson and without it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cgminer import repair
from agent.cgminer.repair import Decoded, decode
from agent.cgminer.replies import parse
from agent.errors import Garbled
from tests.fuzz import structures

pytest.importorskip("orjson")

pytestmark = pytest.mark.agent

SMALL = st.integers(min_value=-(2**63), max_value=2**64 - 1)
VALUES = st.none() | st.booleans() | SMALL | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
DOCUMENTS = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


def read(reply: bytes, *, fast: bool) -> Decoded | str:
    with pytest.MonkeyPatch.context() as patch:
        if not fast:
            patch.setattr(repair, "_fast_loads", lambda: None)
        try:
            return decode(reply)
        except Garbled as error:
            return str(error)


def test_orjson_is_what_reads_where_it_is_installed() -> None:
    assert repair._fast_loads() is not None


@given(DOCUMENTS)
def test_a_document_is_the_same(document: object) -> None:
    reply = json.dumps(document).encode()
    assert read(reply, fast=True) == read(reply, fast=False)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_comes_is_the_same(reply: bytes) -> None:
    assert repr(read(reply, fast=True)) == repr(read(reply, fast=False))


@given(structures.polls())
def test_a_damaged_poll_is_the_same_observation(poll: tuple[str, dict[str, bytes]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        found = parse(*poll)
        patch.setattr(repair, "_fast_loads", lambda: None)
        assert repr(parse(*poll)) == repr(found)


@pytest.mark.parametrize(
    "value",
    ["18446744073709551616", "-9223372036854775809", "1e400", "-0", "-0.0", "NaN", '"\\ud800"', "1" + "0" * 400],
)
def test_odd_values_are_the_same_observation(value: str) -> None:
    for key in ("Elapsed", "MHS 5s", "MAC", "Power"):
        replies = {"summary": f'{{"STATUS":"S","When":{value},"SUMMARY":[{{"{key}":{value}}}]}}'.encode()}
        with pytest.MonkeyPatch.context() as patch:
            found = parse("whatsminer", replies)
            patch.setattr(repair, "_fast_loads", lambda: None)
            assert repr(parse("whatsminer", replies)) == repr(found)
