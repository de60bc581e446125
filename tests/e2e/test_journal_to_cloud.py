"""A site's journal on its way: to the real control plane and its command, and again to a cloud that was restored."""

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.settings import load_settings
from simulator.roster import RosterOptions
from simulator.site import SimulatedSite, SiteOptions
from sitelink.clock import SystemClock
from tests.bench.served import running
from tests.contract.simulator.world import free_port
from tests.e2e.cut import net_of
from tests.e2e.outside import buffer_faults, journal_faults
from tests.e2e.test_agent_process import Stage, complete, stage, until

__all__ = ["stage"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
SITE = "told-1"


async def tool(*arguments: str) -> tuple[int, str]:
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await command.communicate()
    assert command.returncode is not None
    return command.returncode, said.decode()


async def ballast(config: Path, *arguments: str, code: int = 0) -> str:
    found, said = await tool("cloud", *arguments, "--config", str(config))
    assert found == code, said
    return said


async def until_told(config: Path, condition: Callable[[str], object]) -> str:
    async with asyncio.timeout(60):
        while not condition(said := await ballast(config, "journal", SITE, "--last", "500")):
            await asyncio.sleep(0.2)
    return said


@pytest.mark.postgres
async def test_what_was_done_at_the_site_is_shown_and_verified_at_the_cloud(tmp_path: Path) -> None:
    net = net_of(15)
    roster = RosterOptions(SITE, 4, 3, net=net, port=free_port(), dialects=("luxos",))
    here = tmp_path / "site"
    here.mkdir()
    with running(tmp_path) as (config, _):
        async with SimulatedSite(SiteOptions(roster, out=here, meters_port=0, time_scale=4.0), SystemClock()) as site:
            await ballast(config, "site", "create", SITE)
            await ballast(config, "site", "import", SITE, str(here / "inventory.csv"), str(here / "meters.csv"))
            token = (await ballast(config, "site", "token", SITE)).strip().splitlines()[-1]
            listens = dict(line.split(" = ") for line in config.read_text().splitlines())
            agent = here / "agent.toml"
            agent.write_text(
                f'[site]\nsite_id = "{SITE}"\n[link]\nendpoint = {listens["link_listen"]}\n'
                f"enrol_endpoint = {listens['enrol_listen']}\nheartbeat_s = 1\n"
            )
            found, said = await tool("agent", "enrol", "--config", str(agent), "--token", token)
            assert found == 0, said
            await play(config, agent, site)
            state = load_settings(agent, {}).site.state_dir
            code, said = await tool("agent", "journal", "--verify", "--json", "--config", str(agent))
            kept = json.loads(said)
            assert (code, kept["whole"]) == (0, True)
            (stored,) = json.loads(await ballast(config, "journal", SITE, "--verify", "--json"))["chains"]
            assert (stored["whole"], stored["chain"], stored["first_seq"]) == (True, kept["chain"], 1)
            assert stored["through_seq"] >= kept["seq"] - 2, "what the end itself wrote may wait for the next start"
            assert f"{net}." not in await ballast(config, "journal", SITE, "--last", "500"), (
                "no address leaves the site"
            )
            assert (state / "agent.db").exists()


async def play(config: Path, agent: Path, site: SimulatedSite) -> None:
    """Stop a miner by hand, kill the daemon, release without one, and let the next daemon tell it all."""
    name = next(iter(site.miners))
    first = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", "run", "--config", str(agent)), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await until_told(config, lambda said: "agent_started" in said)
        await tool("agent", "failsafe", "off", "--miner", name, "--for", "1h", "--config", str(agent))
        first.send_signal(signal.SIGKILL)
        await first.wait()
        await tool("agent", "failsafe", "release", "--config", str(agent))
    finally:
        if first.returncode is None:
            first.kill()
            await first.wait()
    second = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", "run", "--config", str(agent)), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        said = await until_told(
            config, lambda said: said.count("agent_started") == 2 and "curtailment_restored" in said
        )
    finally:
        second.send_signal(signal.SIGTERM)
        await second.wait()
    for wanted in ("chain_began", "override_set", "stop_intent", "the device said ok", "outcome", "released: "):
        assert wanted in said, wanted


async def test_a_cloud_restored_from_a_backup_has_the_whole_journal_again(stage: Stage) -> None:
    await stage.start()
    await until(lambda: complete(stage))
    await stage.tool("failsafe", "off", "--all", "--for", "1h", "--config", str(stage.config))
    await until(lambda: any(entry.kind == "outcome" for entry in stage.cloud.journal()))
    await stage.tool("failsafe", "release", "--config", str(stage.config))
    await until(lambda: any(entry.kind == "by_hand" and "released" in entry.detail for entry in stage.cloud.journal()))
    before = stage.cloud.journal()
    await stage.end(signal.SIGKILL)
    for key in [key for key in sorted(stage.cloud.stored) if key[1] > 0]:
        del stage.cloud.stored[key]  # the backup had no more than the first batch
    await stage.start()
    await until(lambda: len(stage.cloud.journal()) > len(before))
    assert stage.cloud.journal()[: len(before)] == before
    await stage.end(signal.SIGKILL)
    database = stage.folder / "state" / "agent.db"
    assert journal_faults(database, stage.cloud.journal()) == []
    assert buffer_faults(database, stage.cloud.stored) == []
