"""The failsafe without a daemon, against miners of every kind, liars, contactors and feeder meters.

Whoever is called proven off is truly off; whoever is truly off is called so.
"""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.cgminer.credentials import Credentials
from agent.settings import load_settings
from agent.vault import Vault
from simulator.miner import Miner
from simulator.roster import RosterOptions
from simulator.site import SimulatedSite, SiteOptions
from sitelink.clock import SystemClock
from tests.contract.simulator.world import free_port

pytestmark = pytest.mark.slow
NET = f"127.{161 + int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0').removeprefix('gw'))}"
FEEDER_SIZE = 6
DIALECTS = ("luxos", "whatsminer", "avalon", "antminer", "braiins", "goldshell", "hiveon")
BY_OUTLET = {"goldshell", "hiveon"}
_ROW = re.compile(r"^(\S+) .*  (yes|open|NO) +(.+)$")


@dataclass
class Alone:
    """A site whose daemon is dead."""

    site: SimulatedSite
    config: Path

    async def failsafe(self, *arguments: str) -> tuple[int, str, dict[str, tuple[str, str]]]:
        """Run the command; return its code, all it told, and by miner what is proven and by what."""
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "agent", "failsafe", *arguments, "--config", str(self.config)],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(120):
            output, _ = await process.communicate()
        told = output.decode()
        rows = (_ROW.match(line) for line in told.splitlines())
        found = {row[1]: (row[2], row[3]) for row in rows if row is not None and row[1] in self.site.miners}
        assert process.returncode is not None
        return process.returncode, told, found

    def of(self, *dialects: str) -> list[Miner]:
        return [miner for miner in self.site.miners.values() if miner.place.model.dialect in dialects]

    def telling_no_power(self) -> list[Miner]:
        return [miner for miner in self.of("antminer") if miner.place.model.name == "Antminer S19 Pro"]

    def truly_off(self, miner_id: str) -> bool:
        miner = self.site.miners[miner_id]
        return miner.true_power_w(self.site.time.seconds()) < 0.15 * miner.place.model.nameplate_w


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[Alone]:
    roster = RosterOptions(
        site_id="alone-1", miners=24, seed=5, net=NET, port=free_port(), dialects=DIALECTS, feeder_size=FEEDER_SIZE
    )
    options = SiteOptions(roster, out=tmp_path, meters_port=0, time_scale=4.0)
    (tmp_path / "agent.toml").write_text(
        '[site]\nsite_id = "alone-1"\n[control]\ndevice_deadline_s = 10\nwhatsminer_password = "admin"\n'
    )
    vault = Vault.open(load_settings(tmp_path / "agent.toml", {}))
    for group in ("antminer", "braiins", "hiveon"):
        vault.put(group, Credentials("root", "root"))
    async with SimulatedSite(options, SystemClock()) as site:
        yield Alone(site, tmp_path / "agent.toml")


def proven(found: dict[str, tuple[str, str]]) -> set[str]:
    return {name for name, (proof, _) in found.items() if proof == "yes"}


async def test_honest_miners_of_every_kind_are_proven_off_by_their_feeders(alone: Alone) -> None:
    code, told, found = await alone.failsafe("off", "--all")
    assert (code, proven(found)) == (0, set(alone.site.miners)), told
    assert all(alone.truly_off(name) for name in alone.site.miners)
    assert all("its feeder's meter agrees" in what for _, what in found.values()), told
    cut = {miner.place.miner_id for miner in alone.of(*BY_OUTLET)}
    assert {name for name, (_, what) in found.items() if what.startswith("its outlet reads off")} == cut
    code, told, _ = await alone.failsafe("off", "--all")
    assert (code, "going on" in told) == (0, False), told
    _, told, _ = await alone.failsafe("release")
    assert "released: failsafe-" in told
    code, told, _ = await alone.failsafe("off", "--all")
    assert (code, "going on" in told) == (0, False), told


async def test_no_liar_is_proven_however_often_it_is_asked_and_feeders_without_one_are(alone: Alone) -> None:
    places = [miner.place for miner in alone.site.miners.values()]
    first = {place.model.dialect: place.miner_id for place in reversed(places[: 2 * FEEDER_SIZE])}
    first["antminer"] = alone.telling_no_power()[0].place.miner_id
    liars = {
        name: "ack_without_effect" if kind in {*BY_OUTLET, "avalon"} else "reports_idle" for kind, name in first.items()
    }
    for name, lie in liars.items():
        await alone.site.set_fault(name, lie)
    touched = {place.feeder_id for place in places if place.miner_id in liars}
    beside = {place.miner_id for place in places if place.feeder_id not in touched}
    assert len(beside) >= FEEDER_SIZE
    for _ in range(2):
        code, told, found = await alone.failsafe("off", "--all")
        assert (code, proven(found) & liars.keys()) == (1, set()), told
        assert not any(alone.truly_off(name) for name in liars)
        assert beside <= proven(found), told
        assert all(alone.truly_off(name) for name in proven(found)), told
        assert "open" in {found[name][0] for name in liars}, told


@pytest.mark.parametrize("lie", [None, "reports_idle"])
async def test_a_stock_antminer_that_tells_no_power_on_a_feeder_that_runs_on(alone: Alone, lie: str | None) -> None:
    miner = alone.telling_no_power()[0].place.miner_id
    await alone.site.set_fault(miner, lie)
    code, told, found = await alone.failsafe("off", "--miner", miner)
    if lie is None:
        assert (code, found[miner][0]) == (0, "yes"), told
        return
    assert (code, found[miner][0]) == (1, "open"), told
    assert "it reads off, but its feeder draws as before: measure it at the rack" in found[miner][1]
    assert "waiting for the meter of alone-1-F" in told
    assert re.search(r"it still draws about 3\d\d\d W that no miner owns up to", told), told


async def test_without_meters_only_a_figure_of_power_or_a_cut_outlet_proves_a_stop(alone: Alone) -> None:
    (alone.config.parent / "meters.csv").unlink()
    code, told, found = await alone.failsafe("off", "--all")
    assert code == 1, told
    left_open = {name for name, (proof, _) in found.items() if proof == "open"}
    assert {miner.place.miner_id for miner in alone.telling_no_power()} <= left_open, told
    assert {miner.place.miner_id for miner in alone.of("luxos", "avalon", *BY_OUTLET)} <= proven(found), told
