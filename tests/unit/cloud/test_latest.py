import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.hosting import latest
from sitelink.codec import MalformedFrame, pack, unpack_columns
from sitelink.types import (
    Ack,
    BatchBody,
    Evidence,
    MinerState,
    Notice,
    NoticeCode,
    Outcome,
    PowerSource,
    Reading,
    Reason,
    Verb,
)

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def reading(miner_id: str, seconds: float, **fields: object) -> Reading:
    base = Reading(miner_id, NOW + timedelta(seconds=seconds), MinerState.HASHING, power_source=PowerSource.DEVICE)
    return replace(base, **fields)  # type: ignore[arg-type]


def merge(records: latest.Records, *readings: Reading, received: datetime = NOW) -> latest.Records:
    columns, _ = unpack_columns(pack(BatchBody(readings=readings)))
    return latest.merge_readings(records, columns, received)


def by_id(records: latest.Records) -> dict[str, object]:
    return {bytes(record["miner_id"]).decode(): record for record in records}


def ack(miner_id: str, seconds: float, verb: Verb, outcome: Outcome, reason: str = "power_below_idle") -> Ack:
    at = NOW + timedelta(seconds=seconds)
    return Ack("a", "c1", 1, miner_id, verb, outcome, Evidence.FEEDER_METER, reason, at)


@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.integers(-600, -1)), min_size=1, max_size=30, unique=True),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_the_newest_reading_wins_whatever_the_order(rows: list[tuple[str, int]], data: st.DataObject) -> None:
    readings = [reading(miner, second, power_w=float(-second)) for miner, second in rows]
    order = data.draw(st.permutations(readings))
    cut = data.draw(st.integers(0, len(order)))
    records = latest.load(None)
    for part in (order[:cut], order[cut:]):
        if part:
            records = merge(records, *part)
    records = latest.load(latest.dump(records))
    expected = {miner: max(second for other, second in rows if other == miner) for miner, _ in rows}
    assert {miner: -row["power_w"] for miner, row in by_id(records).items()} == expected
    assert list(records["miner_id"]) == sorted(records["miner_id"])


def test_unknown_stays_unknown() -> None:
    records = merge(latest.load(None), reading("a", -1, state=MinerState.UNKNOWN, reason=Reason.UNREACHABLE))
    assert math.isnan(records["power_w"][0])
    assert records["uptime_s"][0] == records["fan_rpm"][0] == -1


def test_a_reading_from_the_future_does_not_pin_the_state() -> None:
    records = merge(latest.load(None), reading("a", 86400, power_w=1.0))
    records = merge(records, reading("a", 5, power_w=2.0), received=NOW + timedelta(seconds=5))
    assert records["power_w"][0] == 2.0


def test_figures_that_do_not_fit_become_unknown() -> None:
    records = merge(latest.load(None), reading("a", -1, power_w=1e300, fan_rpm=2**31 - 1, uptime_s=2**62))
    assert math.isnan(records["power_w"][0])
    assert records["uptime_s"][0] == 2**62


def test_liars_are_named_and_cleared_by_evidence() -> None:
    named = ack("a", 1, Verb.STOP, Outcome.UNVERIFIED, "feeder_did_not_drop")
    records = latest.merge_control(latest.load(None), [named], [])
    assert records["liar"][0] == 1
    unreachable = ack("a", 2, Verb.STOP, Outcome.UNVERIFIED, "unreachable")
    assert latest.merge_control(records, [unreachable], [])["liar"][0] == 1
    records = latest.merge_control(records, [ack("a", 3, Verb.STOP, Outcome.COMPLETE)], [])
    assert records["liar"][0] == 0
    late = latest.merge_control(records, [named], [])
    assert late["liar"][0] == 0, "an ack that arrives late does not undo a newer one"


def test_a_dead_miner_is_no_liar_and_a_notice_names_one() -> None:
    records = latest.merge_control(latest.load(None), [ack("a", 1, Verb.STOP, Outcome.UNVERIFIED, "unreachable")], [])
    assert records["liar"][0] == 0
    notice = Notice("n", NOW + timedelta(seconds=2), NoticeCode.LIAR_NAMED, "a", "ack without effect")
    assert latest.merge_control(records, [], [notice])["liar"][0] == 1


def test_foreign_bytes_and_codes_are_refused() -> None:
    with pytest.raises(ValueError, match="BLS1"):
        latest.load(b"XXXX123")
    columns, _ = unpack_columns(pack(BatchBody(readings=(reading("x" * 60, 0),))))
    with pytest.raises(MalformedFrame, match="too long"):
        latest.check_columns(columns)
    bad = replace(columns, miner_id=["a"], state=[99])
    with pytest.raises(MalformedFrame, match="later version"):
        latest.check_columns(bad)
