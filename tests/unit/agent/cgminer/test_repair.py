"""Strict JSON is left alone; nearly-JSON is read by named rules that never touch the inside of a string."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cgminer.repair import decode
from agent.errors import Garbled

pytestmark = pytest.mark.agent

MALFORMED = [
    ('{"STATS":[{"a":1}{"b":2}]}', {"STATS": [{"a": 1}, {"b": 2}]}, ("missing_comma",)),
    ('{"PCB SN":"x""temp0":65}', {"PCB SN": "x", "temp0": 65}, ("missing_comma",)),
    ('{"a":1}"}', {"a": 1}, ("trailing_garbage",)),
    ('{"Type":"S9\tone\ntwo"}', {"Type": "S9\tone\ntwo"}, ("control_character",)),
    (r'{"Firmware":"\'2020.REL\'"}', {"Firmware": "'2020.REL'"}, ("illegal_escape",)),
    ('{"MHS av":nan,"b":-inf,"c":1}', {"MHS av": None, "b": None, "c": 1}, ("bare_word",)),
    ('{"a":NaN}', {"a": None}, ("bare_word",)),
    ('{"a":1,}', {"a": 1}, ("extra_comma",)),
    ('{"STATS":[,{"a":1}]}', {"STATS": [{"a": 1}]}, ("extra_comma",)),
    (',"a":2,"id":1}', {"a": 2, "id": 1}, ("missing_opening",)),
    (',"id":1}{"a":2}', {"a": 2}, ("leading_garbage",)),
    ('{"error_code":["130":"x","131":"y"]}', {"error_code": [{"130": "x"}, {"131": "y"}]}, ("map_in_list",)),
    ('{"a":[{"b":1,"c":12', {"a": [{"b": 1}]}, ("truncated",)),
    ('{"a":[1,2,3', {"a": [1, 2]}, ("truncated",)),
    ('{"a":1,"b":"cut', {"a": 1}, ("truncated",)),
    ('{"a":[1,2}', {"a": [1, 2]}, ("mismatched_bracket", "truncated")),
    ('warning {"a":1}', {"a": 1}, ("leading_garbage",)),
    ('{"a":,"b":2}', {"a": None, "b": 2}, ("bare_word",)),
    ("{a:1}", {"a": 1}, ("bare_word",)),
]


@pytest.mark.parametrize(("text", "document", "rules"), MALFORMED)
def test_each_malformation_is_read_and_names_its_rule(text: str, document: object, rules: tuple[str, ...]) -> None:
    decoded = decode(text.encode())
    assert decoded.document == document
    assert decoded.repaired == rules


def test_pool_names_that_look_like_damage_stay_as_they_are() -> None:
    name = '}{ ,} [,{ nan "inf" \\ :'
    reply = json.dumps({"POOLS": [{"URL": name}]}).replace("]}", "]}}").encode()
    decoded = decode(reply)
    assert decoded.document == {"POOLS": [{"URL": name}]}
    assert decoded.repaired == ("trailing_garbage",)


def test_bytes_that_are_no_utf8_are_read_and_named() -> None:
    assert decode(b'{"a":"\xff","b":1}').repaired == ("invalid_utf8",)


def test_a_nul_and_a_newline_end_a_reply_without_a_repair() -> None:
    assert decode(b'{"a":1}\n\0').repaired == ()


def test_the_plain_text_form_takes_the_shape_of_the_json_form() -> None:
    reply = b"STATUS=S,When=7,Code=11,Msg=Summary,Description=cgminer 4.9|SUMMARY,Elapsed=12,MHS av=3.5|POOL=0,URL=a|\0"
    document = decode(reply).document
    assert document["SUMMARY"] == [{"Elapsed": "12", "MHS av": "3.5"}]
    assert document["STATUS"][0]["Code"] == "11"
    assert document["POOLS"] == [{"POOL": "0", "URL": "a"}]


@pytest.mark.parametrize(
    "reply", [b"", b"\0", b"<html>404</html>", b"HTTP/1.1 200 OK\r\n\r\n{}", b"hello", b"[" * 9999, b"{}"[:1]]
)
def test_what_is_no_document_is_garbled(reply: bytes) -> None:
    with pytest.raises(Garbled):
        decode(reply)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), VALUES, min_size=1))
def test_valid_json_is_never_repaired(document: dict[str, object]) -> None:
    decoded = decode(json.dumps(document).encode())
    assert decoded.document == document
    assert decoded.repaired == ()


@given(st.dictionaries(st.text(min_size=1), st.text(), min_size=2))
def test_the_tolerant_reading_agrees_with_json_where_only_a_comma_is_wrong(document: dict[str, str]) -> None:
    text = json.dumps(document)[:-1] + ",}"
    decoded = decode(text.encode())
    assert decoded.document == json.loads(json.dumps(document))
    assert decoded.repaired == ("extra_comma",)


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_garbled(reply: bytes) -> None:
    try:
        decode(b'{"a":[' + reply)
        decode(reply)
    except Garbled:
        pass
