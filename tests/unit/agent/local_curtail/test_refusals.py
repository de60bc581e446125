"""A flood of refused orders is counted whole and told in a few lines."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.local_curtail.refusals import Telling
from sitelink.signing import PrivateKey
from sitelink.types import BatchBody, Domain, Envelope, Notice
from tests.unit.agent.local_curtail.test_numbers import Site

pytestmark = pytest.mark.agent

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def envelope(number: int) -> Envelope:
    return Envelope(Domain.PLAN, "k", b"payload", str(number).encode())


def test_ten_of_a_code_in_an_hour_are_told_singly_and_the_rest_when_it_is_over() -> None:
    telling = Telling()
    assert sum(telling.is_news(envelope(number), "bad_signature", T0) for number in range(1000)) == 10
    assert telling.is_news(envelope(2000), "expired", T0), "another code has its own ten"
    assert telling.owed(T0 + HOUR / 2) == {}
    assert telling.owed(T0 + HOUR) == {"bad_signature": (990, T0)}
    assert not telling.is_news(envelope(3000), "bad_signature", T0 + HOUR), "what is owed is told first"
    assert telling.owed(T0 + HOUR) == {"bad_signature": (991, T0)}
    telling.settle("bad_signature")
    assert telling.owed(T0 + HOUR) == {}
    assert telling.is_news(envelope(4000), "bad_signature", T0 + HOUR)


def test_the_same_bytes_are_told_once() -> None:
    telling = Telling()
    assert [telling.is_news(envelope(1), "expired", T0 + HOUR * place) for place in range(3)] == [True, False, False]
    assert telling.owed(T0 + 9 * HOUR) == {}


async def test_the_journal_tells_the_cloud_of_a_flood_in_one_line(tmp_path: Path) -> None:
    site = Site(tmp_path)
    journal = await site.start()
    told: list[Notice] = []

    class Kept:
        def append_in(self, connection: object, body: BatchBody) -> None:
            told.extend(body.notices)

    journal._outbox = Kept()
    foreign = PrivateKey.generate()
    for number in range(30):
        await journal.accept(foreign.sign(Domain.PLAN, str(number).encode()))
    assert len(told) == 10
    assert await journal.refusals() == {"bad_signature": 30}
    await site.set(T0 + HOUR)
    await journal.drop_expired_commands()
    assert len(told) == 11 and told[-1].detail.startswith("bad_signature: 20 more orders refused since 12:00 UTC")
    await journal.drop_expired_commands()
    assert len(told) == 11
    site.writer.close()
