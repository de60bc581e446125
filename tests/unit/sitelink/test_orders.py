"""Orders survive the trip through bytes, and anything else is refused by the name of its field."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sitelink import orders
from sitelink.orders import MalformedOrder
from tests.unit.sitelink import samples


def test_orders_survive_the_trip() -> None:
    assert orders.read_plan(orders.write_plan(samples.PLAN)) == samples.PLAN
    assert orders.read_command(orders.write_command(samples.COMMAND)) == samples.COMMAND
    assert orders.read_time(orders.write_time(samples.SIGNED_TIME)) == samples.SIGNED_TIME


def test_golden_command_bytes() -> None:
    assert orders.write_command(samples.COMMAND) == (
        b'{"agent_id":"agent-1","command_id":"cmd-1","expires_at":"2026-11-24T12:05:00.000000+00:00",'
        b'"miner_ids":["c2:11:22:33:44:55"],"not_before":"2026-11-24T12:00:00.000000+00:00",'
        b'"reason":"breaker work in C1","sequence":8,"signing_epoch":1,"site_id":"pecos-1","verb":"stop"}'
    )


def _plan_document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(orders.write_plan(samples.PLAN))
    return document


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("revision",), "4", "revision: expected a whole number, got '4'"),
        (("revision",), True, "revision: expected a whole number"),
        (("fallback",), "pray", "fallback: 'pray' is not one of run, hold, stop"),
        (("valid_until",), "2026-11-24T12:00:00", "valid_until: the time has no zone"),
        (("valid_until",), "tomorrow", "valid_until: not a time"),
        (("valid_until",), "2026-11-24T11:00:00+00:00", "must end after it starts"),
        (("extra",), 1, "unknown field 'extra'"),
        (("curtailments", 0, "extra"), 1, r"curtailments\[0\]: unknown field 'extra'"),
        (("curtailments", 0, "miner_ids"), [1], "miner_ids: expected a text list"),
        (
            ("curtailments", 0, "ramp_up_step_w"),
            None,
            "ramp_up_step_w: expected a number",
        ),
        (("curtailments", 0), 7, "expected an object, got int"),
        (("curtailments",), {}, "curtailments: expected a list"),
    ],
)
def test_a_bad_field_is_named(path: tuple[str | int, ...], value: object, message: str) -> None:
    document: Any = _plan_document()
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(MalformedOrder, match=message):
        orders.read_plan(json.dumps(document).encode())


@given(st.sampled_from(sorted(_plan_document())))
def test_a_missing_field_is_named(name: str) -> None:
    document = _plan_document()
    del document[name]
    with pytest.raises(MalformedOrder, match=f"'{name}' is missing"):
        orders.read_plan(json.dumps(document).encode())


@given(st.binary(max_size=200))
def test_bytes_that_are_no_order_are_refused(payload: bytes) -> None:
    with pytest.raises(MalformedOrder):
        orders.read_plan(payload)


@given(st.integers(1, 10**9))
def test_microseconds_are_kept(offset_us: int) -> None:
    signed = orders.read_time(orders.write_time(samples.SIGNED_TIME))
    moved = type(signed)(
        signed.site_id,
        signed.nonce,
        signed.cloud_time + timedelta(microseconds=offset_us),
    )
    assert orders.read_time(orders.write_time(moved)) == moved


def test_a_naive_time_cannot_be_written() -> None:
    naive = type(samples.SIGNED_TIME)("s", "n", datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="aware"):
        orders.write_time(naive)
