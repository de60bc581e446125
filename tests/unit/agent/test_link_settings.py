"""[link]: transports in order, the broker, a proxy whose password is never shown, further CAs."""

from pathlib import Path

import pytest

from agent.errors import BadInput
from agent.settings import Endpoint, LinkSettings, Proxy, load_settings

pytestmark = pytest.mark.agent

MINIMAL = '[site]\nsite_id = "pecos-1"\n[link]\n'


def link(folder: Path, text: str) -> LinkSettings:
    (folder / "agent.toml").write_text(MINIMAL + text)
    return load_settings(folder / "agent.toml", {}).link


def test_grpc_alone_is_the_default(tmp_path: Path) -> None:
    found = link(tmp_path, "")
    assert found.transports == ("grpc",)
    assert (found.mqtt_endpoint, found.proxy, found.ca_file) == (None, None, None)
    assert found == link(tmp_path, 'transports = []\nmqtt_endpoint = ""\nproxy = ""\nca_file = ""\n')


def test_every_key_is_read(tmp_path: Path) -> None:
    found = link(
        tmp_path,
        'transports = ["mqtt", "grpc"]\nmqtt_endpoint = "broker:8883"\nmqtt_server_name = "broker.example.com"\n'
        'proxy = "http://me:p%40ss@10.0.0.1:3128"\nca_file = "ca.pem"\n',
    )
    assert found.transports == ("mqtt", "grpc")
    assert found.mqtt_endpoint == Endpoint("broker", 8883)
    assert found.mqtt_server_name == "broker.example.com"
    assert found.proxy == Proxy(Endpoint("10.0.0.1", 3128), "me", "p@ss")
    assert found.proxy.url == "http://me:p%40ss@10.0.0.1:3128"
    assert found.ca_file == tmp_path / "ca.pem"


def test_a_proxys_password_is_not_shown(tmp_path: Path) -> None:
    link(tmp_path, 'proxy = "http://me:hush@[::1]:3128"\n')
    settings = load_settings(tmp_path / "agent.toml", {})
    assert "hush" not in repr(settings)
    assert "hush" not in str(settings.redacted())
    assert settings.redacted()["link"]["proxy"] == "proxy [::1]:3128"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('transports = ["pigeon"]\n', r"transports: 'pigeon' is not known; write one or more of grpc, mqtt"),
        ('transports = ["grpc", "grpc"]\n', r"transports: names one twice; name each once"),
        ('transports = ["mqtt"]\n', r"mqtt_endpoint: is missing; write the broker, for example"),
        ('mqtt_endpoint = "broker"\n', r"mqtt_endpoint: 'broker' is not HOST:PORT"),
        ('proxy = "https://me:hush@proxy:3128"\n', r"proxy: is not the address of an HTTP proxy; write http://HOST"),
        ('proxy = "http://me:hush@proxy"\n', r"proxy: is not the address of an HTTP proxy"),
        ('proxy = "http://proxy:3128/x"\n', r"proxy: is not the address of an HTTP proxy"),
        ('proxy = "http://proxy:99999"\n', r"proxy: is not the address of an HTTP proxy"),
    ],
)
def test_bad_settings_are_told_in_one_line_that_quotes_no_secret(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(BadInput, match=told) as complaint:
        link(tmp_path, text)
    assert len(str(complaint.value).splitlines()) == 1
    assert "hush" not in str(complaint.value)
