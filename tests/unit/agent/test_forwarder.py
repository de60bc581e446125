"""The forwarder gets everything across exactly once, and tells the truth about the link."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from itertools import count

import pytest

from agent.backoff import Backoff
from agent.buffer import Buffer, schema
from agent.errors import AccessDenied, Garbled
from agent.forwarder import Forwarder, Introduction, SiteFacts
from sitelink import codec
from sitelink.clock import ManualClock, SystemClock
from sitelink.types import (
    BatchBody,
    BatchKind,
    ClockTrust,
    Domain,
    Envelope,
    MinerState,
    Notice,
    NoticeCode,
    Reading,
    Receipt,
)
from tests.unit.agent.storage_fakes import InlineWriter
from tests.unit.agent.uplink_fakes import FakeCloud, FakeUplink, Weather

pytestmark = pytest.mark.agent

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SITE = "pecos-1"


class Inbox:
    def __init__(self) -> None:
        self.accepted: list[Envelope] = []

    async def accept(self, envelope: Envelope) -> None:
        self.accepted.append(envelope)


class Times:
    def __init__(self) -> None:
        self.learned: list[tuple[float, float]] = []
        self.believes = True

    async def learn(self, envelope: Envelope, sent_mono: float, received_mono: float) -> bool:
        self.learned.append((sent_mono, received_mono))
        return self.believes


class Site:
    """A forwarder with everything around it faked, and a buffer over a memory database."""

    def __init__(self, weather: Weather | None = None, seed: int = 0, heartbeat_s: float = 0.02) -> None:
        writer = InlineWriter()
        writer.run_now(schema)
        numbers = count()

        def ids() -> str:
            return f"id{next(numbers)}"

        self.cloud = FakeCloud(SITE)
        self.uplink = FakeUplink(self.cloud, weather, seed)
        self.inbox, self.times = Inbox(), Times()
        self.buffer = Buffer(writer, ManualClock(NOON), SITE, ids, on_sealed=lambda: self.forwarder.wake())  # noqa: PLW0108 - made below
        self.forwarder = Forwarder(
            self.uplink,
            self.buffer,
            SystemClock(),
            ids,
            Backoff(random.Random(seed), 0.001, 0.01),
            Introduction(SITE, "agent-1", "0.1.0", "instance-1"),
            lambda: SiteFacts(7, ClockTrust.SYNCED, ("key",)),
            self.inbox,
            self.times,
            heartbeat_s=heartbeat_s,
            resend_s=0.05,
        )

    @asynccontextmanager
    async def running(self) -> Iterator[None]:
        task = asyncio.create_task(self.forwarder.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def fill(self, batches: int, tag: str = "m") -> None:
        for place in range(batches):
            await self.buffer.append(BatchBody(readings=(Reading(f"{tag}{place}", NOON, MinerState.IDLE),)))

    async def backlog(self) -> int:
        return (await self.buffer.status()).backlog_batches

    def notices(self) -> list[NoticeCode]:
        bodies = [codec.unpack(batch.payload) for batch in self.cloud.stored.values()]
        return [notice.code for body in bodies for notice in body.notices]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


async def drained(site: Site) -> None:
    async with asyncio.timeout(20):
        while await site.backlog():
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("seed", range(6))
async def test_everything_arrives_exactly_once_in_any_weather(seed: int) -> None:
    weather = Weather(lose=0.15, double=0.15, reorder=0.3, break_off=0.05, refuse_connect=0.3)
    site = Site(weather, seed)
    await site.fill(60, "before")
    async with site.running():
        await site.fill(60, "during")
        await drained(site)
    items = [
        (batch.first_seq, reading.miner_id)
        for batch in site.cloud.stored.values()
        for reading in codec.unpack(batch.payload).readings
    ]
    assert len(items) == len(set(items)) == 120
    assert {miner for _, miner in items} == {f"{tag}{i}" for tag in ("before", "during") for i in range(60)}
    epoch = site.cloud.hellos[0].epoch
    assert site.cloud.through(epoch) == (await site.buffer.status()).next_seq - 1


async def test_control_goes_before_telemetry_and_live_before_backlog() -> None:
    site = Site()
    await site.fill(5)
    await site.buffer.append(BatchBody(notices=(Notice("n", NOON, NoticeCode.AGENT_STARTED, SITE, ""),)))
    async with site.running():
        await drained(site)
    assert [batch.first_seq for batch in site.cloud.arrivals[:6]] == [5, 4, 0, 1, 2, 3]


async def test_control_gets_through_while_telemetry_waits_for_receipts() -> None:
    site = Site()
    site.cloud.answers_batches = False
    site.forwarder._resend_s = 60.0
    await site.fill(200)
    async with site.running():
        await until(lambda: len(site.cloud.arrivals) >= 32)
        await site.buffer.append(BatchBody(notices=(Notice("n", NOON, NoticeCode.AGENT_STARTED, SITE, ""),)))
        await until(lambda: site.cloud.arrivals[-1].kind is BatchKind.CONTROL)
        telemetry = [batch for batch in site.cloud.arrivals if batch.kind is BatchKind.TELEMETRY]
    assert len(telemetry) <= 64, "what is in flight is bounded"
    assert await site.backlog() == 201, "sending settles nothing"


async def test_live_telemetry_gets_through_while_the_backlog_waits_for_receipts() -> None:
    site = Site()
    site.cloud.answers_batches = False
    site.forwarder._resend_s = 60.0
    await site.fill(200)
    async with site.running():
        await until(lambda: len(site.cloud.arrivals) >= 32)
        await site.fill(5, "live")  # as many at once as a site of many miners seals a minute
        await until(lambda: {batch.first_seq for batch in site.cloud.arrivals} >= set(range(200, 205)))
        backlog = [batch for batch in site.cloud.arrivals if batch.first_seq < 199]
    assert len(backlog) <= 32


async def test_what_is_sealed_while_a_backlog_is_being_sent_overtakes_it() -> None:
    site = Site()
    await site.fill(300)
    async with site.running():
        await until(lambda: len(site.cloud.arrivals) >= 20)
        before = len(site.cloud.arrivals)
        await site.fill(3, "live")
        await drained(site)
    places = [place for place, batch in enumerate(site.cloud.arrivals) if batch.first_seq >= 300]
    assert max(places) <= before + 6, "one batch of backlog may be under way to the link, not more"
    assert len(site.cloud.stored) == 303


async def test_what_was_in_flight_when_the_link_broke_is_sent_again_at_once() -> None:
    site = Site()
    site.forwarder._resend_s = 3600.0
    site.cloud.answers_batches = False
    await site.fill(3)
    async with site.running():
        await until(lambda: len(site.cloud.arrivals) >= 3)
        site.cloud.answers_batches = True
        site.uplink.break_off()
        await drained(site)
    assert len(site.cloud.stored) == 3


async def test_a_half_open_link_is_down_and_is_left() -> None:
    site = Site()
    async with site.running():
        await until(lambda: site.forwarder.link_up)
        site.uplink.half_open = True
        await until(lambda: not site.forwarder.link_up)
        await until(lambda: site.uplink.closes > 1)
        site.uplink.half_open = False
        await until(lambda: site.forwarder.link_up)
        await until(lambda: NoticeCode.LINK_RESTORED in site.notices())
    assert site.notices().count(NoticeCode.LINK_LOST) == 1
    assert site.notices().count(NoticeCode.LINK_RESTORED) == 1


async def test_an_open_stream_without_a_believed_time_is_not_up() -> None:
    site = Site()
    site.times.believes = False
    async with site.running():
        await until(lambda: len(site.times.learned) >= 3)
        assert not site.forwarder.link_up
        assert site.forwarder.link_age_s is None


async def test_an_answer_to_no_heartbeat_of_ours_is_not_heard() -> None:
    site = Site()
    site.cloud.answers_beats = False
    async with site.running():
        await until(lambda: site.cloud.beats)
        answer = site.cloud.answer
        site.cloud.answers_beats = True
        stale = answer(site.cloud.beats[0].__class__("old nonce", 0, ClockTrust.HELD, 0, 0, 0))
        site.cloud.answers_beats = False
        assert stale
        site.uplink.push(stale)
        await until(site.uplink.down.empty)
        assert not site.times.learned
        assert not site.forwarder.link_up


async def test_a_receipt_alone_keeps_the_link_up() -> None:
    site = Site(heartbeat_s=5.0)
    site.cloud.answers_beats = False
    async with site.running():
        await site.fill(1)
        await until(lambda: site.forwarder.link_up)
    assert site.forwarder.link_age_s is not None


async def test_orders_reach_the_inbox_as_they_are() -> None:
    site = Site()
    plan = Envelope(Domain.PLAN, "key", b"payload", b"signature")
    command = Envelope(Domain.COMMAND, "key", b"payload", b"signature")
    async with site.running():
        await until(lambda: site.cloud.beats)
        site.uplink.push(plan)
        site.uplink.push(command)
        site.uplink.push(plan)
        await until(lambda: len(site.inbox.accepted) == 3)
    assert site.inbox.accepted == [plan, command, plan], "telling repeats apart is the journal's work"


async def test_a_frame_that_cannot_be_read_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    async with site.running():
        await until(lambda: site.cloud.beats)
        for _ in range(3):
            site.uplink.down.put_nowait(Garbled("of a later version"))
        await site.fill(3)
        await drained(site)
    assert site.uplink.connects == 1
    assert sum("later version" in record.message for record in caplog.records) == 1


async def test_a_receipt_for_what_was_never_sealed_does_not_end_the_conversation() -> None:
    site = Site()
    async with site.running():
        await until(lambda: site.cloud.hellos)
        site.uplink.push(Receipt(SITE, site.cloud.hellos[0].epoch, 0, 99, 99))
        await site.fill(3)
        await drained(site)
    assert site.uplink.connects == 1
    assert len(site.cloud.stored) == 3


async def test_an_outage_is_logged_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    site = Site(Weather(refuse_connect=1.0))
    async with site.running():
        await until(lambda: site.uplink.connects > 5)
        assert "the fake is down" in site.forwarder.link_trouble
        site.uplink.weather.refuse_connect = 0.0
        await until(lambda: site.forwarder.link_up)
        assert site.forwarder.link_trouble == ""
    assert sum("the fake is down" in record.message for record in caplog.records) == 1
    assert sum("is heard again" in record.message for record in caplog.records) == 1


async def test_a_cloud_that_does_not_accept_us_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site()
    assert site.forwarder._after_failure(AccessDenied("no")) >= 15


async def test_heartbeats_tell_the_truth() -> None:
    site = Site()
    site.cloud.answers_batches = False
    await site.fill(3)
    async with site.running():
        await until(lambda: site.cloud.beats)
    beat = site.cloud.beats[0]
    assert (beat.plan_revision, beat.clock_trust, beat.backlog_batches, beat.next_seq) == (7, ClockTrust.SYNCED, 3, 3)
    assert beat.backlog_bytes > 0


async def test_cancelling_during_an_outage_ends_it() -> None:
    site = Site(Weather(refuse_connect=1.0))
    async with asyncio.timeout(5):
        async with site.running():
            await until(lambda: site.uplink.connects > 1)
