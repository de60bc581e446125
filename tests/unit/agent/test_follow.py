"""A miner that the network has put elsewhere is found by its own name, by the daemon, without anybody being renamed."""

import asyncio
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.cgminer.client import Address
from agent.cgminer.credentials import Credentials
from agent.cgminer.observation import Observation
from agent.discover.shown import Look
from agent.errors import BadInput
from agent.files import alone_with
from agent.follow import BETWEEN_SWEEPS_S, LOST_FOR_S, Follower, ranges_of
from agent.inventory.learned import Learned, path_in
from agent.settings import load_settings
from agent.vault import Vault
from sitelink.inventory import MinerEntry
from sitelink.types import MinerState, Reading, Reason
from tests.unit.agent.test_vault import SECRET, opened

pytestmark = pytest.mark.agent

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
A = MinerEntry("02:00:00:00:00:01", "10.0.0.1", 4028, "antminer", "S19", "F1", "R1", 1, None, None)
B = replace(A, miner_id="02:00:00:00:00:02", host="10.0.0.2", position=2)
HOSTS = tuple(f"10.0.0.{n}" for n in range(1, 10))


@dataclass
class Miner:
    address: Address
    credentials: Credentials | None = None
    dialect: str = "antminer"


class Clock:
    def __init__(self) -> None:
        self.mono_s = 1000.0

    def now(self) -> datetime:
        return NOON

    def monotonic(self) -> float:
        return self.mono_s

    def boot_id(self) -> str:
        return "boot"


@dataclass
class Site:
    """Two miners, what their last readings say, and who answers where when the site is swept."""

    folder: Path
    hosts: tuple[str, ...] = HOSTS
    clock: Clock = field(default_factory=Clock)
    reasons: dict[str, Reason] = field(default_factory=dict)
    there: dict[str, str] = field(default_factory=dict)
    swept: list[Sequence[str]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.devices = {entry.miner_id: Miner(Address(entry.host)) for entry in (A, B)}
        self.vault: Vault = opened(self.folder)
        self.follower = Follower(
            [A, B], self.devices, self.vault, self.folder, self.hosts, self.latest, self.sweep, self.clock, self.mended
        )

    def latest(self, miner_id: str) -> Reading | None:
        reason = self.reasons.get(miner_id)
        if reason is None:
            return None
        state = MinerState.HASHING if reason is Reason.NONE else MinerState.UNKNOWN
        return Reading(miner_id, NOON, state, reason)

    async def mended(self, miner_ids: Sequence[str]) -> None:
        self.told += miner_ids

    async def sweep(self, hosts: Sequence[str]) -> tuple[Look, ...]:
        self.swept.append(hosts)
        return tuple(
            Look(host, 4028, 80, Observation("antminer", mac=name, serial=f"SN{name[-1]}"))
            for host, name in self.there.items()
            if host in hosts
        )

    async def pass_time(self, seconds: float) -> None:
        self.clock.mono_s += seconds
        await self.follower.search()

    def where(self) -> list[str]:
        return [self.devices[entry.miner_id].address.host for entry in (A, B)]


async def lost_for_a_while(site: Site) -> None:
    await site.pass_time(0)
    await site.pass_time(LOST_FOR_S)


@pytest.mark.parametrize("reason", [Reason.UNREACHABLE, Reason.TIMEOUT, Reason.WRONG_DEVICE])
async def test_a_lost_miner_is_found_noted_and_reached_at_its_new_address(tmp_path: Path, reason: Reason) -> None:
    site = Site(tmp_path, reasons={A.miner_id: reason, B.miner_id: Reason.NONE}, there={"10.0.0.7": A.miner_id})
    await site.pass_time(0)
    await site.pass_time(LOST_FOR_S - 1)
    assert site.swept == [], "a reboot is no reason to search"
    await site.pass_time(1)
    assert site.where() == ["10.0.0.7", "10.0.0.2"]
    assert "10.0.0.2" not in site.swept[0], "who is well is left in peace"
    learned = Learned.load(tmp_path)
    assert learned.applied([A, B])[0].host == "10.0.0.7"
    assert learned.names[A.miner_id].serial == "SN1"


async def test_what_others_write_is_taken_up_while_a_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.follow._LOOK_S", 0.01)
    sweeping, over = asyncio.Event(), asyncio.Event()

    class Slow(Site):
        async def sweep(self, hosts: Sequence[str]) -> tuple[Look, ...]:
            sweeping.set()
            await over.wait()
            return await super().sweep(hosts)

    site = Slow(tmp_path, reasons={A.miner_id: Reason.TIMEOUT}, there={"10.0.0.7": A.miner_id})
    await site.follower.search()
    site.clock.mono_s += LOST_FOR_S
    following = asyncio.create_task(site.follower.run())
    try:
        async with asyncio.timeout(5.0):
            await sweeping.wait()
            opened(tmp_path).put("antminer", SECRET)
            Learned().moved(B, "10.0.0.8", NOON).save(tmp_path)  # by hand: inventory follow
            while site.devices[B.miner_id].credentials != SECRET or site.where()[1] != "10.0.0.8":
                await asyncio.sleep(0.01)
            over.set()
            while site.where() != ["10.0.0.7", "10.0.0.8"]:
                await asyncio.sleep(0.01)
    finally:
        following.cancel()
        await asyncio.wait([following])
    assert [entry.host for entry in Learned.load(tmp_path).applied([A, B])] == ["10.0.0.7", "10.0.0.8"]


async def test_two_that_traded_addresses_are_both_found(tmp_path: Path) -> None:
    wrong = dict.fromkeys((A.miner_id, B.miner_id), Reason.WRONG_DEVICE)
    site = Site(tmp_path, reasons=wrong, there={"10.0.0.1": B.miner_id, "10.0.0.2": A.miner_id})
    await lost_for_a_while(site)
    assert site.where() == ["10.0.0.2", "10.0.0.1"]


async def test_nobody_is_moved_who_is_not_lost_or_answers_twice_or_says_no_name_of_ours(tmp_path: Path) -> None:
    site = Site(tmp_path, reasons={A.miner_id: Reason.TIMEOUT})
    site.there = {"10.0.0.7": A.miner_id, "10.0.0.8": A.miner_id, "10.0.0.9": B.miner_id, "10.0.0.6": "02:aa"}
    await lost_for_a_while(site)
    assert len(site.swept) == 1
    assert site.where() == ["10.0.0.1", "10.0.0.2"]
    assert Learned.load(tmp_path).miners == {}


async def test_a_miner_in_trouble_that_answers_is_not_searched_for(tmp_path: Path) -> None:
    site = Site(tmp_path, reasons={A.miner_id: Reason.ACCESS_DENIED, B.miner_id: Reason.GARBLED})
    await lost_for_a_while(site)
    assert site.swept == []


async def test_without_ranges_nothing_is_swept(tmp_path: Path) -> None:
    site = Site(tmp_path, hosts=(), reasons={A.miner_id: Reason.TIMEOUT})
    await lost_for_a_while(site)
    assert site.swept == []


async def test_a_dead_miner_is_searched_for_seldom(tmp_path: Path) -> None:
    site = Site(tmp_path, reasons={A.miner_id: Reason.TIMEOUT})
    await lost_for_a_while(site)
    await site.pass_time(BETWEEN_SWEEPS_S - 1)
    assert len(site.swept) == 1
    await site.pass_time(1)
    assert len(site.swept) == 2


async def test_one_that_came_back_starts_anew(tmp_path: Path) -> None:
    site = Site(tmp_path, reasons={A.miner_id: Reason.TIMEOUT})
    await site.pass_time(0)
    site.reasons[A.miner_id] = Reason.NONE
    await site.pass_time(LOST_FOR_S)
    site.reasons[A.miner_id] = Reason.TIMEOUT
    await site.pass_time(1)
    assert site.swept == []


async def test_a_note_that_cannot_be_written_is_followed_all_the_same(tmp_path: Path) -> None:
    site = Site(tmp_path, reasons={A.miner_id: Reason.TIMEOUT}, there={"10.0.0.7": A.miner_id})
    with alone_with(path_in(tmp_path)):
        await lost_for_a_while(site)
    assert site.where()[0] == "10.0.0.7"


async def test_what_it_notes_is_written_beside_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(threading.current_thread() is threading.main_thread()))
    site = Site(tmp_path, reasons={A.miner_id: Reason.TIMEOUT}, there={"10.0.0.7": A.miner_id})
    await lost_for_a_while(site)
    assert set(synced) == {False}


async def test_what_a_persons_own_sweep_has_noted_is_taken_up(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await site.follower.take_up()
    Learned().moved(B, "10.0.0.5", NOON).save(tmp_path)
    await site.follower.take_up()
    assert site.where() == ["10.0.0.1", "10.0.0.5"]
    path_in(tmp_path).unlink()
    await site.follower.take_up()
    assert site.where() == ["10.0.0.1", "10.0.0.2"]


async def test_a_password_entered_while_the_agent_runs_is_taken_up(tmp_path: Path) -> None:
    site = Site(tmp_path)
    opened(tmp_path).put("antminer", SECRET)
    await site.follower.take_up()
    assert {device.credentials for device in site.devices.values()} == {SECRET}


async def test_a_vault_that_broke_takes_no_password_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    site = Site(tmp_path)
    opened(tmp_path).put("antminer", SECRET)
    await site.follower.take_up()
    site.vault.path.write_bytes(b"{")
    await site.follower.take_up()
    await site.follower.take_up()
    assert {device.credentials for device in site.devices.values()} == {SECRET}
    assert len([record for record in caplog.records if "miners keep the passwords" in record.message]) == 1


def test_ranges_that_are_none_are_named_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('[site]\nsite_id = "pecos-1"\nranges = ["10.0.0.0/22", "10.0.9"]\n')
    with pytest.raises(BadInput, match=r"agent\.toml: \[site\] ranges: '10\.0\.9' is no address"):
        ranges_of(load_settings(path, {}))
