"""Whatsminer's API v3: one JSON document each way, each behind its length.

    4 bytes, little-endian: n | n bytes of JSON        (TCP 4433, both ways; one request a connection)

Invariant: the length is a stranger's word. Not more than the cap is ever read, and never past a deadline.

Source: WhatsMiner API 3.0; docs/devices.md.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from agent.cgminer.client import DEFAULT_DEADLINES, Address, Deadlines
from agent.cgminer.stream import Exchange, Stream
from agent.errors import Garbled, Unreachable

FRAMED_PORT: Final = 4433
_LENGTH_BYTES: Final = 4
_SHOWN: Final = 24


async def converse(address: Address, document: Mapping[str, Any], deadlines: Deadlines = DEFAULT_DEADLINES) -> bytes:
    """Send ``document`` and return the reply without its length.

    Raises:
        Unreachable: no connection, or it broke before the whole reply had come.
        TimedOut: the reply did not start or did not end in time.
        TooLarge: its length exceeds ``deadlines.cap_bytes``.
        Garbled: it has no content, or what comes is no framed reply.
    """
    body = json.dumps(document, separators=(",", ":")).encode()
    exchange = Exchange(address, deadlines)
    stream = await Stream.open(address, exchange)
    try:
        await stream.send(len(body).to_bytes(_LENGTH_BYTES, "little") + body, exchange)
        exchange.asked()
        return await _reply(stream, address, exchange)
    finally:
        stream.close()


async def _reply(stream: Stream, address: Address, exchange: Exchange) -> bytes:
    received = bytearray()
    wanted = _LENGTH_BYTES
    length = None
    while len(received) < wanted:
        data = await stream.receive(exchange)
        exchange.answered()
        if not data:
            where = "amid its answer" if received else "without an answer"
            raise Unreachable(f"{address}: closed the connection {where}; it is tried again")
        received += data
        if length is None and len(received) >= _LENGTH_BYTES:
            length = _checked(int.from_bytes(received[:_LENGTH_BYTES], "little"), bytes(received), address, exchange)
            wanted += length
    return bytes(received[_LENGTH_BYTES:wanted])


def _checked(length: int, received: bytes, address: Address, exchange: Exchange) -> int:
    """Return the length when it can be one; four printable characters are another protocol's greeting."""
    head = received[:_LENGTH_BYTES]
    if length == 0 or (head.isascii() and head.decode("ascii").isprintable()):
        shown = received[:_SHOWN].decode("utf-8", "backslashreplace")
        raise Garbled(f"{address}: answers {shown!r}, which is no framed reply; check the port")
    exchange.check_size(length)
    return length
