"""Prices from a file and the temperature outside: read again and again, unknown while they cannot be."""

import logging
from datetime import UTC, datetime

import pytest

from agent.local_curtail.outside import Outside
from sitelink.clock import ManualClock
from sitelink.types import MeterSample

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


async def test_a_file_mended_has_its_prices_again_and_each_is_said_once(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = tmp_path / "prices.csv"
    outside = Outside(ManualClock(NOON), path, UTC, None)
    for _ in range(3):
        await outside.look()
    assert outside.price_at(NOON) is None
    path.write_text("hour,price_usd_per_mwh\n12,90\n")
    await outside.look()
    assert outside.price_at(NOON) == 90
    path.write_text("hour,price_usd_per_mwh\n12,many\n")
    for _ in range(3):
        await outside.look()
    assert outside.price_at(NOON) is None
    told = [record.getMessage() for record in caplog.records]
    assert [("no price is known" in line, "known again" in line) for line in told] == [
        (True, False), (False, True), (True, False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("shown", "temp_c"),
    [
        ((30.0,), None),
        ((30.0, 31.0), 31.0),
        ((30.0, 250.0, 31.0), 31.0),
        ((30.0, 55.0), None),
        ((30.0, None, 32.0), 32.0),
    ],
)
async def test_two_figures_of_the_air_must_agree(shown, temp_c):
    clock, left = ManualClock(NOON), list(shown)

    async def read():
        return MeterSample("thermometer", clock.now(), left.pop(0))

    outside = Outside(clock, None, UTC, read)
    assert outside.price_at(NOON) is None
    for _ in shown:
        await outside.look()
        clock.advance(10)
    assert outside.temp_c() == temp_c
    clock.advance(60)
    assert outside.temp_c() is None
