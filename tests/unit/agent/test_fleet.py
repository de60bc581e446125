"""Cloud and site agree on which miners can be switched."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.cgminer.control import controllable_dialects
from agent.fleet import Fleet, switchable
from agent.settings import load_settings
from agent.vault import Vault
from sitelink.clock import ManualClock
from sitelink.inventory import CONTROLLABLE, DIALECTS, MinerEntry

pytestmark = pytest.mark.agent

ENTRY = MinerEntry("m", "10.0.0.9", 4028, "luxos", "", "F", "R", 1, None, None)


def test_what_the_inventory_calls_controllable_is_what_the_drivers_can_switch() -> None:
    assert set(controllable_dialects()) == CONTROLLABLE


def test_an_outlet_makes_any_miner_switchable() -> None:
    for dialect in DIALECTS:
        entry = replace(ENTRY, dialect=dialect)
        assert switchable(entry) == (dialect in CONTROLLABLE or dialect == "auto")
        assert switchable(replace(entry, outlet="modbus://10.0.0.9/1?coil=3"))


def test_an_outlet_that_cannot_be_used_costs_itself_alone(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text('[site]\nsite_id = "pecos-1"\n')
    settings = load_settings(tmp_path / "agent.toml", {})
    fleet = Fleet(settings, ManualClock(datetime(2026, 6, 1, tzinfo=UTC)), Vault.open(settings))
    cells = ("modbus://h/1?coil=1", "modbus://h/1?coil=70000", "http://h/1?pdu=nobodys", "")
    listed = [replace(ENTRY, miner_id=f"m{place}", outlet=cell) for place, cell in enumerate(cells)]
    told: list[str] = []
    entries, outlets = fleet.outlets(listed, told.append)
    assert [entry.outlet for entry in entries] == [cells[0], "", "", ""]
    assert outlets.keys() == {"m0"}
    assert [line.partition(":")[0] for line in told] == ["m1", "m2"]
    assert "'70000' is not between" in told[0]
    assert "'nobodys' is not known" in told[1]
