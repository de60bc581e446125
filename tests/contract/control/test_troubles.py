"""Every order of the web firmwares, met by every trouble: what it is called, and that nothing is claimed.

Troubles spoil only the order; the miner goes on reading well, so an order that did not arrive can be told from one that
did. ``carry_out`` resends what was not acknowledged, so nothing here may be COMPLETE, and nothing may be sent twice
that is to be sent once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from agent.cgminer import client
from agent.cgminer.control.antminer import Antminer
from agent.cgminer.control.braiins import Braiins
from agent.cgminer.control.braiins_rest import BraiinsRest
from agent.cgminer.control.driver import Driver
from agent.cgminer.control.vnish import Vnish
from agent.cgminer.credentials import Credentials
from agent.cgminer.web import WebReply
from agent.errors import AccessDenied, AgentError, Unreachable, WrongDevice
from sitelink.types import Outcome, Verb
from sitelink.verbs import ONCE
from tests.contract.control import fake_antminer, fake_braiins, fake_braiins_rest, fake_vnish
from tests.contract.control.world import HASTY, SECRET, SHORT, TROUBLES, FakeFirmware, Wanted, at_work, order, wanted
from tests.contract.fake_web import Asked

pytestmark = pytest.mark.agent


@dataclass(frozen=True)
class Firmware:
    """How one firmware is played."""

    dialect: str
    driver: Callable[[], Driver]
    fake: Callable[[], FakeFirmware]
    miner_id: str
    rpc: frozenset[Verb] = frozenset()
    """Verbs that go over RPC, which web troubles do not meet."""


FIRMWARES = (
    Firmware("antminer", Antminer, fake_antminer.FakeAntminer, fake_antminer.MINER_ID),
    Firmware(
        "braiins",
        Braiins,
        fake_braiins.FakeBraiins,
        fake_braiins.MINER_ID,
        frozenset({Verb.STOP, Verb.START}),
    ),
    Firmware("braiins-rest", BraiinsRest, fake_braiins_rest.FakeBraiinsRest, fake_braiins_rest.MINER_ID),
    Firmware("vnish", Vnish, fake_vnish.FakeVnish, fake_vnish.MINER_ID),
)
CASES = [
    pytest.param(firmware, verb, id=f"{firmware.dialect}-{verb.value}")
    for firmware in FIRMWARES
    for verb in Verb
    if verb in firmware.driver().verbs
]
ON_THE_WEB = [case for case in CASES if case.values[1] not in case.values[0].rpc]
REASONS = {
    "busy": {"session_busy"},
    "denied": {"access_denied"},
    "unknown": {"unsupported"},
    "refused": {"unsupported"},
}
"""What a trouble that the device itself names is called, whatever the order."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow answers get no more patience than readings, so that silence is short."""
    for name in ("_SETTING_TIMES", "_LOG_TIMES", "_IMAGE_TIMES"):
        monkeypatch.setattr(client, name, 1.0)


def asked_for(firmware: Firmware, verb: Verb) -> Wanted:
    limited_by_mode = verb is Verb.LIMIT and firmware.dialect == "antminer"
    return wanted(verb, mode="low") if limited_by_mode else wanted(verb)


def prepared(firmware: Firmware, verb: Verb) -> FakeFirmware:
    """A miner that ``verb`` changes: a start meets a stopped one."""
    miner = firmware.fake()
    if verb is Verb.START:
        miner.stopped = True
        if isinstance(miner, fake_antminer.FakeAntminer):
            miner.conf["bitmain-work-mode"] = "1"
        if isinstance(miner, fake_braiins_rest.FakeBraiinsRest):
            miner.state = 3
        if isinstance(miner, fake_vnish.FakeVnish):
            miner.state = "stopped"
    return miner


@pytest.mark.parametrize(("firmware", "verb"), CASES)
async def test_an_order_that_takes_its_time_is_complete(firmware: Firmware, verb: Verb) -> None:
    miner = prepared(firmware, verb)
    miner.late_looks = 3
    async with at_work(miner, firmware.dialect, firmware.miner_id) as device:
        result, kept = await order(firmware.driver(), device, firmware.miner_id, asked_for(firmware, verb))
    assert (result.outcome, result.detail, len(kept)) == (Outcome.COMPLETE, "", 1)


@pytest.mark.parametrize(("firmware", "verb"), [case for case in CASES if case.values[1] is not Verb.LOGS])
async def test_an_ack_without_effect_is_never_complete(firmware: Firmware, verb: Verb) -> None:
    miner = prepared(firmware, verb)
    miner.effect = False
    async with at_work(miner, firmware.dialect, firmware.miner_id) as device:
        asked = asked_for(firmware, verb)
        result, _ = await order(firmware.driver(), device, firmware.miner_id, asked, deadline_s=0.3)
    assert result.outcome is Outcome.UNVERIFIED
    assert result.reason in {
        "still_hashing",
        "state_unknown",
        "not_in_sleep_mode",
        "still_in_sleep_mode",
        "still_paused",
        "still_stopped",
        "not_hashing",
        "mode_not_in_force",
        "limit_not_in_force",
        "pools_not_in_force",
        "lamp_not_as_wanted",
        "password_not_in_force",
        "uptime_not_reset",
        "version_not_in_force",
    }
    assert len(miner.told) >= 1


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize(("firmware", "verb"), ON_THE_WEB)
async def test_an_order_in_trouble_claims_nothing(firmware: Firmware, verb: Verb, trouble: str) -> None:
    miner = prepared(firmware, verb)
    miner.trouble = TROUBLES[trouble]
    patience = HASTY if trouble in {"black_hole", "drip"} else SHORT
    async with at_work(miner, firmware.dialect, firmware.miner_id, deadlines=patience) as device:
        asked = asked_for(firmware, verb)
        result, _ = await order(firmware.driver(), device, firmware.miner_id, asked, deadline_s=0.1)
    if trouble == "web_page" and verb is Verb.LOGS and firmware.dialect != "braiins":
        return  # a page may be what a log looks like: text is taken as it comes
    assert result.outcome in {Outcome.UNVERIFIED, Outcome.REFUSED}
    assert result.reason in REASONS.get(trouble, {result.reason})
    assert result.outcome is (Outcome.REFUSED if trouble in {"denied", "unknown", "refused"} else Outcome.UNVERIFIED)
    assert miner.told == []
    if verb in ONCE and verb is not Verb.LOGS:
        assert len([one for one in miner.asked if miner.is_order(one)]) <= 2  # once, and once under a fresh login


@pytest.mark.parametrize(("firmware", "verb"), [case for case in ON_THE_WEB if case.values[1] is not Verb.LOGS])
async def test_an_order_that_was_carried_out_but_not_answered_is_complete(firmware: Firmware, verb: Verb) -> None:
    miner = prepared(firmware, verb)

    async def taken_then_hung_up(asked: Asked) -> bytes:
        orders = len(miner.told)
        reply = miner.web(asked)
        if len(miner.told) > orders:
            raise ConnectionResetError
        return reply

    miner.trouble = taken_then_hung_up
    async with at_work(miner, firmware.dialect, firmware.miner_id) as device:
        result, _ = await order(firmware.driver(), device, firmware.miner_id, asked_for(firmware, verb))
    if firmware.dialect in {"braiins", "vnish"} and verb in {Verb.POOLS, Verb.LIMIT}:
        assert result.reason in {"pools_in_force", "power_within_limit", "power_above_limit", "no_reply"}
        return
    assert result.outcome is Outcome.COMPLETE


@pytest.mark.parametrize(("firmware", "verb"), CASES)
async def test_nothing_is_sent_to_a_dead_miner_or_to_another_one(firmware: Firmware, verb: Verb) -> None:
    miner = prepared(firmware, verb)
    asked = asked_for(firmware, verb)
    async with at_work(miner, firmware.dialect, "02:00:00:00:00:99") as device:
        with pytest.raises(WrongDevice):
            await order(firmware.driver(), device, "02:00:00:00:00:99", asked)
    async with at_work(miner, firmware.dialect, firmware.miner_id) as device:
        pass
    with pytest.raises(Unreachable):
        await order(firmware.driver(), device, firmware.miner_id, asked)
    assert miner.told == []


@pytest.mark.parametrize(("firmware", "verb"), [case for case in CASES if case.values[1] not in ONCE])
async def test_an_order_cut_short_before_or_after_it_was_sent_is_carried_out_again(
    firmware: Firmware, verb: Verb
) -> None:
    """Killed between keeping and sending, and between sending and reading back; a new process takes it up."""
    miner = prepared(firmware, verb)
    asked = asked_for(firmware, verb)
    async with at_work(miner, firmware.dialect, firmware.miner_id) as device:
        former = await firmware.driver().former(device, asked)
        await firmware.driver().send(device, asked, former)
        told = list(miner.told)
        try:
            result, _ = await order(firmware.driver(), device, firmware.miner_id, asked, kept=former)
        except AccessDenied:
            assert verb is Verb.PASSWORD
            device.credentials = Credentials(miner.user, SECRET)
            result, _ = await order(firmware.driver(), device, firmware.miner_id, asked, kept=former)
    assert result.outcome is Outcome.COMPLETE
    if verb in {Verb.STOP, Verb.START} and firmware.dialect != "braiins":
        assert len(miner.told) <= len(told) + 1


def test_what_a_server_says_is_shown_on_one_short_line() -> None:
    def reply(body: bytes) -> Any:
        return WebReply(500, {}, body)

    assert reply(b'{"err": "first\\n second"}').spoken == "first second"
    assert reply(b"  <html>").spoken == "a web page"
    assert reply(b"").spoken == "no text"
    assert len(reply(b"x" * 9_999).spoken) == 120
    assert issubclass(WrongDevice, AgentError)
