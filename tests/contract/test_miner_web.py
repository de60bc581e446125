"""A miner's web page is asked within deadlines, on a kept connection, by the way in that it offers."""

import asyncio
import contextlib
import hashlib
import socket
import time
from collections.abc import Callable

import pytest

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.credentials import Credentials
from agent.cgminer.web import WebClient
from agent.errors import AccessDenied, AgentError, Garbled, TimedOut, TooLarge, Unreachable
from tests.contract.fake_miner import serving
from tests.contract.fake_web import Asked, FakeWeb, page, pages

pytestmark = pytest.mark.agent

SHORT = Deadlines(connect_s=0.3, first_byte_s=0.3, total_s=0.6, cap_bytes=20_000)
ROOT = Credentials("root", "s3cret")


def client(address: Address, credentials: Credentials | None = None, deadlines: Deadlines = SHORT) -> WebClient:
    return WebClient(address, deadlines, credentials)


async def test_two_requests_take_one_connection() -> None:
    server = FakeWeb(pages({"/a": {"x": 1}, "/b": [2]}))
    async with server.serving() as address:
        web = client(address)
        first = await web.request("GET", "/a")
        second = await web.request("GET", "/b")
        web.close()
    assert (first.status, first.document(), second.body) == (200, {"x": 1}, b"[2]")
    assert server.connections == 1
    assert server.asked[0].headers["host"] == str(address)


async def test_json_form_and_body_are_sent_with_their_type_and_length() -> None:
    server = FakeWeb(lambda asked: page({}))
    async with server.serving() as address:
        web = client(address)
        await web.request("POST", "/", json={"a": 1}, headers={"Authorization": "Bearer t"})
        await web.request("PUT", "/", form={"a b": "c&d"})
        await web.request("POST", "/", body=b"\x00\x01")
        await web.request("POST", "/")
        web.close()
    assert [(asked.method, asked.body) for asked in server.asked] == [
        ("POST", b'{"a":1}'),
        ("PUT", b"a+b=c%26d"),
        ("POST", b"\x00\x01"),
        ("POST", b""),
    ]
    assert server.asked[0].headers["content-type"] == "application/json"
    assert server.asked[0].headers["authorization"] == "Bearer t"
    assert server.asked[1].headers["content-type"] == "application/x-www-form-urlencoded"
    assert server.asked[3].headers["content-length"] == "0"


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdef",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcdef",
        b"HTTP/1.0 200 OK\nConnection: close\n\nabcdef",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdef",
    ],
)
async def test_a_body_ends_as_its_header_says(response: bytes) -> None:
    server = FakeWeb(lambda asked: response)
    async with server.serving() as address:
        web = client(address)
        assert (await web.request("GET", "/")).body == b"abcdef"
        web.close()


async def test_a_kept_connection_that_was_closed_meanwhile_is_replaced() -> None:
    server = FakeWeb(pages({"/a": {}}), close_after=1)
    async with server.serving() as address:
        web = client(address)
        for method in ("GET", "GET", "POST"):
            await web.request(method, "/a")
            await asyncio.sleep(0.02)
        web.close()
    assert server.connections == 3


@pytest.mark.parametrize(("method", "requests"), [("GET", 3), ("POST", 2)])
async def test_a_connection_that_breaks_on_its_second_request_is_tried_again_for_get_alone(
    method: str, requests: int
) -> None:
    """The server closes while our request is on its way: only a GET may be sent a second time."""
    server = FakeWeb(lambda asked: b"" if len(server.asked) == 2 else page({}))
    closing = server._one

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        return await closing(reader, writer) and len(server.asked) != 2

    server._one = one  # type: ignore[method-assign]
    async with server.serving() as address:
        web = client(address)
        await web.request(method, "/")
        if method == "GET":
            assert (await web.request(method, "/")).status == 200
        else:
            with pytest.raises(Unreachable, match="without an answer"):
                await web.request(method, "/")
        web.close()
    assert len(server.asked) == requests


def digest_server(algorithm: str, *, qop: bool, nonces: list[str]) -> Callable[[Asked], bytes]:
    """A server's own check of RFC 7616, written apart from the client's. ``nonces[0]`` is the one in force."""
    name = {"MD5": "md5", "SHA-256": "sha256"}[algorithm]

    def digest(text: str) -> str:
        return hashlib.new(name, text.encode()).hexdigest()

    def refuse() -> bytes:
        parameters = ['realm="antMiner Configuration"', f'nonce="{nonces[0]}"', 'opaque="0,1"']
        parameters += ['qop="auth,auth-int"'] if qop else []
        parameters += [] if algorithm == "MD5" else [f"algorithm={algorithm}"]
        return page(b"<html>401", "401 Unauthorized", "WWW-Authenticate: Digest " + ", ".join(parameters))

    def answer(asked: Asked) -> bytes:
        scheme, _, rest = asked.headers.get("authorization", "").partition(" ")
        if scheme != "Digest":
            return refuse()
        said = dict(part.strip().split("=", 1) for part in rest.replace('"0,1"', "OPAQUE").split(", "))
        said = {key: value.strip('"') for key, value in said.items()}
        secret = digest("root:antMiner Configuration:s3cret")
        asking = digest(f"{asked.method}:{asked.target}")
        middle = f"{said['nc']}:{said['cnonce']}:{said['qop']}:" if qop else ""
        good = said["response"] == digest(f"{secret}:{said['nonce']}:{middle}{asking}")
        whole = said["uri"] == asked.target and said["nonce"] == nonces[0] and said["opaque"] == "OPAQUE"
        return page({"ok": True}) if good and whole else refuse()

    return answer


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
@pytest.mark.parametrize("qop", [True, False])
async def test_digest_is_answered_and_then_at_once_and_a_new_nonce_is_taken(algorithm: str, qop: bool) -> None:
    nonces = ["n1"]
    server = FakeWeb(digest_server(algorithm, qop=qop, nonces=nonces))
    async with server.serving() as address:
        web = client(address, ROOT)
        assert (await web.request("GET", "/cgi-bin/get_miner_conf.cgi")).document() == {"ok": True}
        assert len(server.asked) == 2
        assert (await web.request("POST", "/cgi-bin/set_miner_conf.cgi", json={"a": 1})).status == 200
        assert len(server.asked) == 3
        nonces[0] = "n2"
        assert (await web.request("POST", "/cgi-bin/set_miner_conf.cgi", json={"a": 1})).status == 200
        assert len(server.asked) == 5
        web.close()
    assert server.connections == 1


async def test_who_is_let_in_and_forbidden_a_page_may_have_the_right_password() -> None:
    by_digest = digest_server("MD5", qop=True, nonces=["n"])

    def guarded(asked: Asked) -> bytes:
        answer = by_digest(asked)
        return answer if b" 401 " in answer[:40] else page({}, "403 Forbidden")

    async with FakeWeb(guarded).serving() as address:
        web = client(address, ROOT)
        with pytest.raises(AccessDenied, match=r"refuses us \(403\); correct .* password .*, or what that user may do"):
            await web.request("GET", "/")
        web.close()


async def test_wrong_credentials_are_denied_after_one_try() -> None:
    server = FakeWeb(digest_server("MD5", qop=True, nonces=["n"]))
    async with server.serving() as address:
        web = client(address, Credentials("root", "wrong"))
        with pytest.raises(AccessDenied, match="correct its group's password"):
            await web.request("GET", "/")
        web.close()
        assert len(server.asked) == 2
        with pytest.raises(AccessDenied, match="give its group credentials"):
            await client(address).request("GET", "/")


async def test_basic_is_answered_and_a_stronger_way_is_preferred() -> None:
    def basic(asked: Asked) -> bytes:
        if asked.headers.get("authorization") == "Basic cm9vdDpzM2NyZXQ=":
            return page({})
        return page({}, "401 Unauthorized", 'WWW-Authenticate: Basic realm="x"')

    digest = digest_server("MD5", qop=True, nonces=["n"])
    both = FakeWeb(lambda asked: digest(asked).replace(b": Digest", b': Basic realm="x", Digest'))
    for server in (FakeWeb(basic), both):
        async with server.serving() as address:
            web = client(address, ROOT)
            assert (await web.request("GET", "/")).status == 200
            web.close()
    assert both.asked[-1].headers["authorization"].startswith("Digest")


async def test_a_token_of_the_callers_is_not_replaced_by_our_credentials() -> None:
    server = FakeWeb(lambda asked: page({}, "401 Unauthorized", 'WWW-Authenticate: Basic realm="x"'))
    async with server.serving() as address:
        web = client(address, ROOT)
        with pytest.raises(AccessDenied):
            await web.request("GET", "/", headers={"authorization": "expired"})
        web.close()
    assert len(server.asked) == 1


async def test_a_refusal_without_a_way_in_and_403_are_denied() -> None:
    for status in ("401 Unauthorized", "403 Forbidden"):
        server = FakeWeb(lambda asked, status=status: page({}, status))
        async with server.serving() as address:
            web = client(address, ROOT)
            with pytest.raises(AccessDenied, match="closed to us"):
                await web.request("GET", "/")
            web.close()


async def silent(asked: Asked) -> bytes:
    await asyncio.sleep(30)
    return b""


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (silent, TimedOut, "no answer within 0.3 s"),
        (lambda asked: b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", TimedOut, "did not end within 0.6 s"),
        (lambda asked: b'{"STATUS":"E"}\0', Garbled, "which is not HTTP"),
        (lambda asked: b"SSH-2.0-OpenSSH_9\r\n\r\n", Garbled, "which is not HTTP"),
        (lambda asked: b"HTTP/1.1 200 OK\r\nX: " + b"a" * 19_000, Garbled, "which is not HTTP"),
        (lambda asked: page(b"x" * 20_001), TooLarge, "exceeds 20000 bytes"),
        (lambda asked: b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 20_001, TooLarge, "exceeds"),
        (lambda asked: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", Garbled, "which is not HTTP"),
        (lambda asked: b"HTTP/1.1 999999 OK\r\n\r\n", Garbled, "which is not HTTP"),
    ],
)
async def test_whatever_a_server_does_ends_in_an_error_of_ours(answer, error: type[AgentError], words: str) -> None:
    server = FakeWeb(answer)
    async with server.serving() as address:
        began = time.monotonic()
        with pytest.raises(error, match=words):
            await client(address).request("GET", "/")
    assert time.monotonic() - began < 2


async def drip(request: bytes, writer: asyncio.StreamWriter) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" * 10:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.05)


async def amid(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")


async def at_once(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize(
    ("speak", "error", "words"),
    [
        (drip, TimedOut, "did not end"),
        (amid, Unreachable, "amid its answer"),
        (at_once, Unreachable, "without an answer"),
    ],
)
async def test_a_drip_and_a_broken_connection_are_told_apart(speak, error: type[AgentError], words: str) -> None:
    async with serving(speak) as address:
        with pytest.raises(error, match=words):
            await client(address).request("GET", "/")


async def test_a_closed_port_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="connection refused; is the miner on"):
        await client(Address("127.0.0.1", 1)).request("GET", "/")


async def test_a_host_that_never_answers_a_syn_is_unreachable() -> None:
    """A listener whose queue is full drops every further SYN, as a powered-off host's switch does."""
    with contextlib.ExitStack() as full:
        listener = full.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            waiting = full.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        with pytest.raises(Unreachable, match=r"no connection within 0\.3 s"):
            await client(Address(*listener.getsockname())).request("GET", "/")


async def test_a_target_smuggles_no_header() -> None:
    server = FakeWeb(lambda asked: page({}))
    async with server.serving() as address:
        with pytest.raises(Garbled, match="cannot be asked for"):
            await client(address).request("GET", "/a\r\nX: y")
