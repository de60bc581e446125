"""A replay is never taken for news: not after its order was forgotten, not after a restart, not with the clock back."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.local_curtail.journal import Journal
from agent.local_curtail.numbers import Taken, taken
from agent.local_curtail.rules import SiteMiner, SiteRules
from agent.local_curtail.schema import schema
from agent.local_curtail.site_time import SiteTime
from agent.storage import ThreadWriter
from sitelink.clock import ManualClock
from sitelink.orders import write_command, write_plan, write_time
from sitelink.signing import KeyRing, PrivateKey
from sitelink.types import (
    Command,
    Domain,
    Envelope,
    Fallback,
    Interval,
    OrderNumber,
    SignedTime,
    SitePlan,
    Verb,
)
from sitelink.units import Watts
from tests.veiled import Veiled

pytestmark = pytest.mark.agent

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEY = PrivateKey.generate()
RULES = SiteRules("s", "a", frozenset(), 3600.0, Watts(0), Fallback.RUN, 0.0)
MINERS = {"m1": SiteMiner("m1", "F1", None, controllable=True)}
COMMAND = Command("k5", "s", "a", 1, 5, T0, T0 + HOUR, Verb.STOP, ("m1",), "why")
PLAN = SitePlan("p7", "s", "a", 1, 7, 7, T0, Interval(T0, T0 + 3 * HOUR), Fallback.RUN, ())


class NoOutbox:
    def append_in(self, connection: object, body: object) -> None:
        pass


class Site:
    """A journal on a file, with a clock that can be set back by signed time."""

    def __init__(self, folder: Path) -> None:
        self.writer = ThreadWriter(folder / "agent.db")
        self.clock = ManualClock(T0)
        self.nonces = 0

    async def start(self, now: datetime = T0) -> Journal:
        await self.writer.run(schema)
        keys = KeyRing((KEY.public_bytes,))
        self.site_time = SiteTime(self.writer, self.clock, "s", keys)
        await self.set(now)
        self.journal = Journal(
            self.writer, NoOutbox(), self.site_time, lambda: "id", RULES, MINERS, keys, lambda: None, Veiled()
        )
        await self.journal.load()
        return self.journal

    async def set(self, now: datetime) -> None:
        self.clock.advance(1000)  # an earlier answer no longer bounds this one better
        self.nonces += 1
        mono = self.clock.monotonic()
        signed = SignedTime("s", f"n{self.nonces}", now)
        assert await self.site_time.learn(KEY.sign(Domain.TIME, write_time(signed)), mono, mono)

    async def on_disk(self) -> Taken:
        return await self.writer.run(taken)


def sealed(order: Command | SitePlan) -> Envelope:
    if isinstance(order, Command):
        return KEY.sign(Domain.COMMAND, write_command(order))
    return KEY.sign(Domain.PLAN, write_plan(order))


async def test_the_highest_number_is_on_disk_with_the_order_itself(tmp_path: Path) -> None:
    site = Site(tmp_path)
    journal = await site.start()
    assert journal.taken == Taken()
    await journal.accept(sealed(PLAN))
    assert journal.taken == await site.on_disk() == Taken(OrderNumber(1, 7), "p7")
    await journal.accept(sealed(COMMAND))
    assert journal.taken.highest == OrderNumber(1, 7), "an older command of the epoch is taken and lowers nothing"
    assert (await site.start()).taken == Taken(OrderNumber(1, 7), "p7")
    site.writer.close()


async def test_a_forgotten_command_is_refused_even_when_the_clock_went_back(tmp_path: Path) -> None:
    site = Site(tmp_path)
    journal = await site.start()
    await journal.accept(sealed(COMMAND))
    await site.set(T0 + 3 * HOUR)
    await journal.drop_expired_commands()
    assert journal.commands == ()
    await site.set(T0)
    await journal.accept(sealed(COMMAND))
    assert journal.commands == ()
    assert await journal.refusals() == {"already_forgotten": 1}
    again = await site.start()
    await again.accept(sealed(COMMAND))
    assert again.commands == (), "nor by the next process"
    await again.accept(sealed(replace(COMMAND, command_id="k6", sequence=6)))
    assert [command.command_id for command in again.commands] == ["k6"]
    site.writer.close()


async def test_an_order_of_an_earlier_epoch_is_refused_whatever_its_sequence(tmp_path: Path) -> None:
    site = Site(tmp_path)
    journal = await site.start()
    await journal.accept(sealed(PLAN))
    await journal.accept(sealed(replace(COMMAND, signing_epoch=2, sequence=1)))
    await journal.accept(sealed(replace(PLAN, plan_id="p99", sequence=99, revision=99)))
    await journal.accept(sealed(replace(COMMAND, command_id="k99", sequence=99)))
    assert journal.plan_revision == 7
    assert [command.command_id for command in journal.commands] == ["k5"]
    assert await journal.refusals() == {"older_epoch": 2}
    site.writer.close()


async def test_a_command_that_is_numbered_anew_is_done_once(tmp_path: Path) -> None:
    site = Site(tmp_path)
    journal = await site.start()
    await journal.accept(sealed(COMMAND))
    await journal.accept(sealed(replace(COMMAND, signing_epoch=2, sequence=1)))
    assert journal.commands == (COMMAND,)
    assert journal.taken == await site.on_disk() == Taken(OrderNumber(2, 1), "k5")
    assert await journal.refusals() == {}
    await journal.accept(sealed(replace(COMMAND, signing_epoch=2, sequence=2, miner_ids=("m1", "m1"))))
    assert await journal.refusals() == {"sequence_reused": 1}, "an id stands for one command"
    site.writer.close()


async def test_a_database_of_an_earlier_version_counts_the_orders_it_keeps(tmp_path: Path) -> None:
    site = Site(tmp_path)
    journal = await site.start()
    await journal.accept(sealed(PLAN))
    await site.writer.run(lambda connection: connection.execute("DELETE FROM curtail_numbers") and None)
    assert (await site.start()).taken == Taken(OrderNumber(1, 7), "")
    site.writer.close()
