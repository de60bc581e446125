"""Every transport through an HTTP proxy that does CONNECT, and with a CA of the site's own; both by a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from agent.errors import AccessDenied, AgentError, TimedOut, Transient, Unreachable
from agent.settings import Endpoint, Proxy
from agent.uplink import Uplink
from sitelink.types import Receipt, Welcome
from tests.contract.ends import HELLO, Ends, agent_tls, ends_of, grpc_uplink, mqtt_uplink
from tests.contract.pki import Authority
from tests.contract.test_uplink import batch
from tests.contract.wire import HttpProxy

pytestmark = pytest.mark.agent

REAL = ("grpc", "mqtt")


@dataclass
class Behind:
    """A transport whose cloud is reached through a proxy alone."""

    kind: str
    ends: Ends
    proxy: HttpProxy
    authority: Authority

    @property
    def port(self) -> int:
        return self.ends.far.port if self.ends.broker is None else self.ends.broker.port

    def uplink(self, user: str = "", password: str = "", deadline_s: float = 3.0) -> Uplink:
        way = Proxy(Endpoint("127.0.0.1", self.proxy.port), user, password)
        tls = agent_tls(self.authority)
        if self.kind == "grpc":
            return grpc_uplink(self.port, tls, proxy=way, deadline_s=deadline_s)
        return mqtt_uplink(self.port, tls, proxy=way, key=self.ends.far.key, deadline_s=deadline_s)


@asynccontextmanager
async def behind(kind: str, authority: Authority, proxy: HttpProxy) -> AsyncIterator[Behind]:
    async with ends_of(kind, authority) as ends:
        await proxy.start()
        yield Behind(kind, ends, proxy, authority)
        await proxy.stop()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


async def converse(uplink: Uplink) -> None:
    await uplink.connect()
    await uplink.send(HELLO)
    assert isinstance(await uplink.receive(), Welcome)
    await uplink.send(batch(0, bytes(300_000)))
    assert isinstance(await uplink.receive(), Receipt)


@pytest.mark.parametrize("kind", REAL)
@pytest.mark.parametrize("secret", [("", ""), ("site", "p@ss:w/rd")])
async def test_a_conversation_goes_through_the_proxy(kind: str, secret: tuple[str, str], authority: Authority) -> None:
    async with behind(kind, authority, HttpProxy(*secret)) as made:
        uplink = made.uplink(*secret)
        await converse(uplink)
        assert made.proxy.asked == [f"CONNECT 127.0.0.1:{made.port}"]
        made.proxy.cut()
        with pytest.raises(Transient):
            await uplink.receive()
        await converse(uplink)
        await uplink.close()


@pytest.mark.parametrize("kind", REAL)
async def test_a_proxy_that_wants_a_password_is_not_passed_without(kind: str, authority: Authority) -> None:
    async with behind(kind, authority, HttpProxy("site", "right")) as made:
        uplink = made.uplink("site", "wrong")
        with pytest.raises(AgentError) as refusal:
            await uplink.connect()
        assert isinstance(refusal.value, AccessDenied if kind == "mqtt" else Transient)
        assert "right" not in str(refusal.value)
        assert "wrong" not in str(refusal.value)
        assert made.ends.cloud.hellos == []
        await uplink.close()


@pytest.mark.parametrize("kind", REAL)
async def test_a_proxy_that_refuses_is_a_transient_failure(kind: str, authority: Authority) -> None:
    async with behind(kind, authority, HttpProxy()) as made:
        made.proxy.allows = False
        uplink = made.uplink()
        with pytest.raises((Unreachable, TimedOut)):
            await uplink.connect()
        made.proxy.allows = True
        await converse(uplink)
        await uplink.close()


@pytest.mark.parametrize("kind", REAL)
async def test_a_proxy_that_is_not_there_is_unreachable(kind: str, authority: Authority) -> None:
    async with ends_of(kind, authority) as ends:
        proxy = HttpProxy()
        proxy.port = 9
        uplink = Behind(kind, ends, proxy, authority).uplink()
        with pytest.raises(Transient):
            await uplink.connect()
        assert ends.cloud.hellos == []
        await uplink.close()


async def test_what_is_no_proxy_is_told(authority: Authority) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ESMTP\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    uplink = mqtt_uplink(1, agent_tls(authority), proxy=Proxy(Endpoint("127.0.0.1", port)))
    with pytest.raises(Unreachable, match="the proxy does not lead to"):
        await uplink.connect()
    server.close()


@pytest.mark.parametrize("kind", REAL)
async def test_the_environment_names_no_proxy_for_us(
    kind: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with ends_of(kind, authority) as ends:
        await converse(ends.uplink)


@pytest.mark.parametrize("kind", REAL)
async def test_a_server_of_the_sites_own_ca_is_believed_when_the_settings_say_so(
    kind: str, authority: Authority
) -> None:
    company = Authority("company CA")
    async with ends_of(kind, authority) as ends:
        port = ends.far.port if ends.broker is None else ends.broker.port
        # This agent was enrolled by another CA than the one that vouches for the server.
        tls = replace(agent_tls(authority), ca_pem=company.pem)

        def uplink(more_ca_pem: str) -> Uplink:
            if kind == "grpc":
                return grpc_uplink(port, tls, more_ca_pem=more_ca_pem)
            return mqtt_uplink(port, tls, key=ends.far.key, more_ca_pem=more_ca_pem)

        stranger = uplink("")
        with pytest.raises(Transient):
            await stranger.connect()
        await stranger.close()
        believing = uplink(authority.pem.decode())
        await converse(believing)
        await believing.close()
