"""Each fault over HTTP, on the pages of a stock Antminer: what its client sees, and that it ends with the fault."""

import asyncio
import contextlib
import time

import httpx
import pytest

from simulator.faults import GARBAGE
from tests.contract.simulator.world import ask, clock_of, miner_of, site, until, web

ROOT = httpx.DigestAuth("root", "root")
STATS = "/cgi-bin/stats.cgi"


@contextlib.asynccontextmanager
async def faulty(fault: str | None, **more: object):
    async with site(3, dialects=("antminer",)) as opened:
        miner = miner_of(opened, "antminer")
        await opened.set_fault(miner.place.miner_id, fault, **more)
        async with web(opened, miner.place.miner_id, ROOT) as client:
            yield opened, miner, client


async def raw_web(miner, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(miner.place.host, miner.place.web_port)
    try:
        writer.write(request)
        async with asyncio.timeout(5):
            return await reader.read(-1)
    finally:
        writer.close()


async def test_one_connection_carries_many_requests_even_at_once():
    async with faulty(None) as (_opened, miner, _client):
        one = b"GET /cgi-bin/stats.cgi HTTP/1.1\r\nHost: x\r\n\r\n"
        last = b"GET /cgi-bin/stats.cgi HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        reply = await raw_web(miner, one + one + last)
        assert reply.count(b"HTTP/1.1 401 Unauthorized\r\n") == 3
        assert reply.count(b"Connection: keep-alive") == 2


async def test_a_body_may_come_in_chunks_and_pieces():
    async with faulty(None) as (_opened, miner, client):

        async def pieces():
            for piece in (b'{"bl', b'ink": tr', b"ue}"):
                yield piece

        blink = "/cgi-bin/blink.cgi"
        asked = (await client.post(blink, json={}, auth=None)).headers["www-authenticate"]
        request = httpx.Request("POST", client.base_url.join(blink))
        flow = ROOT.sync_auth_flow(request)
        next(flow)
        proven = flow.send(httpx.Response(401, headers={"www-authenticate": asked}, request=request))
        headers = {"authorization": proven.headers["authorization"]}
        reply = await client.post(blink, content=pieces(), headers=headers, auth=None)
        assert reply.json() == {"code": "B000"}
        assert miner.kept.led


@pytest.mark.parametrize("request_", [b'{"command":"version"}', b"nonsense\r\n\r\n", b"GET / FTP/9\r\n\r\n"])
async def test_what_is_no_http_gets_400(request_):
    async with faulty(None) as (_opened, miner, _client):
        assert (await raw_web(miner, request_)).startswith(b"HTTP/1.1 400 ")


async def test_dead_refuses():
    async with faulty("dead") as (_opened, _miner, client):
        with pytest.raises(httpx.ConnectError):
            await client.get(STATS)


@pytest.mark.parametrize("fault", ["black_holed", "no_accept"])
async def test_silence_is_silence(fault):
    async with faulty(fault) as (_opened, _miner, client):
        client.timeout = httpx.Timeout(0.3)
        with pytest.raises((httpx.ReadTimeout, httpx.ConnectTimeout)):
            await client.get(STATS)


@pytest.mark.parametrize("fault", ["hang_up", "reset"])
async def test_broken_off_is_an_error_and_no_reply(fault):
    async with faulty(fault) as (_opened, _miner, client):
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await client.get(STATS)


async def test_slow_drip_comes_a_few_bytes_at_a_time():
    async with faulty("slow_drip") as (_opened, miner, _client):
        reader, writer = await asyncio.open_connection(miner.place.host, miner.place.web_port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert 1 <= len(await reader.read(1000)) <= 4
        assert 1 <= len(await reader.read(1000)) <= 4
        writer.close()


async def test_split_chunks_still_make_one_reply():
    async with faulty("split_chunks") as (_opened, _miner, client):
        assert (await client.get(STATS)).json()["STATS"]


async def test_slow_reply_comes_late_and_whole():
    async with faulty("slow_reply", seconds=0.15) as (opened, miner, client):
        began = time.monotonic()
        assert (await client.get(STATS)).json()["STATS"]
        assert time.monotonic() - began >= 0.3, "the question for the password is late as well"
        assert (await ask(opened, miner.place.miner_id, "summary"))["SUMMARY"]


async def test_server_error_is_a_page_of_500():
    async with faulty("server_error") as (_opened, _miner, client):
        reply = await client.get(STATS)
        assert (reply.status_code, reply.headers["content-type"]) == (500, "text/html")


async def test_bad_password_is_401_whatever_is_given():
    async with faulty("bad_password") as (opened, miner, client):
        assert (await client.get(STATS)).status_code == 401
        await opened.set_fault(miner.place.miner_id, None)
        assert (await client.get(STATS)).status_code == 200


async def test_access_denied_leaves_reading_and_forbids_writing():
    async with faulty("access_denied") as (opened, _miner, client):
        assert (await client.get(STATS)).status_code == 200
        assert (await client.post("/cgi-bin/set_miner_conf.cgi", json={"miner-mode": 1})).status_code == 403
        assert not opened.orders


async def test_an_expired_nonce_is_stale_and_a_new_one_opens():
    async with faulty("expired_token", seconds=5) as (opened, _miner, client):
        assert (await client.get(STATS)).status_code == 200
        clock_of(opened).advance(6)
        again = await client.get(STATS)
        assert again.status_code == 200
        assert "stale" not in again.headers.get("www-authenticate", "")


@pytest.mark.parametrize("kind", sorted(GARBAGE))
async def test_garbage_stands_in_the_body_of_a_sound_reply(kind):
    async with faulty(f"garbage:{kind}") as (_opened, _miner, client):
        reply = await client.get(STATS)
        assert reply.status_code == 200
        assert int(reply.headers["content-length"]) == len(reply.content)
        if kind == "oversize":
            assert len(reply.content) > 262_144
        if kind == "html":
            assert reply.headers["content-type"] == "text/html"


async def test_half_effect_leaves_power_between_rest_and_full():
    async with faulty("half_effect") as (opened, miner, client):
        conf = (await client.get("/cgi-bin/get_miner_conf.cgi")).json()
        key = "miner-mode" if "miner-mode" in conf else "bitmain-work-mode"
        await client.post("/cgi-bin/set_miner_conf.cgi", json=conf | {key: type(conf[key])(1)})
        clock_of(opened).advance(60)
        assert 0.3 < miner.true_power_w(opened.time.seconds()) / miner.place.actual_w < 0.6
        assert opened.order_rows()[0]["effect_at"] is None
        await opened.set_fault(miner.place.miner_id, None)
        clock_of(opened).advance(60)
        assert miner.true_power_w(opened.time.seconds()) < 0.03 * miner.place.actual_w


async def test_who_forgets_its_sleep_wakes_with_a_reboot():
    async with faulty("forgets_sleep") as (opened, miner, client):
        conf = (await client.get("/cgi-bin/get_miner_conf.cgi")).json()
        key = "miner-mode" if "miner-mode" in conf else "bitmain-work-mode"
        await client.post("/cgi-bin/set_miner_conf.cgi", json=conf | {key: type(conf[key])(1)})
        await client.get("/cgi-bin/reboot.cgi")
        clock_of(opened).advance(20)
        assert miner.true_power_w(opened.time.seconds()) < 0.03 * miner.place.actual_w
        clock_of(opened).advance(60)
        assert miner.true_power_w(opened.time.seconds()) > 0.97 * miner.place.actual_w
        await until(lambda: all(port.is_open for port in opened.listeners[miner.place.miner_id]))
