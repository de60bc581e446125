"""Orders are taken whole or not at all, whatever becomes of the link that brought them."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.local_curtail.journal import Journal
from agent.local_curtail.rules import SiteMiner, SiteRules
from agent.local_curtail.schema import schema
from agent.local_curtail.site_time import SiteTime
from agent.storage import ThreadWriter
from sitelink.clock import ManualClock
from sitelink.orders import write_command, write_plan, write_time
from sitelink.signing import KeyRing, PrivateKey
from sitelink.types import (
    Command,
    Curtailment,
    CurtailmentCause,
    Domain,
    Envelope,
    Fallback,
    Interval,
    Ramp,
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
STILL = Ramp(Watts(0), 0.0)


class NoOutbox:
    def append_in(self, connection: object, body: object) -> None:
        pass


def plan(sequence: int) -> Envelope:
    window = Curtailment("c", CurtailmentCause.PRICE, Interval(T0, T0 + HOUR), ("m1",), STILL, STILL)
    order = SitePlan(
        f"p{sequence}", "s", "a", 1, sequence, sequence, T0, Interval(T0, T0 + 3 * HOUR), Fallback.RUN, (window,)
    )
    return KEY.sign(Domain.PLAN, write_plan(order))


def command(expires_at: datetime = T0 + HOUR) -> Envelope:
    order = Command("k", "s", "a", 1, 5, T0, expires_at, Verb.STOP, ("m1",), "why")
    return KEY.sign(Domain.COMMAND, write_command(order))


async def journal_in(folder: Path) -> tuple[Journal, ThreadWriter]:
    writer = ThreadWriter(folder / "agent.db")
    await writer.run(schema)
    site_time = SiteTime(writer, ManualClock(T0), "s", KeyRing((KEY.public_bytes,)))
    await site_time.learn(KEY.sign(Domain.TIME, write_time(SignedTime("s", "n", T0))), 0.0, 0.0)
    keys = KeyRing((KEY.public_bytes,))
    return Journal(writer, NoOutbox(), site_time, lambda: "id", RULES, MINERS, keys, lambda: None, Veiled()), writer


async def test_a_link_that_breaks_while_an_order_is_stored_leaves_it_in_force(tmp_path: Path) -> None:
    journal, writer = await journal_in(tmp_path)
    gate = threading.Event()
    busy = asyncio.create_task(writer.run(lambda _: gate.wait(10)))
    arrivals = [asyncio.create_task(journal.accept(envelope)) for envelope in (plan(1), command())]
    await asyncio.sleep(0)
    for arrival in arrivals:
        arrival.cancel()
    asyncio.get_running_loop().call_later(0.05, gate.set)
    assert [type(end) for end in await asyncio.gather(*arrivals, return_exceptions=True)] == [
        asyncio.CancelledError
    ] * 2
    await busy
    assert journal.plan_revision == 1
    assert [order.command_id for order in journal.commands] == ["k"]
    writer.close()


async def test_a_command_that_never_expires_is_carried_like_any_other(tmp_path: Path) -> None:
    journal, writer = await journal_in(tmp_path)
    await journal.accept(command(datetime.max.replace(tzinfo=UTC)))
    await journal.drop_expired_commands()
    assert len(journal.commands) == 1
    writer.close()
