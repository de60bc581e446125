"""What drivers read before and after an order, in real devices' own replies."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent.cgminer.client import Address
from agent.cgminer.control import antminer, braiins_rest, vnish
from agent.cgminer.control.web_answers import exactly, written
from agent.cgminer.device import Device
from agent.cgminer.sections import dig
from agent.cgminer.web import WebReply
from agent.errors import Refused
from sitelink.clock import SystemClock
from sitelink.units import Watts

pytestmark = pytest.mark.agent

DEVICE = Device(Address("127.0.0.1", 9), "vnish", SystemClock())


def body(captures: Path, name: str) -> bytes:
    return (captures / name).read_bytes()


def document(captures: Path, name: str) -> Any:
    return json.loads(body(captures, name))


CONF = "cgi-bin-get-miner-conf.cgi.json"


@pytest.mark.parametrize(
    ("name", "sleeps", "modes"),
    [
        (f"antminer-stock_s19-sleeping_{CONF}", True, {"bitmain-work-mode": "1"}),
        (f"antminer-stock_s19-overheating_{CONF}", False, {"bitmain-work-mode": "0"}),
        ("antminer-stock_proto-fleet-s-series_web-get-miner-conf.json", False, {"bitmain-work-mode": "0"}),
        ("antminer-stock_s9-se-old-web_get-miner-conf.json", False, {}),
    ],
)
def test_an_overheated_antminer_is_told_from_a_sleeping_one(
    captures: Path, name: str, sleeps: bool, modes: dict[str, Any]
) -> None:
    conf = exactly(DEVICE, WebReply(200, {}, body(captures, name)), "configuration")
    assert (antminer._sleeps(conf), antminer._modes_in(conf)) == (sleeps, modes)
    assert json.loads(written(conf)) == document(captures, name)


def test_no_untuned_preset_of_a_real_vnish_is_chosen(captures: Path) -> None:
    presets = document(captures, "vnish_s21-pro_web-autotune-presets.json")
    with pytest.raises(Refused, match="2800 is not tuned"):
        vnish._preset_for(DEVICE, presets, Watts(2800.0))
    with pytest.raises(Refused, match="no tuned preset of 2801 W or less; it has none that is tuned"):
        vnish._preset_for(DEVICE, presets, Watts(2801.0))
    for preset in presets[2:4]:
        preset["status"] = "tuned"
    assert vnish._preset_for(DEVICE, presets, Watts(9999.0)) == "2710"
    assert vnish._preset_for(DEVICE, presets, Watts(2640.0)) == "2640"


def test_a_real_vnish_has_its_settings_where_they_are_changed(captures: Path) -> None:
    settings = exactly(DEVICE, WebReply(200, {}, body(captures, "vnish_s21-pro_web-settings.json")), "settings")
    overclock = vnish._overclock(DEVICE, settings)
    assert overclock["preset"] == "3160"
    capped = vnish._capped(overclock["preset_switcher"], "2550")
    assert (capped["top_preset"], capped["min_preset"], capped["rise_temp"]) == ("2550", "2550", 55)


@pytest.mark.parametrize(("version", "watts"), [("25-07", 3031), ("26-04", 3500)])
def test_a_real_braiins_shows_its_target_pools_and_status_where_they_are_read(
    captures: Path, version: str, watts: int
) -> None:
    start = f"braiins_bos-v{version}"
    assert dig(document(captures, f"{start}_performance-tuner-state.json"), braiins_rest.TARGET_W.split(".")) == watts
    assert document(captures, f"{start}_miner-details.json")["status"] not in (
        braiins_rest.NOT_STARTED,
        braiins_rest.PAUSED,
    )
    groups = document(captures, f"{start}_pools.json")
    assert not braiins_rest._has_pools(groups, ())
    assert [pool["user"] for pool in dig(groups, ("0", "pools"))] == ["asic_rs.test"] * 2


def test_a_real_braiins_names_its_power_target_in_graphql(captures: Path) -> None:
    for version, watts in (("21-09", 900), ("25-03", 3878)):
        data = document(captures, f"braiins_bos-v{version}_gql-tuning.json")["data"]
        tuning = dig(data, ("bosminer", "config", "autotuning"))
        assert (tuning["mode"], tuning["powerTarget"]) == ("POWER_TARGET", watts)
