"""What deploy/ shows works as shown: the very files are read by the code that will read an operator's."""

import configparser
from typing import get_args

from agent.inventory import load_inventory, load_meters
from agent.settings import load_settings as load_agent_settings
from cloud.settings import Settings
from cloud.settings import load_settings as load_cloud_settings
from sitelink.meter_source import MeterSource, ModbusSource


def test_the_agents_example_is_its_defaults(repository):
    shown = load_agent_settings(repository / "deploy/edge/agent.toml", {})
    assert shown.site.site_id == "pecos-1"
    assert {meter.kind for meter in load_meters(shown.site.meters)} == {"site", "feeder"}


def test_the_agents_lists_show_every_form_there_is(repository):
    shown = load_agent_settings(repository / "deploy/edge/agent.toml", {})
    miners, meters = load_inventory(shown.site.inventory), load_meters(shown.site.meters)
    assert {miner.outlet.partition(":")[0] for miner in miners} == {"", "modbus", "http"}
    assert any(miner.credentials for miner in miners)
    assert any(miner.web_port != 80 for miner in miners)
    assert any(miner.nameplate_w is None for miner in miners)
    assert {type(meter.source) for meter in meters} == set(get_args(MeterSource))
    assert any(isinstance(meter.source, ModbusSource) and meter.source.map_name for meter in meters)
    measured = {meter.feeder_id for meter in meters}
    assert {miner.feeder_id for miner in miners} <= measured


def test_values_called_defaults_are_the_defaults(repository, tmp_path):
    (tmp_path / "agent.toml").write_text('[site]\nsite_id = "pecos-1"\n')
    shown = load_agent_settings(repository / "deploy/edge/agent.toml", {})
    plain = load_agent_settings(tmp_path / "agent.toml", {})
    for section in ("poll", "buffer", "control", "limits", "ramp", "fallback"):
        assert getattr(shown, section) == getattr(plain, section)


def test_the_clouds_example_is_its_defaults_where_it_says_so(repository, monkeypatch):
    for name in ("BALLAST_DATA_DIR", "BALLAST_HTTP_LISTEN"):
        monkeypatch.delenv(name, raising=False)
    text = (repository / "deploy/cloud/ballast.toml").read_text()
    changed = {line.split("=")[0].strip() for line in text.splitlines() if "not the default" in line and "=" in line}
    shown = load_cloud_settings(repository / "deploy/cloud/ballast.toml").model_dump()
    plain = Settings().model_dump()
    differing = {name for name, value in shown.items() if value != plain[name]}
    assert differing - {"data_dir"} == changed


def test_each_unit_starts_the_command_of_its_wheel(repository):
    for path, command in (("edge/ballast-agent.service", "ballast-agent run"), ("cloud/ballast.service", "ballast up")):
        unit = configparser.ConfigParser(strict=False, interpolation=None)
        unit.optionxform = str
        unit.read(repository / "deploy" / path)
        assert f"/bin/{command} --config /etc/ballast/" in unit["Service"]["ExecStart"]
