"""The hub: snapshots first, one encoding for all, heartbeats, slow viewers, outages, the end of a session."""

import asyncio
import json
from datetime import timedelta
from itertools import pairwise

import pytest

from cloud.api.live import Frame, LiveHub, event, heartbeat
from cloud.api.streams import PageFeed, Parts, site_parts
from cloud.api.views.site import build_site
from cloud.core.errors import Transient
from sitelink.units import UsdPerPetahashDay
from tests.unit.console.fakes import PRINCIPAL, FakeReads, huge_site, shedding_site, silent


async def always() -> bool:
    return True


async def take(stream, count):
    return [await asyncio.wait_for(anext(stream), 5) for _ in range(count)]


class Counter:
    """Makes numbered frames; raises while ``down``."""

    def __init__(self):
        self.made = 0
        self.down = False

    async def __call__(self) -> Frame:
        if self.down:
            raise Transient("database: down")
        self.made += 1
        return Frame(event(f"whole {self.made}"), event(f"change {self.made}"))


async def test_two_viewers_share_frames_and_the_later_one_starts_with_a_snapshot():
    hub, counter = LiveHub(interval_s=0.01, heartbeat_s=5), Counter()
    async with hub.running():
        first = hub.stream("page", counter, always)
        assert await take(first, 3) == [heartbeat(), event("whole 1"), event("change 2")]
        second = hub.stream("page", Counter(), always)
        greeting = await take(second, 2)
        assert greeting[0] == heartbeat() and greeting[1].startswith(b"data: whole ")
        assert hub.watching("page") == 2
        await first.aclose()
        await second.aclose()
        assert hub.watching("page") == 0


async def test_a_stream_begins_with_what_was_read_to_admit_its_viewer():
    hub, counter = LiveHub(interval_s=0.01, heartbeat_s=5), Counter()
    async with hub.running():
        stream = hub.stream("page", counter, always, await hub.first_frame("page", counter))
        assert await take(stream, 3) == [heartbeat(), event("whole 1"), event("change 2")]
        assert await hub.first_frame("page", Counter()) is None
        await stream.aclose()


async def test_a_database_that_is_down_keeps_nobody_out():
    hub, counter = LiveHub(interval_s=0.001, heartbeat_s=5), Counter()
    counter.down = True
    async with hub.running():
        stream = hub.stream("page", counter, always, await hub.first_frame("page", counter))
        assert b"trouble" in (await take(stream, 2))[1]
        await stream.aclose()


async def test_a_topic_without_viewers_does_no_work():
    hub, counter = LiveHub(interval_s=0.001, heartbeat_s=5), Counter()
    async with hub.running():
        stream = hub.stream("page", counter, always)
        await take(stream, 2)
        await stream.aclose()
        while hub._topics:
            await asyncio.sleep(0)
        made = counter.made
        again = hub.stream("page", counter, always)
        assert (await take(again, 2))[1] == event(f"whole {made + 1}")
        await again.aclose()


async def test_heartbeats_come_without_news_and_ask_whether_the_session_lives():
    welcome = True

    async def still_welcome() -> bool:
        return welcome

    async def quiet() -> Frame:
        return Frame(b"", b"")

    hub = LiveHub(interval_s=60, heartbeat_s=0.01)
    async with hub.running():
        stream = hub.stream("page", quiet, still_welcome)
        assert await take(stream, 3) == [heartbeat()] * 3
        welcome = False
        assert await take(stream, 1) == [event("{}", "signed-out")]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_a_slow_viewer_gets_a_fresh_snapshot_not_a_hole():
    hub, counter = LiveHub(interval_s=0.001, heartbeat_s=60), Counter()
    async with hub.running():
        slow = hub.stream("page", counter, always)
        await take(slow, 1)
        while counter.made < 12:
            await asyncio.sleep(0.001)
        seen = [
            int(message.split()[-1]) if message.startswith(b"data: change") else -int(message.split()[-1])
            for message in await take(slow, 8)
        ]
        for before, after in pairwise(seen):
            assert after < 0 or after == abs(before) + 1
        assert any(number < 0 for number in seen)
        await slow.aclose()


async def test_an_outage_is_told_logged_once_and_ends(caplog):
    hub, counter = LiveHub(interval_s=0.001, heartbeat_s=60), Counter()
    caplog.set_level("INFO")
    async with hub.running():
        stream = hub.stream("page", counter, always)
        await take(stream, 2)
        counter.down = True
        message = b""
        while b"trouble" not in message:
            [message] = await take(stream, 1)
        await take(stream, 2)
        counter.down = False
        while b"trouble" in message:
            [message] = await take(stream, 1)
        await stream.aclose()
    assert caplog.text.count("cannot read") == 1
    assert caplog.text.count("reads again") == 1


async def test_leaving_the_hub_ends_every_stream():
    hub = LiveHub(interval_s=0.01, heartbeat_s=60)
    async with hub.running():
        stream = hub.stream("page", Counter(), always)
        await take(stream, 1)
    async with asyncio.timeout(5):
        assert [message async for message in stream if not message.startswith(b"data: ")] == []


def frames(cases):
    """The frames of a site page over successive states."""
    reads = FakeReads(list(cases[:1]))
    make = PageFeed(
        lambda: site_parts(build_site(reads.site(PRINCIPAL, cases[0].site_id, _SIX), "6h", UsdPerPetahashDay(50)))
    )
    for case in cases:
        reads.cases[0] = case
        yield make._frame()


_SIX = timedelta(hours=6)


def test_an_unchanged_screen_sends_only_its_tick():
    case = shedding_site()
    first, second = frames([case, case])
    assert b"hx-partial" in first.snapshot and b"event: chart" in first.snapshot and b"event: racks" in first.snapshot
    assert second.change.startswith(b"event: tick")
    assert len(second.change) < 200


def test_few_changed_miners_travel_as_few_bytes():
    case = huge_site()
    rows = list(case.rows)
    rows[4000:4010] = [silent(n, rack=rows[n].rack, position=rows[n].position) for n in range(4000, 4010)]
    later = huge_site()
    later.rows = tuple(rows)
    _, second = frames([case, later])
    racks = next(part for part in second.change.split(b"\n\n") if part.startswith(b"event: racks"))
    assert len(json.loads(racks.split(b"data: ")[1])["changes"]) <= 4 * (5 * 10 + 2) // 3
    assert b"event: chart" not in second.change


def test_regions_that_did_not_change_are_not_sent():
    parts = Parts({"a": "<p>1</p>", "b": "<p>2</p>"}, {"as_of": "x"})
    state = iter([parts, Parts({"a": "<p>1</p>", "b": "<p>3</p>"}, {"as_of": "y"})])
    feed = PageFeed(lambda: next(state))
    feed._frame()
    change = feed._frame().change
    assert b'hx-target="#b"' in change and b'hx-target="#a"' not in change
