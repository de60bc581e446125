"""What each verb needs is checked alike where it is signed and where it is obeyed."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sitelink.orders import MalformedOrder, read_command, write_command
from sitelink.signing import canonical
from sitelink.types import Verb
from sitelink.verbs import DROPPING, ONCE, SWITCHING, BadCommand, check_command, check_parameters
from tests.unit.sitelink.samples import COMMAND

pytestmark = pytest.mark.agent

POOL = {"url": "stratum+tcp://pool.example:3333", "user": "site.1", "password": "x"}
IMAGE = {"file": "fw-2.1.tar.gz", "sha256": "0" * 64, "version": "2.1"}


@pytest.mark.parametrize(
    ("verb", "parameters"),
    [
        (Verb.STOP, {}),
        (Verb.START, {}),
        (Verb.REBOOT, {}),
        (Verb.PASSWORD, {}),
        (Verb.LOGS, {}),
        (Verb.LIMIT, {"power_w": "2500"}),
        (Verb.LIMIT, {"power_w": "980.5"}),
        (Verb.LIMIT, {"mode": "low"}),
        (Verb.BLINK, {"on": "false"}),
        (Verb.POOLS, {"pools": json.dumps([POOL])}),
        (Verb.POOLS, {"pools": json.dumps([POOL] * 3)}),
        (Verb.FIRMWARE, IMAGE),
    ],
)
def test_what_a_verb_needs_passes(verb: Verb, parameters: dict[str, str]) -> None:
    check_parameters(verb, parameters)


@pytest.mark.parametrize(
    ("verb", "parameters", "cause"),
    [
        (Verb.STOP, {"now": "1"}, "takes no 'now'"),
        (Verb.PASSWORD, {"password": "secret"}, "takes no 'password'"),
        (Verb.LIMIT, {}, "power_w or mode"),
        (Verb.LIMIT, {"power_w": "2500", "mode": "low"}, "power_w or mode"),
        (Verb.LIMIT, {"watts": "2500"}, "power_w or mode"),
        (Verb.LIMIT, {"mode": "turbo"}, "'turbo' is not one of low, normal, high"),
        (Verb.LIMIT, {"power_w": "-1"}, "not a miner's power"),
        (Verb.LIMIT, {"power_w": "nan"}, "not a miner's power"),
        (Verb.LIMIT, {"power_w": "1e3"}, "not a miner's power"),
        (Verb.BLINK, {"on": "yes"}, "neither true nor false"),
        (Verb.BLINK, {}, "takes on"),
        (Verb.POOLS, {"pools": "["}, "not JSON"),
        (Verb.POOLS, {"pools": "[" * 9000}, "not JSON"),
        (Verb.POOLS, {"pools": "[]"}, "one to 3"),
        (Verb.POOLS, {"pools": json.dumps([POOL] * 4)}, "one to 3"),
        (Verb.POOLS, {"pools": json.dumps([{**POOL, "user": ""}])}, "user is empty"),
        (Verb.POOLS, {"pools": json.dumps([{**POOL, "url": "pool.example"}])}, "no address"),
        (Verb.POOLS, {"pools": json.dumps([{**POOL, "x": "1"}])}, "url, user and password"),
        (Verb.POOLS, {"pools": json.dumps([{**POOL, "user": 5}])}, "url, user and password"),
        (Verb.POOLS, {"pools": json.dumps([{**POOL, "user": "a\nb"}])}, "url, user and password"),
        (Verb.FIRMWARE, {**IMAGE, "file": "../x"}, "file: '../x' does not fit"),
        (Verb.FIRMWARE, {**IMAGE, "sha256": "0" * 63}, "sha256"),
        (Verb.FIRMWARE, {**IMAGE, "version": ""}, "version"),
        (Verb.FIRMWARE, {"file": "x"}, "takes file, sha256, version"),
    ],
)
def test_anything_else_is_refused_with_its_cause(verb: Verb, parameters: dict[str, str], cause: str) -> None:
    with pytest.raises(BadCommand) as caught:
        check_parameters(verb, parameters)
    assert caught.value.code == "bad_parameters"
    assert cause in str(caught.value)


@pytest.mark.parametrize("people", [(), ("ann",), ("ann", "Ann "), ("ann", ""), (" ", "")])
def test_firmware_needs_two_people(people: tuple[str, ...]) -> None:
    order = replace(COMMAND, verb=Verb.FIRMWARE, parameters=tuple(IMAGE.items()), approved_by=people)
    with pytest.raises(BadCommand) as caught:
        check_command(order)
    assert caught.value.code == "two_people_needed"
    check_command(replace(order, approved_by=("ann", "bob")))


@given(st.sampled_from(Verb), st.dictionaries(st.text(max_size=12), st.text(max_size=40), max_size=4))
def test_no_parameters_raise_anything_else(verb: Verb, parameters: dict[str, str]) -> None:
    try:
        check_parameters(verb, parameters)
    except BadCommand as error:
        assert error.code == "bad_parameters"  # noqa: PT017 - what else it could raise is the point


def test_verbs_are_sorted_out_whole() -> None:
    assert {Verb.STOP, Verb.START} == SWITCHING
    assert not ONCE & SWITCHING
    assert {Verb.STOP, Verb.REBOOT, Verb.FIRMWARE} == DROPPING


def test_stored_state_counts_the_first_three_verbs_as_ever() -> None:
    assert list(Verb)[:3] == [Verb.STOP, Verb.START, Verb.REBOOT]


def test_parameters_and_approvals_travel_and_a_command_without_them_reads_as_ever() -> None:
    told = replace(COMMAND, verb=Verb.LIMIT, parameters=(("power_w", "2500"),), approved_by=("ann",))
    assert read_command(write_command(told)) == told
    assert b"parameters" not in write_command(COMMAND)
    assert read_command(write_command(COMMAND)) == COMMAND


@pytest.mark.parametrize(
    "parameters", [{"a": "b"}, [["a"]], [["a", 1]], [["a", "b", "c"]], [["a", "1"], ["a", "2"]], "ab", [1]]
)
def test_parameters_of_another_form_are_malformed(parameters: object) -> None:
    document = json.loads(write_command(COMMAND))
    with pytest.raises(MalformedOrder, match="parameters"):
        read_command(canonical({**document, "parameters": parameters}))
