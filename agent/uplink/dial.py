"""A secured connection, made by ourselves: straight or through an HTTP proxy's CONNECT, and never on a thread.

Invariants: whoever waits here can be cancelled at any moment and leaves no open socket; the server must show a
certificate by ``server_name``; nothing is sent through a proxy but the address wanted and what the proxy asks for.
"""

import asyncio
import os
import socket
import ssl

from agent.errors import Unreachable
from agent.names import locate
from agent.settings import Endpoint, Proxy
from agent.uplink.port import Tls
from agent.uplink.proxy import END, asked, check, is_whole


def client_context(tls: Tls, more_ca_pem: str) -> ssl.SSLContext:
    """Return what a connection to a server of ours needs; ``more_ca_pem`` are CAs believed beside the enrolment's.

    Raises:
        ssl.SSLError: a certificate or key in it is broken.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=tls.ca_pem.decode("ascii") + "\n" + more_ca_pem)
    # The library reads certificates from files alone: this one is in memory, and nobody else's.
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(tls.certificate_pem + b"\n" + tls.key_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context


async def dial(
    endpoint: Endpoint, proxy: Proxy | None, context: ssl.SSLContext, server_name: str, within_s: float
) -> ssl.SSLSocket:
    """Return a connection to ``endpoint`` that has shaken hands. The caller sets the deadline.

    Raises:
        Unreachable: nobody answers, or it is not ``server_name``.
        AccessDenied: the proxy wants a user and password that it was not given.
    """
    family, target = await locate(*_first_hop(endpoint, proxy), within_s)
    plain = socket.socket(family, socket.SOCK_STREAM)
    try:
        plain.setblocking(False)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(plain, target)
        if proxy is not None:
            await _tunnel(plain, endpoint, proxy)
        return await _secured(plain, context, server_name)
    except ssl.SSLError as error:
        raise Unreachable(f"{endpoint}: not spoken to: {_said(error)}") from None
    except OSError as error:
        where = endpoint if proxy is None else f"{endpoint} by {proxy}"
        raise Unreachable(f"{where}: cannot be reached: {error.strerror or error}") from None
    finally:
        plain.close()  # does nothing once it has been handed on


def _first_hop(endpoint: Endpoint, proxy: Proxy | None) -> tuple[str, int]:
    hop = endpoint if proxy is None else proxy.endpoint
    return hop.host, hop.port


async def _tunnel(plain: socket.socket, endpoint: Endpoint, proxy: Proxy) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(plain, asked(endpoint, proxy))
    answer = b""
    while not is_whole(answer, proxy):
        more = await loop.sock_recv(plain, 1)  # a byte at a time: what follows the head is not ours to read
        answer += more or END
    check(answer, endpoint, proxy)


async def _secured(plain: socket.socket, context: ssl.SSLContext, server_name: str) -> ssl.SSLSocket:
    made = context.wrap_socket(plain, server_hostname=server_name, do_handshake_on_connect=False)
    try:
        while True:
            try:
                made.do_handshake()
            except ssl.SSLWantReadError:
                await _until_ready(made, reading=True)
            except ssl.SSLWantWriteError:
                await _until_ready(made, reading=False)
            else:
                return made
    except BaseException:
        made.close()
        raise


async def _until_ready(made: socket.socket, *, reading: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    watch, leave = (loop.add_reader, loop.remove_reader) if reading else (loop.add_writer, loop.remove_writer)
    descriptor = made.fileno()
    watch(descriptor, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        leave(descriptor)


def _said(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not believed: {error.verify_message}"
    return (error.reason or str(error)).replace("_", " ").lower()
