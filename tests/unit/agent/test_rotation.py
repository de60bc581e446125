"""A rotated password is never lost, whatever the miner answers and wherever the process dies."""

import asyncio
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from agent.cgminer.client import Address
from agent.cgminer.control.driver import ReadBack, Result, Shown, Wanted
from agent.cgminer.control.former import HeldInMemory
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.cgminer.observation import Observation
from agent.errors import AccessDenied, BadInput, Permanent, Unreachable
from agent.files import alone_with
from agent.vault import Vault
from agent.vault.rotation import VaultControl, new_password
from sitelink.clock import SystemClock
from sitelink.types import Evidence, Outcome, Reason, Verb
from sitelink.units import Watts
from tests.unit.agent.test_vault import MINER, SECRET, opened, with_vault

pytestmark = pytest.mark.agent


class Page(Device):
    """A miner whose page opens to one password."""

    def __init__(self, vault: Vault) -> None:
        super().__init__(Address("127.0.0.1"), "antminer", SystemClock(), credentials=vault.credentials(MINER))
        self.password = SECRET.password
        self.silent = False
        self.shows_itself_as = "antminer"

    @property
    def dialect(self) -> str:
        return self.shows_itself_as

    def open(self) -> None:
        if self.silent:
            raise Unreachable("no connection")
        if self.credentials is None or self.credentials.password != self.password:
            raise AccessDenied("wrong password")

    async def identity(self) -> str:
        self.shows_itself_as = "antminer"
        self.open()
        return MINER.miner_id

    async def observe(self) -> Observation:
        return Observation("antminer")


class Driver:
    """Changes the page's password; ``answer`` is what becomes of the acknowledgement."""

    verbs = frozenset({Verb.PASSWORD})

    def __init__(self, page: Page) -> None:
        self.page = page
        self.sent: list[str] = []
        self.takes, self.shown, self.dies = True, True, False

    async def former(self, device: Device, wanted: Wanted) -> str:
        return ""

    async def send(self, device: Device, wanted: Wanted, former: str) -> bytes:
        self.page.open()
        self.sent.append(wanted.secret)
        if not self.takes:
            raise AccessDenied("writing is not enabled")
        if wanted.verb is Verb.PASSWORD:
            self.page.password = wanted.secret
        if self.dies:
            raise KeyboardInterrupt
        return b""

    async def shows(self, device: Device, wanted: Wanted, before: Observation) -> ReadBack:
        done = self.shown and self.page.password == wanted.secret
        if done:
            device.credentials = Credentials("root", wanted.secret)
        return ReadBack(Shown.DONE if done else Shown.NOT_YET, Evidence.DEVICE_STATE, "password")


def control(vault: Vault, page: Page, driver: Driver) -> VaultControl:
    return VaultControl(MINER, page, HeldInMemory(), lambda dialect: driver, vault)


async def keep(former: str) -> None:
    return None


async def rotate(made: VaultControl) -> Result:
    return await made.carry_out(Wanted(Verb.PASSWORD), keep, deadline_s=0.0)


async def test_the_new_password_counts_once_the_miner_has_shown_it(tmp_path: Path) -> None:
    vault = with_vault(tmp_path)
    page = Page(vault)
    result = await rotate(control(vault, page, Driver(page)))
    assert result.outcome is Outcome.COMPLETE
    kept = opened(tmp_path).credentials(MINER)
    assert kept == Credentials("root", page.password)
    assert kept != SECRET
    assert not opened(tmp_path).unsettled


async def test_the_vault_is_written_beside_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = with_vault(tmp_path)
    page = Page(vault)
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(threading.current_thread() is threading.main_thread()))
    assert (await rotate(control(vault, page, Driver(page)))).outcome is Outcome.COMPLETE
    assert set(synced) == {False}


async def test_it_is_on_disk_before_it_is_sent_and_stays_there_when_the_process_dies(tmp_path: Path) -> None:
    vault = with_vault(tmp_path)
    page = Page(vault)
    driver = Driver(page)
    driver.dies = True
    with pytest.raises(KeyboardInterrupt):
        await rotate(control(vault, page, driver))
    after = opened(tmp_path)
    assert after.credentials(MINER) == SECRET
    assert after.proposed(MINER) == Credentials("root", page.password)
    again = Page(after)
    again.password = page.password
    driver = Driver(again)
    result = await rotate(control(after, again, driver))
    assert result.outcome is Outcome.COMPLETE
    assert set(driver.sent) <= {page.password}, "no third password is made"
    assert opened(tmp_path).credentials(MINER) == Credentials("root", page.password)


async def test_one_that_is_refused_leaves_the_former_and_forgets_neither(tmp_path: Path) -> None:
    vault = with_vault(tmp_path)
    page = Page(vault)
    driver = Driver(page)
    driver.takes = False
    made = control(vault, page, driver)
    assert (await rotate(made)).outcome is Outcome.REFUSED
    assert opened(tmp_path).credentials(MINER) == SECRET
    assert opened(tmp_path).unsettled == {MINER.miner_id}, "it may have been taken by a sending whose answer was lost"
    driver.takes = True
    assert (await rotate(made)).outcome is Outcome.COMPLETE
    assert len(set(driver.sent)) == 1


async def test_one_that_the_firmware_cannot_be_told_is_forgotten(tmp_path: Path) -> None:
    vault = with_vault(tmp_path)
    page = Page(vault)
    driver = Driver(page)
    driver.verbs = frozenset()
    assert (await rotate(control(vault, page, driver))).reason == "unsupported"
    assert not opened(tmp_path).unsettled


async def test_one_that_could_not_be_sent_leaves_the_former(tmp_path: Path) -> None:
    vault = with_vault(tmp_path)
    page = Page(vault)
    page.silent = True
    with pytest.raises(Unreachable):
        await rotate(control(vault, page, Driver(page)))
    assert not opened(tmp_path).unsettled


async def test_while_nothing_is_proven_both_are_kept_and_a_silence_later_forgets_neither(tmp_path: Path) -> None:
    vault = with_vault(tmp_path)
    page = Page(vault)
    driver = Driver(page)
    driver.shown = False
    made = control(vault, page, driver)
    assert (await rotate(made)).outcome is Outcome.UNVERIFIED
    assert opened(tmp_path).unsettled == {MINER.miner_id}
    page.silent = True
    with pytest.raises(Unreachable):
        await rotate(made)
    assert opened(tmp_path).proposed(MINER) == Credentials("root", page.password)
    page.silent, driver.shown = False, True
    assert (await rotate(made)).outcome is Outcome.COMPLETE
    assert opened(tmp_path).credentials(MINER) == Credentials("root", page.password)


async def test_a_miner_whose_password_nobody_knows_is_not_given_another(tmp_path: Path) -> None:
    vault = opened(tmp_path)
    page = Page(vault)
    driver = Driver(page)
    with pytest.raises(Permanent, match="its present password is not known here"):
        await rotate(control(vault, page, driver))
    assert driver.sent == []


async def test_a_vault_that_cannot_keep_it_lets_nothing_be_sent(tmp_path: Path) -> None:
    vault = with_vault(tmp_path)
    page = Page(vault)
    driver = Driver(page)
    vault.path.write_bytes(b"{")
    with pytest.raises(Permanent, match=r"its new password cannot be kept: .* is no vault"):
        await rotate(control(vault, page, driver))
    assert driver.sent == []


async def test_a_firmware_found_out_is_opened_by_its_group(tmp_path: Path) -> None:
    vault = with_vault(tmp_path)
    page = Page(vault)
    page.credentials = None
    entry = replace(MINER, dialect="auto")
    driver = Driver(page)
    driver.verbs = frozenset({Verb.STOP})
    page.shows_itself_as = "auto"
    made = VaultControl(entry, page, HeldInMemory(), lambda dialect: None if dialect == "auto" else driver, vault)
    await made.stop()
    assert page.credentials == SECRET


@pytest.mark.parametrize(("dialect", "length"), [("whatsminer", 8), ("vnish", 20)])
def test_a_made_password_is_as_the_firmware_takes_it_and_no_two_are_alike(dialect: str, length: int) -> None:
    made = {new_password(dialect) for _ in range(200)}
    assert len(made) == 200
    assert all(len(each) == length and each.isalnum() and each.isascii() for each in made)
    assert len(set("".join(made))) > 50


async def test_a_vault_that_another_process_holds_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    vault = with_vault(tmp_path)
    page = Page(vault)
    driver = Driver(page)
    made = control(vault, page, driver)
    held = alone_with(vault.path)

    async def lets_go(former: str) -> None:
        held.__enter__()
        asyncio.get_running_loop().call_later(0.15, held.__exit__, None, None, None)

    result = await made.carry_out(Wanted(Verb.PASSWORD), lets_go, deadline_s=0.0)
    assert result.outcome is Outcome.COMPLETE
    assert opened(tmp_path).credentials(MINER) == Credentials("root", page.password)


async def test_a_password_taken_that_cannot_be_settled_is_still_on_disk_and_the_order_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    vault = with_vault(tmp_path)
    page = Page(vault)
    made = control(vault, page, Driver(page))

    def full(miner_id: str, *, taken: bool) -> None:
        raise BadInput("cannot be written: No space left on device")

    monkeypatch.setattr(vault, "settle", full)
    assert (await rotate(made)).outcome is Outcome.COMPLETE
    assert opened(tmp_path).proposed(MINER) == Credentials("root", page.password)
    assert "stays unsettled: cannot be written" in caplog.text
    assert page.password not in caplog.text


async def _unsettled(folder: Path) -> tuple[Vault, Page, Driver]:
    """A miner that has taken a new password which nobody could read back, and an agent that came up since."""
    vault = with_vault(folder)
    page = Page(vault)
    driver = Driver(page)
    driver.shown = False
    assert (await rotate(control(vault, page, driver))).outcome is Outcome.UNVERIFIED
    after = opened(folder)
    again = Page(after)
    again.password = page.password
    driver = Driver(again)
    driver.verbs = frozenset({Verb.PASSWORD, Verb.STOP, Verb.START, Verb.BLINK})
    return after, again, driver


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.START])
async def test_a_stop_and_a_start_wait_for_no_rotation(tmp_path: Path, verb: Verb) -> None:
    vault, page, driver = await _unsettled(tmp_path)
    made = control(vault, page, driver)
    await (made.stop() if verb is Verb.STOP else made.start())
    assert driver.sent == [""], "told, once"
    assert await made.identity() == MINER.miner_id
    assert opened(tmp_path).unsettled == {MINER.miner_id}, "only its own read-back settles a rotation"


async def test_any_other_order_is_opened_by_either_too(tmp_path: Path) -> None:
    vault, page, driver = await _unsettled(tmp_path)
    driver.verbs = frozenset({Verb.BLINK})
    result = await control(vault, page, driver).carry_out(Wanted(Verb.BLINK, {"on": "true"}), keep, deadline_s=0.1)
    assert result.reason != "access_denied"
    assert driver.sent == [""]


async def test_a_miner_that_has_neither_is_denied_as_ever_and_the_former_is_tried_first_again(tmp_path: Path) -> None:
    vault, page, driver = await _unsettled(tmp_path)
    page.password = "a third"
    made = control(vault, page, driver)
    with pytest.raises(AccessDenied):
        await made.stop()
    assert page.credentials == SECRET
    assert driver.sent == []


async def test_a_page_that_opens_to_the_new_one_is_read_with_it(tmp_path: Path) -> None:
    vault, page, driver = await _unsettled(tmp_path)

    async def observe(**_: object) -> Observation:
        denied = page.credentials is None or page.credentials.password != page.password
        return Observation("antminer", reason=Reason.ACCESS_DENIED if denied else Reason.NONE)

    page.observe = observe
    made = control(vault, page, driver)
    assert (await made.observe()).reason is Reason.NONE
    assert (await made.glance(Watts(100.0))).reason is Reason.NONE
    page.password = "a third"
    used = page.credentials
    assert (await made.observe()).reason is Reason.ACCESS_DENIED
    assert page.credentials == used
