"""Stop and start over each firmware's own flow: who answers is checked first, refusals are told apart."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.control import MinerControl, controllable
from agent.cgminer.control.driver import Wanted
from agent.cgminer.control.luxos import LuxOs
from agent.cgminer.control.md5_crypt import md5_crypt
from agent.cgminer.control.whatsminer_access import seal, unseal
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.errors import AccessDenied, Garbled, SessionBusy, Transient, Unreachable, UnsupportedDevice, WrongDevice
from sitelink.clock import ManualClock
from sitelink.types import Verb
from tests.contract.fake_miner import FakeMiner, serving, status
from tests.unit.agent.cgminer import replies_of as made

pytestmark = pytest.mark.agent

LUXOS_ID = "62:f7:5e:00:00:01"
AVALON_ID = "b4:a2:eb:00:00:01"
WHATSMINER_ID = "c6:07:20:00:ab:cd"
ADMIN = Credentials("admin", "admin")
SHORT = Deadlines(connect_s=1, first_byte_s=1, total_s=2)


def control(address: Address, dialect: str, miner_id: str, time: ManualClock | None = None) -> MinerControl:
    time = time or ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    return MinerControl(Device(address, dialect, time, miner_id=miner_id, credentials=ADMIN, deadlines=SHORT), miner_id)


def luxos_miner(**answers: object) -> FakeMiner:
    session: dict[str, Any] = status(316, "Session created", SESSION=[{"SessionID": "s3ss10n"}])
    defaults = {
        "logon": session,
        "curtail": status(335, "Curtailment command sent", CURTAIL=[{"Action": "x"}]),
        "logoff": status(317, "Session terminated"),
    }
    return FakeMiner({**made.luxos(), **defaults, **answers})


@pytest.mark.parametrize(("verb", "action"), [("stop", "sleep"), ("start", "wakeup")])
async def test_luxos_curtails_within_one_session_that_is_closed(verb: str, action: str) -> None:
    miner = luxos_miner()
    async with serving(miner.speak) as address:
        await getattr(control(address, "luxos", LUXOS_ID), verb)()
    assert miner.asked == [
        ("config", None),
        ("logon", None),
        ("curtail", f"s3ss10n,{action}"),
        ("logoff", "s3ss10n"),
    ]


async def test_a_busy_luxos_session_is_transient_and_not_taken_over() -> None:
    miner = luxos_miner(logon=status(402, "Session already active", "E"))
    async with serving(miner.speak) as address:
        with pytest.raises(SessionBusy, match="Session already active"):
            await control(address, "luxos", LUXOS_ID).stop()
    assert miner.commands() == ["config", "logon"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (status(318, "Invalid session", "E"), SessionBusy),
        (status(336, "Invalid curtailment action", "E"), UnsupportedDevice),
        (status(45, "Access denied to 'curtail' command", "E"), AccessDenied),
        (b"[]", Garbled),
    ],
)
async def test_the_luxos_session_is_closed_after_any_failure(answer: object, error: type[Exception]) -> None:
    miner = luxos_miner(curtail=answer)
    async with serving(miner.speak) as address:
        with pytest.raises(error):
            await control(address, "luxos", LUXOS_ID).stop()
    assert miner.asked[-1] == ("logoff", "s3ss10n")


async def test_a_luxos_that_already_sleeps_has_taken_the_order() -> None:
    miner = luxos_miner(curtail=status(337, "Miner is already in sleep mode", "E"))
    async with serving(miner.speak) as address:
        await control(address, "luxos", LUXOS_ID).stop()


async def test_a_failed_logoff_does_not_fail_the_order() -> None:
    miner = luxos_miner(logoff=b"<html>")
    async with serving(miner.speak) as address:
        await control(address, "luxos", LUXOS_ID).stop()


async def test_a_logon_without_a_session_is_garbled() -> None:
    miner = luxos_miner(logon=status(316, "Session created", SESSION=[]))
    async with serving(miner.speak) as address:
        with pytest.raises(Garbled):
            await control(address, "luxos", LUXOS_ID).stop()


@pytest.mark.parametrize(
    ("dialect", "miner"),
    [("luxos", luxos_miner()), ("avalon", FakeMiner(dict(made.avalon())))],
)
async def test_another_miner_at_the_address_gets_no_order(dialect: str, miner: FakeMiner) -> None:
    async with serving(miner.speak) as address:
        with pytest.raises(WrongDevice) as caught:
            await control(address, dialect, "aa:aa:aa:aa:aa:aa").stop()
    assert caught.value.code == "wrong_device"
    assert not {"logon", "curtail", "ascset"} & set(miner.commands())


async def test_an_inventory_may_name_a_miner_by_its_serial() -> None:
    miner = luxos_miner()
    async with serving(miner.speak) as address:
        luxos = control(address, "luxos", "LUX0000001")
        assert await luxos.identity() == "LUX0000001"
        await luxos.stop()
    assert ("curtail", "s3ss10n,sleep") in miner.asked


async def test_firmware_without_control_is_refused_and_a_dead_miner_unreachable() -> None:
    miner = FakeMiner({"stats": made.antminer_stats()})
    async with serving(miner.speak) as address:
        with pytest.raises(UnsupportedDevice, match=r"only .*luxos.* can"):
            await control(address, "mskminer", "81abcdef0123481c").stop()
    with pytest.raises(Unreachable):
        await control(address, "luxos", LUXOS_ID).stop()
    assert [controllable(name) for name in ("luxos", "whatsminer", "avalon", "mskminer", "auto")] == [True] * 3 + [
        False
    ] * 2


def avalon_miner(answer: Callable[[dict[str, Any]], object], when: int) -> FakeMiner:
    replies = dict(made.avalon())
    version = json.loads(replies["version"])
    version["STATUS"][0]["When"] = when
    return FakeMiner({**replies, "version": version, "ascset": answer})


@pytest.mark.parametrize(("verb", "action"), [("stop", "softoff"), ("start", "softon")])
@pytest.mark.parametrize("when", [986, 1_760_000_000])
async def test_avalon_is_timed_by_its_own_clock(verb: str, action: str, when: int) -> None:
    def ascset(request: dict[str, Any]) -> object:
        return status(118, f"ASC 0 set info: success {request['parameter'][2:]}", "I", when)

    miner = avalon_miner(ascset, when)
    async with serving(miner.speak) as address:
        await getattr(control(address, "avalon", AVALON_ID), verb)()
    assert miner.asked[-1] == ("ascset", f"0,{action},1:{when + 2}")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (status(120, "ASC 0 set failed: Unknown option", "E"), UnsupportedDevice),
        (status(118, "ASC 0 set info: help|voltage|softoff", "I"), UnsupportedDevice),
        (status(45, "Access denied", "E"), AccessDenied),
    ],
)
async def test_avalon_refusals_are_told_apart(answer: object, error: type[Exception]) -> None:
    async with serving(avalon_miner(lambda _: answer, 986).speak) as address:
        with pytest.raises(error):
            await control(address, "avalon", AVALON_ID).stop()


async def test_an_avalon_that_says_set_ok_has_taken_the_order() -> None:
    async with serving(avalon_miner(lambda _: status(119, "ASC 0 set OK"), 986).speak) as address:
        await control(address, "avalon", AVALON_ID).stop()


async def test_an_avalon_that_tells_no_time_or_refuses_one_is_told_without() -> None:
    timeless = avalon_miner(lambda _: status(119, "ASC 0 set OK"), 986)
    timeless.answers["version"] = {"VERSION": [{"MAC": AVALON_ID}]}
    async with serving(timeless.speak) as address:
        await control(address, "avalon", AVALON_ID).stop()
    assert timeless.asked[-1] == ("ascset", "0,softoff")

    def only_bare(request: dict[str, Any]) -> object:
        timed = ":" in request["parameter"]
        return status(120, "ASC 0 set failed: softoff", "E") if timed else status(118, "success softoff", "I")

    older = avalon_miner(only_bare, 986)
    async with serving(older.speak) as address:
        await control(address, "avalon", AVALON_ID).stop()
    assert [parameter for _, parameter in older.asked[-2:]] == ["0,softoff,1:988", "0,softoff"]


async def test_a_miner_in_trouble_that_shows_no_firmware_yet_is_for_later() -> None:
    miner = FakeMiner({"version": status(99, "Not ready", "E", VERSION=[{"MAC": AVALON_ID}])})
    async with serving(miner.speak) as address:
        with pytest.raises(Transient, match="cannot answer now"):
            await control(address, "auto", AVALON_ID).stop()


class WhatsminerV2:
    """The device's side of the token handshake."""

    def __init__(self, password: str = "admin") -> None:
        self.password = password
        self.orders: list[dict[str, Any]] = []
        self.tokens = 0
        self.grant: object = None
        self.verdicts: list[tuple[int, str, str]] = []
        self.plain_refusal = False
        info = made.btminer(131, {"mac": WHATSMINER_ID, "hostname": "wm"})
        self.miner = FakeMiner({"get_miner_info": info, "get_token": self._token, "enc": self._write})

    def _token(self, _: dict[str, Any]) -> object:
        self.tokens += 1
        return self.grant or made.btminer(134, {"time": "5626", "salt": "BQ5hoXV9", "newsalt": "jbzkfQls"})

    def _write(self, request: dict[str, Any]) -> object:
        assert request["enc"] == 1
        digest = md5_crypt(self.password, "BQ5hoXV9")
        key = hashlib.sha256(digest.encode()).digest()
        try:
            order = json.loads(unseal(request["data"], key))
        except ValueError:
            return made.btminer(23, "invalid json or decipher error", "E")
        code, message, letter = self.verdicts.pop(0) if self.verdicts else (131, "API command OK", "S")
        if order["token"] != md5_crypt(digest + "5626", "jbzkfQls"):
            code, message, letter = 135, "check token err", "E"
        self.orders.append(order)
        answer = made.btminer(code, message, letter)
        return answer if self.plain_refusal else {"enc": seal(answer.decode(), key)}


async def test_whatsminer_orders_travel_enciphered_with_text_for_true() -> None:
    device = WhatsminerV2()
    async with serving(device.miner.speak) as address:
        whatsminer = control(address, "whatsminer", WHATSMINER_ID)
        await whatsminer.stop()
        await whatsminer.start()
    assert [order["cmd"] for order in device.orders] == ["power_off", "power_on"]
    assert device.orders[0]["respbefore"] == "true"
    assert device.tokens == 1


async def test_a_whatsminer_token_is_renewed_when_it_is_old_or_refused() -> None:
    device = WhatsminerV2()
    time = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    async with serving(device.miner.speak) as address:
        whatsminer = control(address, "whatsminer", WHATSMINER_ID, time)
        await whatsminer.stop()
        device.verdicts = [(135, "check token err", "E")]
        await whatsminer.stop()
        assert device.tokens == 2
        time.advance(26 * 60)
        await whatsminer.stop()
        assert device.tokens == 3


async def test_a_wrong_whatsminer_password_is_access_denied_or_undecipherable() -> None:
    async with serving(WhatsminerV2(password="other").miner.speak) as address:
        with pytest.raises((AccessDenied, UnsupportedDevice)):
            await control(address, "whatsminer", WHATSMINER_ID).stop()


@pytest.mark.parametrize(
    ("grant", "error"),
    [
        (made.btminer(136, "over max connect", "E"), SessionBusy),
        (made.btminer(45, "can't access write cmd", "E"), AccessDenied),
        (made.btminer(134, {"time": 5626}), Garbled),
        (made.btminer(134, {"time": "5" * 200_000, "salt": "BQ5hoXV9", "newsalt": "jbzkfQls"}), Garbled),
        (made.btminer(132, "so\nmuch to say " * 999, "E"), Garbled),
    ],
)
async def test_a_whatsminer_without_a_token_to_give(grant: bytes, error: type[Exception]) -> None:
    device = WhatsminerV2()
    device.grant = grant
    async with serving(device.miner.speak) as address:
        with pytest.raises(error) as raised:
            await control(address, "whatsminer", WHATSMINER_ID).stop()
    assert device.orders == []
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("verdict", "error"),
    [
        ((45, "can't access write cmd", "E"), AccessDenied),
        ((136, "over max token", "E"), SessionBusy),
        ((132, "command error", "E"), UnsupportedDevice),
    ],
)
@pytest.mark.parametrize("plain", [True, False])
async def test_whatsminer_refusals_are_told_apart(
    verdict: tuple[int, str, str], error: type[Exception], plain: bool
) -> None:
    device = WhatsminerV2()
    device.verdicts = [verdict]
    device.plain_refusal = plain
    async with serving(device.miner.speak) as address:
        with pytest.raises(error):
            await control(address, "whatsminer", WHATSMINER_ID).stop()


@pytest.mark.parametrize("answer", [{"enc": "!!"}, {"enc": base64.b64encode(bytes(16)).decode()}, b"[1]"])
async def test_a_whatsminer_answer_that_cannot_be_read_is_garbled(answer: object) -> None:
    device = WhatsminerV2()
    device.miner.answers["enc"] = answer
    async with serving(device.miner.speak) as address:
        with pytest.raises(Garbled):
            await control(address, "whatsminer", WHATSMINER_ID).stop()


async def keep_nothing(former: str) -> None:
    """Keep no former configuration."""


async def test_a_stop_is_not_held_up_by_an_order_that_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.cgminer.control._WAIT_S", 0.1)
    sending = asyncio.Event()

    class Slow(LuxOs):
        async def send(self, device: Device, wanted: Wanted, former: str) -> bytes:
            if wanted.verb is Verb.REBOOT:
                sending.set()
                await asyncio.sleep(30)
            return await super().send(device, wanted, former)

    async with serving(luxos_miner().speak) as address:
        device = Device(address, "luxos", ManualClock(datetime(2026, 1, 1, tzinfo=UTC)), miner_id=LUXOS_ID)
        luxos = MinerControl(device, LUXOS_ID, drivers=lambda dialect: Slow())
        rebooting = asyncio.create_task(luxos.carry_out(Wanted(Verb.REBOOT), keep_nothing))
        await sending.wait()
        async with asyncio.timeout(1.0):
            with pytest.raises(SessionBusy, match="other requests of ours"):
                await luxos.stop()
        rebooting.cancel()
        await asyncio.wait([rebooting])
        await luxos.stop()
