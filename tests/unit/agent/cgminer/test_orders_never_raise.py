"""Whatever a device answers to an order, the driver ends in an AgentError or a result, never in another error."""

import asyncio
import json
import random
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from agent.cgminer.client import DEFAULT_DEADLINES, Address
from agent.cgminer.control.driver import Driver, Wanted
from agent.cgminer.control.drivers import driver_of
from agent.cgminer.control.limits import KeepsLimit
from agent.cgminer.credentials import Credentials
from agent.cgminer.dialects import TABLES
from agent.cgminer.observation import Observation
from agent.cgminer.repair import decode
from agent.cgminer.replies import parse
from agent.cgminer.sections import Sections
from agent.cgminer.web import WebReply
from agent.errors import AgentError, Garbled, Unreachable
from sitelink.clock import ManualClock
from sitelink.types import Verb
from tests.fuzz.damage import mutated
from tests.fuzz.samples import SAMPLES

pytestmark = pytest.mark.agent

ORDERS = 800
ANSWERS: tuple[Any, ...] = (
    {"STATUS": [{"STATUS": "S", "When": 1_760_000_000, "Code": 316}], "SESSION": [{"SessionID": "abc"}], "id": 1},
    {"STATUS": "S", "When": 1, "Code": 134, "Msg": {"time": "5626", "salt": "BQ5hoXV9", "newsalt": "jbzkfQls"}},
    {"STATUS": "S", "When": 1, "Code": 131, "Msg": "API command OK"},
    {"STATUS": [{"STATUS": "I", "When": 1_760_000_000, "Code": 118, "Msg": "ASC 0 set info: success softoff"}]},
    {"STATUS": [{"STATUS": "E", "Code": 45, "Msg": "Access denied"}]},
    {"code": 0, "when": 1, "msg": "ok"},
    {"code": 0, "when": 1, "msg": {"salt": "aaaa", "network": {"mac": "x"}}},
    {"stats": "success"},
    {"token": "abc"},
    {"PAUSE": [True], "STATUS": [{"STATUS": "S"}]},
    [{"name": "2500", "pretty": "2500 watt ~ 188 TH", "status": "tuned"}],
    {"miner": {"overclock": {"preset": "2500"}, "pools": [{"url": "a", "user": "b", "pass": "c", "order": 0}]}},
    {"pools": [{"url": "stratum+tcp://a:1", "user": "u", "pass": "p"}], "bitmain-work-mode": "0"},
    {"PROFILES": [{"Profile Name": "310MHz", "Watts": 2500, "IsDynamic": False}], "STATUS": [{"STATUS": "S"}]},
    {"data": {"bosminer": {"config": {"groups": [{"pools": [{"url": "a", "user": "b"}]}]}}}},
)
DOCUMENTS = [json.dumps(answer).encode() for answer in ANSWERS]
DOCUMENTS += [reply for sample in SAMPLES.values() for reply in sample.values()]
POOLS = json.dumps([{"url": "stratum+tcp://a:1", "user": "u", "password": "p"}])
PARAMETERS: Mapping[Verb, list[dict[str, str]]] = {
    Verb.LIMIT: [{"power_w": "2500"}, {"mode": "low"}],
    Verb.POOLS: [{"pools": POOLS}],
    Verb.BLINK: [{"on": "true"}, {"on": "false"}],
    Verb.FIRMWARE: [{"file": "f", "sha256": "0" * 64, "version": "1"}],
}
CONTROLLED = sorted(dialect for dialect in TABLES if driver_of(dialect) is not None)


class OddDevice:
    """A miner that answers anything with something, damaged more often than not."""

    address = Address("192.0.2.1")
    credentials = Credentials("root", "s3cret")
    deadlines = DEFAULT_DEADLINES

    def __init__(self, dialect: str, rng: random.Random) -> None:
        self.dialect = dialect
        self._rng = rng
        self._clock = ManualClock(datetime(2029, 1, 1, tzinfo=UTC))

    def monotonic(self) -> float:
        return self._clock.monotonic()

    @property
    def named_by(self) -> Sections:
        sections = Sections()
        with suppress(Garbled):
            sections.add(decode(self._maybe(self._rng.choice(DOCUMENTS), 0.6)), "config")
        return sections

    async def observe(self) -> Observation:
        sample = SAMPLES.get(self.dialect, SAMPLES["luxos"])
        return parse(self.dialect, {command: self._maybe(reply, 0.2) for command, reply in sample.items()})

    async def identity(self) -> str:
        return "x"

    async def send(self, _request: bytes) -> bytes:
        return self._maybe(self._rng.choice(DOCUMENTS), 0.6)

    async def ask(self, *_arguments: object) -> Mapping[str, Any]:
        if self._rng.random() < 0.05:
            raise Unreachable("nobody answers")
        found = decode(await self.send(b"")).document
        if not isinstance(found, dict):
            raise Garbled("no object")
        return found

    framed = ask

    async def call(self, *_arguments: object, **_more: object) -> WebReply:
        status = self._rng.choice([*[200] * 8, 204, 302, 400, 404, 500])
        return WebReply(status, {}, await self.send(b""))

    tried = call

    def connection(self, *_arguments: object, **_more: object) -> None:
        raise Unreachable("nobody answers")

    def _maybe(self, reply: bytes, share: float) -> bytes:
        damaged = mutated(reply, self._rng) if self._rng.random() < share else None
        return reply if damaged is None else damaged


async def ordered(driver: Driver, device: Any, wanted: Wanted) -> None:
    """Go through an order's steps, each whatever became of the one before."""
    before = await device.observe()
    former = ""
    for step in ("former", "send", "shows"):
        try:
            if step == "former":
                former = await driver.former(device, wanted)
            elif step == "send":
                await driver.send(device, wanted, former)
            else:
                await driver.shows(device, wanted, before)
        except AgentError:
            continue
    if isinstance(driver, KeepsLimit):
        kept = {"power_limit_w": 1.0, "mode": "low", "profile": "p", "atm": {"Enabled": True}, "workmode": "7"}
        for each in (kept, {"preset": "2500", "profile": 3, "atm": []}, {}):
            with suppress(AgentError):
                await driver.lost(device, each, before)


@pytest.mark.parametrize("dialect", CONTROLLED)
async def test_no_answer_to_an_order_raises_anything_else(dialect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(_delay_s: float) -> None:
        """No order waits here."""

    monkeypatch.setattr(asyncio, "sleep", at_once)
    rng = random.Random(dialect)
    for place in range(ORDERS):
        driver = driver_of(dialect)
        assert driver is not None
        verb = rng.choice(sorted(driver.verbs))
        wanted = Wanted(verb, rng.choice(PARAMETERS.get(verb, [{}])), secret="newpass1", image=b"abc")
        try:
            await ordered(driver, OddDevice(dialect, rng), wanted)
        except Exception as error:
            raise AssertionError(f"{dialect} {verb} (order {place}): {error!r}") from error
