"""The price feed: horizon, alignment, spikes, refusals."""

import itertools
from datetime import datetime, timedelta

import httpx
import pytest

from simulator.errors import BadInput
from simulator.market import MIN_HORIZON, MarketFeed, MarketOptions
from simulator.prices import SyntheticDay
from sitelink.clock import ManualClock
from tests.contract.simulator.world import NOON

CURVE = SyntheticDay(seed=7, interval_s=900, spike_after=6, spike_steps=4, spike_usd_per_mwh=950.0)


def feed(clock: ManualClock | None = None, **options: object) -> MarketFeed:
    return MarketFeed(
        MarketOptions(**{"market": "SIM", "interval_s": 900, **options}), CURVE, clock or ManualClock(NOON)
    )


def times(document) -> list[tuple[datetime, datetime]]:
    return [(datetime.fromisoformat(row["start"]), datetime.fromisoformat(row["end"])) for row in document["intervals"]]


@pytest.mark.parametrize("after_s", [0, 1, 899, 900, 36_000])
@pytest.mark.parametrize("interval_s", [5, 900])
def test_the_horizon_is_covered_without_a_gap(after_s, interval_s):
    clock = ManualClock(NOON)
    opened = feed(clock, interval_s=interval_s)
    clock.advance(after_s)
    spans = times(opened.document())
    assert all(before[1] == after[0] for before, after in itertools.pairwise(spans))
    assert {end - start for start, end in spans} == {timedelta(seconds=interval_s)}
    assert spans[-1][1] >= clock.now() + timedelta(seconds=MIN_HORIZON * interval_s)
    assert spans[0][0] <= clock.now()


def test_the_past_hour_is_covered_once_the_market_is_that_old():
    clock = ManualClock(NOON)
    opened = feed(clock)
    clock.advance(7200)
    assert times(opened.document())[0][0] <= clock.now() - timedelta(hours=1)


def test_what_was_published_does_not_change():
    clock = ManualClock(NOON)
    opened = feed(clock)
    before = {row["start"]: row for row in opened.document()["intervals"]}
    clock.advance(3600)
    after = {row["start"]: row for row in opened.document()["intervals"]}
    common = before.keys() & after.keys()
    assert len(common) > 24
    assert all(before[start] == after[start] for start in common)


def test_the_spike_stands_where_it_was_ordered():
    opened = feed()
    dear = [row["start"] for row in opened.document()["intervals"] if row["price_usd_per_mwh"] >= 500]
    assert dear == [(opened.start + timedelta(minutes=15 * step)).isoformat() for step in (6, 7, 8, 9)]


def test_the_start_may_be_given():
    start = datetime.fromisoformat("2026-05-08T17:07:30+00:00")
    assert feed(start=start).start == start
    assert feed().start == NOON


def test_the_document_says_what_it_is():
    document = feed().document()
    assert (document["market"], document["interval_s"]) == ("SIM", 900)
    assert "synthetic" in document["source"]
    assert datetime.fromisoformat(document["published_at"]) == NOON


async def test_prices_are_served_and_spikes_taken():
    clock = ManualClock(NOON)
    async with feed(clock) as opened, httpx.AsyncClient(base_url=opened.control.url) as client:
        clock.advance(60)
        start = NOON + timedelta(hours=4)
        body = {
            "start": start.isoformat(),
            "end": (start + timedelta(minutes=16)).isoformat(),
            "price_usd_per_mwh": 4000,
        }
        assert (await client.post("/spike", json=body)).status_code == 200
        document = (await client.get("/prices")).json()
        dear = [row["start"] for row in document["intervals"] if row["price_usd_per_mwh"] == 4000]
        assert dear == [start.isoformat(), (start + timedelta(minutes=15)).isoformat()]
        assert datetime.fromisoformat(document["published_at"]) == clock.now()
        assert (await client.get("/health")).json()["ok"] is True


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"start": "tomorrow"}, "start: 'tomorrow' is not a time"),
        ({"start": "2026-05-08T20:00:00"}, "names no zone"),
        ({"end": "2026-05-08T20:00:00+00:00"}, "is not after the start"),
        ({"price_usd_per_mwh": "dear"}, "price_usd_per_mwh: 'dear' is not a price"),
        ({"price_usd_per_mwh": None}, "price_usd_per_mwh: None is not a price"),
        ({"price_usd_per_mwh": 10**400}, "is not a price; send USD/MWh, 100000 at most"),
        ({"end": "9999-12-31T23:00:00-12:00"}, "is out of range; send a time from 2000 to 2100"),
    ],
)
async def test_a_spike_that_makes_no_sense_changes_nothing(changed, said):
    good = {"start": "2026-05-08T20:00:00+00:00", "end": "2026-05-08T21:00:00+00:00", "price_usd_per_mwh": 900}
    async with feed() as opened, httpx.AsyncClient(base_url=opened.control.url) as client:
        before = opened.document()
        answer = await client.post("/spike", json={**good, **changed})
        assert answer.status_code == 400
        assert said in answer.json()["error"]
        assert opened.document() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [({"interval_s": 0}, "--interval-s: 0"), ({"horizon": 23}, "--horizon: 23 is out of range; give 24")],
)
def test_options_that_make_no_sense_are_refused(options, said):
    with pytest.raises(BadInput, match=said):
        feed(**options)


async def test_unknown_paths_and_broken_bodies_are_answered_with_their_cause():
    async with feed() as opened, httpx.AsyncClient(base_url=opened.control.url) as client:
        assert (await client.get("/nothing")).status_code == 404
        assert (await client.get("/spike")).status_code == 405
        broken = await client.post("/spike", content=b"{")
        assert (broken.status_code, "not JSON" in broken.json()["error"]) == (400, True)
        assert (await client.post("/spike", content=b"[" * 900_000)).status_code == 400
        huge = await client.post("/spike", content=b"x" * 1_100_000)
        assert huge.status_code == 413
