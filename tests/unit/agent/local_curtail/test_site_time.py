import sqlite3
from datetime import UTC, datetime, timedelta

from agent.local_curtail.schema import schema
from agent.local_curtail.site_time import SiteTime
from sitelink.clock import ManualClock
from sitelink.orders import write_time
from sitelink.signing import KeyRing, PrivateKey
from sitelink.types import ClockTrust, Domain, SignedTime

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY, FORGER = PrivateKey.generate(), PrivateKey.generate()


class InlineWriter:
    def __init__(self):
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        schema(self.connection)

    async def run(self, work):
        return work(self.connection)


def signed(moment, key=KEY, site="s", domain=Domain.TIME):
    return key.sign(domain, write_time(SignedTime(site, "n", moment)))


async def fresh(writer, clock):
    site_time = SiteTime(writer, clock, "s", KeyRing((KEY.public_bytes,)))
    await site_time.load()
    return site_time


async def test_time_is_held_over_kills_and_steps_and_lost_by_a_cold_boot():
    writer, clock = InlineWriter(), ManualClock(T0 + timedelta(days=9), 1000.0)
    site_time = await fresh(writer, clock)
    assert site_time.now() == (clock.wall, ClockTrust.UNTRUSTED)
    assert await site_time.learn(signed(T0), 999.8, 1000.0)
    clock.step(-12345)
    clock.advance(300)
    assert site_time.now() == (T0 + timedelta(seconds=300.1), ClockTrust.SYNCED)
    clock.advance(301)
    assert (await fresh(writer, clock)).now() == (T0 + timedelta(seconds=601.1), ClockTrust.HELD)
    clock.reboot("boot-2", T0 - timedelta(days=20_000))
    assert (await fresh(writer, clock)).now()[1] is ClockTrust.UNTRUSTED


async def test_only_the_clouds_own_word_for_this_site_moves_the_time():
    clock = ManualClock(T0, 50.0)
    site_time = await fresh(InlineWriter(), clock)
    lies = [signed(T0, FORGER), signed(T0, site="other"), signed(T0, domain=Domain.PLAN)]
    assert [await site_time.learn(lie, 49.0, 50.0) for lie in lies] == [False] * 3
    assert site_time.now()[1] is ClockTrust.UNTRUSTED


async def test_a_slow_answer_counts_as_heard_but_does_not_spoil_a_better_one():
    clock = ManualClock(T0, 100.0)
    site_time = await fresh(InlineWriter(), clock)
    await site_time.learn(signed(T0), 100.0, 100.0)
    clock.advance(595)
    assert await site_time.learn(signed(T0 + timedelta(seconds=600)), 685.0, 695.0)
    clock.advance(10)
    assert site_time.now() == (T0 + timedelta(seconds=605), ClockTrust.SYNCED)
