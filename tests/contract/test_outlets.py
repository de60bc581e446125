"""A switch is read back, a PDU is spoken to as its make wants it, and a miner behind one is never cut off unnamed."""

import asyncio
import contextlib
import json
import random
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.control import MinerControl
from agent.cgminer.control.driver import Wanted
from agent.cgminer.control.outlet import OutletControl
from agent.cgminer.device import Device
from agent.errors import (
    AccessDenied,
    BadInput,
    Garbled,
    NoWay,
    Refused,
    SessionBusy,
    TimedOut,
    Transient,
    Unreachable,
    UnsupportedDevice,
    WrongDevice,
)
from agent.modbus import ModbusHosts
from agent.outlets import Outlet, outlet_of
from agent.outlets.profiles import load_profile
from agent.poller import Poller
from agent.precedence import Precedence
from sitelink.clock import SystemClock
from sitelink.types import MinerState, Outcome, Reason, Verb
from tests.contract.fake_miner import FakeMiner, serving
from tests.unit.agent.cgminer import replies_of as made

pytestmark = pytest.mark.agent

Make = Callable[[str], Outlet]

SHORT = Deadlines(connect_s=0.3, first_byte_s=0.3, total_s=0.3)
ANTMINER_ID = "81abcdef0123481c"


class Relays:
    """A Modbus TCP relay board of 16 coils. ``mute`` and ``stuck`` are its faults."""

    def __init__(self) -> None:
        self.coils = [False] * 16
        self.mute = self.stuck = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                transaction, _, _, unit, function, coil, value = struct.unpack(">HHHBBHH", await reader.readexactly(12))
                if self.mute:
                    continue
                writer.write(self.answer(transaction, unit, function, coil, value))
        writer.close()

    def answer(self, transaction: int, unit: int, function: int, coil: int, value: int) -> bytes:
        if coil >= len(self.coils):
            return struct.pack(">HHHBBB", transaction, 0, 3, unit, function | 0x80, 2)
        if function == 1:
            return struct.pack(">HHHBBBB", transaction, 0, 4, unit, 1, 1, self.coils[coil])
        if not self.stuck:
            self.coils[coil] = value == 0xFF00
        return struct.pack(">HHHBBHH", transaction, 0, 6, unit, 5, coil, value)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        try:
            yield f"modbus://127.0.0.1:{server.sockets[0].getsockname()[1]}/1"
        finally:
            server.close()


@pytest.fixture
async def outlet() -> AsyncIterator[Make]:
    hosts, made = ModbusHosts(), []

    def make(url: str) -> Outlet:
        made.append(outlet_of(url, hosts, deadlines=SHORT))
        return made[-1]

    yield make
    for switch in made:
        switch.close()
    while len(asyncio.all_tasks()) > 1:  # each server sees its client go
        await asyncio.sleep(0)


async def test_a_coil_is_switched_and_read_back(outlet: Make) -> None:
    relays = Relays()
    async with relays.listening() as url:
        switch = outlet(f"{url}?coil=5")
        assert await switch.is_on() is False
        await switch.switch(on=True)
        assert (await switch.is_on(), relays.coils[5], await switch.power_w()) == (True, True, None)
        await switch.switch(on=False)
        assert await switch.is_on() is False


async def test_a_contactor_that_opens_when_its_coil_is_set_is_turned_round(outlet: Make) -> None:
    relays = Relays()
    async with relays.listening() as url:
        switch = outlet(f"{url}?coil=5&off=1")
        assert await switch.is_on() is True
        await switch.switch(on=False)
        assert (relays.coils[5], await switch.is_on()) == (True, False)


async def test_a_relay_that_is_stuck_shows_by_reading_back(outlet: Make) -> None:
    relays = Relays()
    relays.stuck = True
    async with relays.listening() as url:
        switch = outlet(f"{url}?coil=5")
        await switch.switch(on=True)
        assert await switch.is_on() is False


async def test_a_mute_relay_is_an_error_and_never_off(outlet: Make) -> None:
    relays = Relays()
    relays.mute = True
    async with relays.listening() as url:
        with pytest.raises(TimedOut):
            await outlet(f"{url}?coil=5").is_on()
    with pytest.raises(Unreachable):
        await outlet(f"{url}?coil=5").is_on()


async def test_a_coil_that_the_board_does_not_have_is_named(outlet: Make) -> None:
    async with Relays().listening() as url:
        with pytest.raises(UnsupportedDevice, match="exception 2"):
            await outlet(f"{url}?coil=99").is_on()


class Pdu:
    """A web server that answers by target and keeps what it was asked."""

    def __init__(self, **answers: object) -> None:
        self.answers: dict[str, object] = dict(answers)
        self.asked: list[tuple[str, str]] = []
        self.status = "200 OK"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    (
                        int(line.split(":")[1])
                        for line in head.split("\r\n")
                        if line.lower().startswith("content-length")
                    ),
                    0,
                )
                body = (await reader.readexactly(length)).decode()
                method, target, _ = head.split(" ", 2)
                self.asked.append((f"{method} {target}", body))
                answer = self.answers.get(target, {})
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                writer.write(f"HTTP/1.1 {self.status}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()


@pytest.mark.parametrize(
    ("name", "state", "on", "off", "shown", "power_w"),
    [
        (
            "shelly-gen2",
            "/rpc/Switch.GetStatus?id=2",
            ("GET /rpc/Switch.Set?id=2&on=true", ""),
            ("GET /rpc/Switch.Set?id=2&on=false", ""),
            {True: {"id": 2, "output": True, "apower": 3250.5}, False: {"id": 2, "output": False, "apower": 0.0}},
            {True: 3250.5, False: 0.0},
        ),
        (
            "tasmota",
            "/cm?cmnd=Power3",
            ("GET /cm?cmnd=Power3%20On", ""),
            ("GET /cm?cmnd=Power3%20Off", ""),
            {True: {"POWER3": "ON"}, False: {"POWER": "OFF"}},
            {True: None, False: None},
        ),
        (
            "netio",
            "/netio.json",
            ("POST /netio.json", '{"Outputs":[{"ID":3,"Action":1}]}'),
            ("POST /netio.json", '{"Outputs":[{"ID":3,"Action":0}]}'),
            {
                True: {"Outputs": [{}, {}, {"ID": 3, "State": 1, "Load": 42}]},
                False: {"Outputs": [{}, {}, {"ID": 3, "State": 0, "Load": 0}]},
            },
            {True: 42.0, False: 0.0},
        ),
    ],
)
async def test_each_make_of_pdu_is_spoken_to_in_its_own_way(
    outlet: Make,
    name: str,
    state: str,
    on: object,
    off: object,
    shown: dict[bool, object],
    power_w: dict[bool, float | None],
) -> None:
    pdu = Pdu()
    async with pdu.listening() as url:
        switch = outlet(f"{url}/3?pdu={name}")
        await switch.switch(on=True)
        await switch.switch(on=False)
        assert pdu.asked == [on, off]
        for wanted in (True, False):
            pdu.answers[state] = shown[wanted]
            assert await switch.is_on() is wanted
            assert await switch.power_w() == power_w[wanted]


@pytest.mark.parametrize("answer", [{}, [], {"output": None}, {"output": 1}, {"output": "on"}, b"<html>", b"[" * 9000])
async def test_a_state_that_cannot_be_read_is_an_error_and_never_off(outlet: Make, answer: object) -> None:
    pdu = Pdu(**{"/rpc/Switch.GetStatus?id=0": answer})
    async with pdu.listening() as url:
        with pytest.raises(Garbled):
            await outlet(f"{url}/1?pdu=shelly-gen2").is_on()


@pytest.mark.parametrize(("status", "error"), [("500 Oops", UnsupportedDevice), ("401 Unauthorized", AccessDenied)])
async def test_a_pdu_that_refuses_says_so(outlet: Make, status: str, error: type[Exception]) -> None:
    pdu = Pdu()
    pdu.status = status
    async with pdu.listening() as url:
        with pytest.raises(error):
            await outlet(f"{url}/1?pdu=shelly-gen2").switch(on=False)


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("", "names no switch"),
        ("ftp://h/1", "names no switch"),
        ("http://me:secret@h/1?pdu=tasmota", "has a user in it"),
        ("modbus://h/1?coil=1&coil=2", "says something twice"),
        ("modbus://h/1?coil=1&wiring=perhaps", "wiring is 'perhaps' and not checked"),
        ("modbus://h/1", "does not say which coil"),
        ("modbus://h/1?coil=70000", "'70000' is not between"),
        ("modbus://h/1?coil=1&off=2", "does not say which coil"),
        ("modbus://h/x?coil=1", "'x' is not between"),
        ("http://h/1", "does not say which PDU"),
        ("http://h/1?pdu=../x", "does not say which PDU"),
        ("http://h/1?pdu=abb", "is not known; use one of netio, shelly-gen2, tasmota"),
        ("http://h/x?pdu=tasmota", "'x' is not between"),
        ("http://h:x/1?pdu=tasmota", "is not an address"),
    ],
)
def test_a_wrong_outlet_is_refused_with_its_cause(outlet: Make, url: str, cause: str) -> None:
    with pytest.raises(BadInput, match="outlet") as caught:
        outlet(url)
    assert cause in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"on": '"/x"'}, "on: '/x' does not fit"),
        ({"state": '"GET /a b"'}, "state: 'GET /a b' does not fit"),
        ({"state_at": "[]"}, "state_at: [] does not fit"),
        ({"on_value": "[1]"}, "on_value: [1] does not fit"),
        ({"on_value": "false"}, "are equal"),
        ({"colour": "1"}, "colour: is not a known key"),
        ({"model": "3"}, "model: expected a text"),
        ({"power_at": "3"}, "power_at: expected a text"),
        ({"model": "="}, "not a TOML file"),
    ],
)
def test_a_wrong_profile_is_refused_by_file_and_key(change: dict[str, str], told: str, tmp_path: Path) -> None:
    whole = {
        "model": '"x"', "on": '"GET /on"', "off": '"GET /off"', "state": '"GET /s"', "state_at": '["a"]',
        "on_value": "true", "off_value": "false", **change,
    }  # fmt: skip
    (tmp_path / "own.toml").write_text("".join(f"{key} = {value}\n" for key, value in whole.items()))
    with pytest.raises(BadInput) as caught:
        load_profile("own", tmp_path)
    assert str(tmp_path / "own.toml") in str(caught.value)
    assert told in str(caught.value)


class Switch:
    """A switch in memory; ``blind`` cannot be read, ``deaf`` is told nothing, ``stuck`` takes an order and stays."""

    def __init__(self, *, on: bool = True) -> None:
        self.on = on
        self.told: list[bool] = []
        self.blind = self.deaf = self.stuck = False

    async def switch(self, *, on: bool) -> None:
        if self.deaf:
            raise TimedOut("the PDU does not answer")
        self.told.append(on)
        self.on = self.on if self.stuck else on

    async def is_on(self) -> bool:
        if self.blind:
            raise TimedOut("the PDU does not answer")
        return self.on

    async def power_w(self) -> float | None:
        return 5.0


def behind(
    address: Address,
    switch: Switch,
    miner_id: str = ANTMINER_ID,
    dialect: str = "cgminer",
    *,
    wiring_checked: bool = False,
) -> OutletControl:
    device = Device(address, dialect, SystemClock(), miner_id=miner_id, deadlines=SHORT)
    inner = MinerControl(device, miner_id)
    return OutletControl(inner, device, miner_id, switch, wiring_checked=wiring_checked, goes_off_s=0.1)


class Told(MinerControl):
    """A firmware with a start of its own that counts its starts."""

    started = 0

    async def start(self) -> None:
        self.started += 1


NOBODY = Address("127.0.0.1", 1)


def miner() -> FakeMiner:
    return FakeMiner({"stats": made.antminer_stats(), "version": made.answer(22, "VERSION", {"BMMiner": "1.0.0"})})


async def test_a_miner_that_says_who_it_is_loses_its_power() -> None:
    switch = Switch()
    original = switch.switch
    async with serving(miner().speak) as address:
        control = behind(address, switch)

        async def without_power(*, on: bool) -> None:
            await original(on=on)
            control._device.address = NOBODY

        switch.switch = without_power
        await control.stop()
        assert await control.identity() == ANTMINER_ID
    assert switch.told == [False]


async def test_another_miner_keeps_its_power() -> None:
    switch = Switch()
    async with serving(miner().speak) as address:
        with pytest.raises(WrongDevice):
            await behind(address, switch, "81abcdef0123481d").stop()
    assert switch.told == []


async def test_a_silent_miner_with_power_keeps_it_because_nobody_knows_who_it_is() -> None:
    switch = Switch()
    with pytest.raises(Transient):
        await behind(NOBODY, switch).stop()
    assert switch.told == []


async def test_a_stop_may_be_repeated_once_the_power_is_gone() -> None:
    switch = Switch(on=False)
    await behind(NOBODY, switch).stop()
    assert switch.told == [False]


class Unheard(MinerControl):
    """A miner of which nothing is heard, for ``trouble``."""

    trouble: Transient

    async def identity(self) -> str:
        raise self.trouble

    async def observe(self):
        raise self.trouble


@pytest.mark.parametrize("trouble", [NoWay("no socket left"), SessionBusy("a request of ours"), Transient("not yet")])
async def test_what_keeps_us_from_asking_is_no_silence_of_a_miner_cut_off(
    trouble: Transient, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = Switch(on=False)
    device = Device(NOBODY, "cgminer", SystemClock(), miner_id=ANTMINER_ID, deadlines=SHORT)
    inner = Unheard(device, ANTMINER_ID)
    inner.trouble = trouble
    control = OutletControl(inner, device, ANTMINER_ID, switch, goes_off_s=0.1)
    for asked in (control.observe, control.identity):
        with pytest.raises(type(trouble)):
            await asked()

    async def unheard() -> str:
        raise trouble

    monkeypatch.setattr(device, "identity", unheard)
    with pytest.raises(type(trouble)):
        await control.stop()
    assert switch.told == []


async def test_a_start_needs_nobody_to_answer() -> None:
    switch = Switch(on=False)
    await behind(NOBODY, switch).start()
    assert switch.told == [True]


async def keep_nothing(former: str) -> None:
    """Keep no former configuration."""


async def test_a_start_waits_for_no_state_of_its_switch_and_goes_on_to_the_firmware() -> None:
    switch = Switch(on=False)
    switch.blind = True
    device = Device(NOBODY, "luxos", SystemClock(), miner_id=ANTMINER_ID, deadlines=SHORT)
    inner = Told(device, ANTMINER_ID)
    await OutletControl(inner, device, ANTMINER_ID, switch).start()
    assert (switch.told, inner.started) == ([True], 1)


async def test_a_switch_that_cannot_be_told_keeps_no_firmware_from_being_started() -> None:
    switch = Switch()
    switch.blind = switch.deaf = True
    device = Device(NOBODY, "luxos", SystemClock(), miner_id=ANTMINER_ID, deadlines=SHORT)
    inner = Told(device, ANTMINER_ID)
    await OutletControl(inner, device, ANTMINER_ID, switch).start()
    assert inner.started == 1
    with pytest.raises(TimedOut, match="the PDU"):
        await behind(NOBODY, switch).start()
    with pytest.raises(TimedOut, match="the PDU"):
        await behind(NOBODY, switch, dialect="luxos").start()


async def test_an_order_to_start_gives_power_to_a_firmware_with_a_start_of_its_own() -> None:
    switch = Switch(on=False)
    with pytest.raises(Transient):  # it boots first; whoever ordered it tries again
        await behind(NOBODY, switch, dialect="luxos").carry_out(Wanted(Verb.START), keep_nothing)
    assert switch.told == [True]


async def test_a_switch_that_stays_off_has_started_nobody() -> None:
    switch = Switch(on=False)
    switch.stuck = True
    result = await behind(NOBODY, switch).carry_out(Wanted(Verb.START), keep_nothing, deadline_s=0.1)
    assert (result.outcome, result.reason) == (Outcome.UNVERIFIED, "unreachable")


async def test_a_miner_that_runs_is_started_whatever_its_switch_says() -> None:
    switch = Switch()
    switch.blind = switch.deaf = True
    async with serving(miner().speak) as address:
        result = await behind(address, switch).carry_out(Wanted(Verb.START), keep_nothing, deadline_s=1)
    assert (result.outcome, result.reason) == (Outcome.COMPLETE, "outlet_on")


async def test_a_silent_miner_behind_an_open_switch_is_idle_because_it_was_told_to() -> None:
    seen = await behind(NOBODY, Switch(on=False)).observe()
    assert (seen.state, seen.reason, seen.power_w) == (MinerState.IDLE, Reason.COMMANDED, 5.0)


async def test_a_silent_miner_whose_switch_refuses_is_silent_and_not_garbled() -> None:
    switch = Switch()

    async def refused() -> bool:
        raise UnsupportedDevice("exception 2")

    switch.is_on = refused  # type: ignore[method-assign]
    for look in (behind(NOBODY, switch).observe, behind(NOBODY, switch).identity):
        with pytest.raises(Unreachable):
            await look()


@pytest.mark.parametrize("blind", [True, False])
async def test_a_silent_miner_behind_a_closed_or_blind_switch_is_unknown(blind: bool) -> None:
    switch = Switch(on=not blind)
    switch.blind = blind
    with pytest.raises(Transient):
        await behind(NOBODY, switch).observe()


async def test_a_firmwares_own_stop_goes_before_its_switch() -> None:
    switch = Switch()
    control = behind(NOBODY, switch, dialect="luxos")
    with pytest.raises(Transient):
        await control.stop()
    assert switch.told == []


@pytest.mark.parametrize(("verb", "reason"), [(Verb.STOP, "outlet_off"), (Verb.START, "outlet_on")])
async def test_an_order_is_carried_out_to_what_the_switch_and_the_miner_show(verb: Verb, reason: str) -> None:
    switch = Switch(on=verb is Verb.STOP)
    kept: list[str] = []

    async def keep(former: str) -> None:
        kept.append(former)

    async with serving(miner().speak) as address:
        control = behind(address, switch)
        if verb is Verb.STOP:
            original = switch.switch

            async def switch_off(*, on: bool) -> None:
                await original(on=on)
                control._device.address = NOBODY  # without power it answers no more

            switch.switch = switch_off
        result = await control.carry_out(Wanted(verb), keep, deadline_s=5)
    assert (result.outcome, result.reason, kept) == (Outcome.COMPLETE, reason, [""])


async def test_a_stop_whose_switch_never_opens_is_unverified() -> None:
    switch = Switch()
    switch.stuck = True
    async with serving(miner().speak) as address:
        result = await behind(address, switch).carry_out(Wanted(Verb.STOP), keep_nothing, deadline_s=0.1)
    assert (result.outcome, result.reason, switch.told) == (Outcome.UNVERIFIED, "still_hashing", [False])


async def test_a_switch_that_feeds_another_gives_it_its_power_back_and_is_not_used_again() -> None:
    switch = Switch()
    async with serving(miner().speak) as address:
        control = behind(address, switch)
        for _ in range(2):
            with pytest.raises(
                Refused, match="that switch does not feed this miner, or is welded; it is on again"
            ) as caught:
                await control.stop()
            assert caught.value.code == "wrong_outlet"
    assert switch.told == [False, True]


async def test_a_switch_that_feeds_another_and_cannot_be_put_back_says_so() -> None:
    switch = Switch()
    original = switch.switch

    async def then_deaf(*, on: bool) -> None:
        await original(on=on)
        switch.deaf = True

    switch.switch = then_deaf
    async with serving(miner().speak) as address:
        with pytest.raises(Refused, match="could NOT be switched on again"):
            await behind(address, switch).stop()


def nameless() -> FakeMiner:
    return FakeMiner(
        {
            "summary": made.answer(11, "SUMMARY", {"Elapsed": 100, "GHS 5s": 14000.0, "GHS av": 14000.0}),
            "version": made.answer(22, "VERSION", {"CGMiner": "4.10.0", "API": "3.7"}),
        }
    )


async def test_a_nameless_miner_keeps_its_power_until_a_person_vouches_for_the_wiring() -> None:
    switch = Switch()
    async with serving(nameless().speak) as address:
        with pytest.raises(Refused, match="add &wiring=checked to its outlet") as caught:
            await behind(address, switch).stop()
        assert (caught.value.code, switch.told) == ("wiring_unchecked", [])
        control = behind(address, switch, wiring_checked=True)
        assert await control.identity() == ANTMINER_ID
        switch.stuck = True
        await control.stop()
    assert switch.told == [False]


async def test_a_miner_that_names_itself_another_keeps_its_power_whoever_vouches() -> None:
    switch = Switch()
    async with serving(miner().speak) as address:
        with pytest.raises(WrongDevice):
            await behind(address, switch, "81abcdef0123481d", wiring_checked=True).stop()
    assert switch.told == []


@pytest.mark.parametrize("on", [True, False])
async def test_a_silent_miner_is_known_by_its_switch_only_while_that_reads_off(on: bool) -> None:
    control = behind(NOBODY, Switch(on=on))
    if not on:
        assert await control.identity() == ANTMINER_ID
        return
    with pytest.raises(Transient):
        await control.identity()


async def test_telemetry_says_of_a_miner_without_power_what_its_orders_say() -> None:
    clock = SystemClock()
    poller = Poller(
        {ANTMINER_ID: behind(NOBODY, Switch(on=False))}, clock, random.Random(1), lambda _: None,
        interval_s=60, concurrency=1, deadline_s=3, precedence=Precedence(clock),
    )  # fmt: skip
    reading = await poller.poll(ANTMINER_ID)
    assert (reading.state, reading.reason, reading.power_w) == (MinerState.IDLE, Reason.COMMANDED, 5.0)
