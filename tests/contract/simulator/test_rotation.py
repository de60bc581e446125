"""A password made at the site is taken by every firmware that documents how to change it, and the vault knows it."""

from pathlib import Path

import pytest

from agent.cgminer.control import HeldInMemory, Wanted
from agent.cgminer.control.drivers import driver_of
from agent.cgminer.credentials import Credentials
from agent.inventory import load_inventory
from agent.settings import load_settings
from agent.vault import Vault
from agent.vault.rotation import VaultControl
from sitelink.clock import SystemClock
from sitelink.types import Outcome, Verb
from tests.contract.simulator.test_families import device_of
from tests.contract.simulator.world import miner_of, site

ROTATES = ("antminer", "avalon", "braiins", "braiins-rest", "vnish", "whatsminer", "whatsminer-v3")


async def keep(former: str) -> None:
    return None


@pytest.mark.parametrize("dialect", ROTATES)
async def test_the_vault_and_the_miner_have_the_same_new_password(dialect: str, tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text('[site]\nsite_id = "test-1"\n')
    settings = load_settings(tmp_path / "agent.toml", {})
    async with site(2, dialects=(dialect,), clock=SystemClock(), out=tmp_path) as opened:
        miner = miner_of(opened, dialect)
        entry = next(
            each for each in load_inventory(tmp_path / "inventory.csv") if each.miner_id == miner.place.miner_id
        )
        former = Credentials(miner.kept.user, miner.kept.password)
        vault = Vault.open(settings)
        vault.put(dialect, former)
        device = device_of(miner, entry.miner_id)
        made = VaultControl(entry, device, HeldInMemory(), driver_of, vault)
        result = await made.carry_out(Wanted(Verb.PASSWORD), keep, deadline_s=20)
        assert result.outcome is Outcome.COMPLETE, (result.reason, result.detail)
        kept = Vault.open(settings).credentials(entry)
        assert kept is not None
        assert kept.password == miner.kept.password
        assert kept != former
        assert not Vault.open(settings).unsettled
        again = await made.carry_out(Wanted(Verb.PASSWORD), keep, deadline_s=20)
        assert again.outcome is Outcome.COMPLETE, (again.reason, again.detail)
        assert Vault.open(settings).credentials(entry).password == miner.kept.password != kept.password
