"""The feed: retries, circuit, and every malformed reply refused by name."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from cloud.analytics.market import HttpFeed, read_publication
from cloud.core.errors import Permanent, Transient
from sitelink.clock import ManualClock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def document() -> dict[str, Any]:
    return {
        "market": "HUB",
        "source": "test",
        "published_at": NOON.isoformat(),
        "intervals": [
            {
                "start": (NOON + timedelta(minutes=15 * n)).isoformat(),
                "end": (NOON + timedelta(minutes=15 * (n + 1))).isoformat(),
                "price_usd_per_mwh": 20.0 + n,
            }
            for n in range(3)
        ],
    }


def feed(
    answer: Callable[[httpx.Request], httpx.Response], clock: ManualClock, url: str = "http://127.0.0.1:9/prices"
) -> HttpFeed:
    return HttpFeed(url, "HUB", clock, lambda _: False, httpx.Client(transport=httpx.MockTransport(answer)))


def test_a_publication_is_read_with_its_provenance() -> None:
    found = feed(lambda _: httpx.Response(200, json=document()), ManualClock(NOON)).fetch()
    assert (found.market, found.source, found.published_at) == ("HUB", "test", NOON)
    assert [price for _, price in found.prices] == [20.0, 21.0, 22.0]


def test_a_bare_address_means_its_prices() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, json=document())

    feed(answer, ManualClock(NOON), "http://127.0.0.1:9").fetch()
    assert asked == ["http://127.0.0.1:9/prices"]


def test_a_failure_is_tried_again_and_then_the_circuit_opens_and_closes() -> None:
    clock, answers = ManualClock(NOON), []
    broken = True

    def answer(_: httpx.Request) -> httpx.Response:
        answers.append(1)
        return httpx.Response(503) if broken else httpx.Response(200, json=document())

    tested = feed(answer, clock)
    for _ in range(3):
        with pytest.raises(Transient, match="HTTP 503"):
            tested.fetch()
    assert len(answers) == 9
    with pytest.raises(Transient, match="left alone"):
        tested.fetch()
    assert len(answers) == 9
    clock.advance(3)
    broken = False
    assert tested.fetch().market == "HUB"
    assert tested.fetch().market == "HUB"


def test_a_stop_ends_the_retries() -> None:
    calls = []

    def answer(_: httpx.Request) -> httpx.Response:
        calls.append(1)
        raise httpx.ConnectError("refused")

    stopping = HttpFeed(
        "http://127.0.0.1:9/p",
        "HUB",
        ManualClock(NOON),
        lambda _: True,
        httpx.Client(transport=httpx.MockTransport(answer)),
    )
    with pytest.raises(Transient, match="refused"):
        stopping.fetch()
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("reply", "sign"),
    [
        (httpx.Response(404), "HTTP 404"),
        (httpx.Response(200, content=b"<html>"), "not JSON"),
        (httpx.Response(200, json=[1]), "not a JSON object"),
        (httpx.Response(200, content=b" " * (9 * 1024 * 1024)), "more than"),
    ],
)
def test_what_is_no_feed_is_refused(reply: httpx.Response, sign: str) -> None:
    with pytest.raises(Permanent, match=sign):
        feed(lambda _: reply, ManualClock(NOON)).fetch()


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        (lambda d: d.update(market="OTHER"), "market is 'OTHER'"),
        (lambda d: d.update(intervals=None), "intervals is not a list"),
        (lambda d: d.update(published_at="now"), "published_at"),
        (lambda d: d["intervals"].append(7), r"intervals\[3\] is not an object"),
        (lambda d: d["intervals"][1].update(price_usd_per_mwh="20"), r"intervals\[1\]: price_usd_per_mwh"),
        (lambda d: d["intervals"][1].update(price_usd_per_mwh=float("nan")), r"intervals\[1\]"),
        (lambda d: d["intervals"][1].update(price_usd_per_mwh=True), r"intervals\[1\]"),
        (lambda d: d["intervals"][1].update(price_usd_per_mwh=1e12), r"intervals\[1\]: .* beyond 100000 either way"),
        (lambda d: d["intervals"][0].update(start="2026-03-01T12:00:00"), "has no time zone"),
        (lambda d: d["intervals"][0].update(end=NOON.isoformat()), r"intervals\[0\]: an interval must end"),
    ],
)
def test_a_malformed_publication_is_refused_by_field(change: Callable[[dict[str, Any]], Any], sign: str) -> None:
    broken = document()
    change(broken)
    with pytest.raises(Permanent, match=sign):
        read_publication(broken, "HUB")
