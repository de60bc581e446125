"""What web servers answer is sorted, and what is written back is what was read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.control.asked import mode_asked, pools_asked, power_asked
from agent.cgminer.control.driver import Wanted
from agent.cgminer.control.web_answers import exactly, packed, raise_unless_taken, value_of, written
from agent.cgminer.device import Device
from agent.cgminer.web import WebReply
from agent.errors import AgentError, Garbled, Refused, SessionBusy, Transient, UnsupportedDevice
from sitelink.clock import SystemClock
from sitelink.types import Verb

pytestmark = pytest.mark.agent

DEVICE = Device(Address("127.0.0.1", 9), "vnish", SystemClock())
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


def reply(body: bytes, status: int = 200) -> WebReply:
    return WebReply(status, {}, body)


@given(st.dictionaries(st.text(), DOCUMENTS, max_size=6))
def test_what_was_read_is_written_back_the_same(document: dict[str, Any]) -> None:
    body = json.dumps(document).encode()
    found = exactly(DEVICE, reply(body), "configuration")
    assert json.loads(written(found).decode("utf-8", "surrogatepass")) == document
    assert list(found) == list(document)


@given(st.binary(max_size=40))
def test_letters_of_any_code_go_back_as_they_came(letters: bytes) -> None:
    quoted = bytes(letter for letter in letters if letter >= 0x20 and letter not in b'"\\')
    body = b'{"user":"' + quoted + b'"}'
    assert written(exactly(DEVICE, reply(body), "configuration")) == body


@given(st.binary(max_size=200))
def test_no_answer_makes_sorting_fail_in_another_way(body: bytes) -> None:
    said: list[str] = []
    for status in (200, 204, 302, 400, 404, 409, 418, 429, 500, 503):
        for sort in (raise_unless_taken, exactly, value_of):
            try:
                sort(DEVICE, reply(body, status), "an order")
            except AgentError as error:
                said.append(str(error))
    assert not [text for text in said if "\n" in text or len(text) > 400]
    assert len(reply(body).spoken) <= 120


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, UnsupportedDevice),
        (400, UnsupportedDevice),
        (404, UnsupportedDevice),
        (501, UnsupportedDevice),
        (409, SessionBusy),
        (429, SessionBusy),
        (503, SessionBusy),
        (500, Transient),
        (502, Transient),
    ],
)
def test_a_status_says_what_to_do(status: int, kind: type[AgentError]) -> None:
    with pytest.raises(kind) as caught:
        raise_unless_taken(DEVICE, reply(b'{"err": "why"}', status), "an order")
    assert type(caught.value) is kind
    assert f"answers an order with {status} (why)" in str(caught.value)


@given(st.binary(max_size=300))
def test_a_packed_form_can_be_taken_apart_at_its_boundary(content: bytes) -> None:
    body, kind = packed({"a": ("", "text/plain", b"true"), "b": ("f.bin", "application/octet-stream", content)})
    boundary = kind.partition("boundary=")[2].encode()
    parts = body.split(b"--" + boundary)
    assert len(parts) == 4
    assert parts[1].partition(b"\r\n\r\n")[2] == b"true\r\n"
    assert parts[2].partition(b"\r\n\r\n")[2] == content + b"\r\n"
    assert parts[3] == b"--\r\n"


def test_deadlines_grow_with_the_sites_own() -> None:
    slow = Deadlines(1.0, 4.0, 9.0).longer(10, 500)
    assert (slow.connect_s, slow.first_byte_s, slow.total_s, slow.cap_bytes) == (1.0, 40.0, 90.0, 500)


@given(st.dictionaries(st.sampled_from(["power_w", "mode", "pools", "on"]), st.text(max_size=30), max_size=4))
def test_unclear_parameters_are_refused_and_nothing_else(parameters: dict[str, str]) -> None:
    asked = Wanted(Verb.LIMIT, parameters)
    codes: set[str] = set()
    for read in (power_asked, mode_asked, pools_asked):
        try:
            read(asked)
        except Refused as error:
            codes.add(error.code)
    assert codes <= {"bad_parameters"}


@pytest.mark.parametrize(
    "pools", ["", "{}", "[]", "[1]", '[{"url": ""}]', '[{"url": "a", "user": 1}]', "[[]]", "[{}]" * 9]
)
def test_pools_that_are_none_are_refused(pools: str) -> None:
    with pytest.raises(Refused, match="the order is not clear"):
        pools_asked(Wanted(Verb.POOLS, {"pools": pools}))


def test_garbled_configurations_say_that_nothing_was_changed() -> None:
    for body in (b'{"a":1,}', b'{"a":1,"a":2}', b'{"a":"\\ud800"}', b"[]", b""):
        with pytest.raises(Garbled, match="so it is not changed"):
            exactly(DEVICE, reply(body), "configuration")
