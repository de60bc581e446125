"""Cloud and site agree on which miners can be switched."""

from dataclasses import replace

import pytest

from agent.cgminer.control import controllable_dialects
from agent.fleet import switchable
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
