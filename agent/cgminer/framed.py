"""Whatsminer's API v3: one JSON document each way, each behind its length.

    4 bytes, little-endian: n | n bytes of JSON        (TCP 4433, both ways; one request a connection)

Invariant: the length is a stranger's word. Not more than the cap is ever read, and never past a deadline.

Source: WhatsMiner API 3.0; docs/devices.md.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from agent.cgminer.client import DEFAULT_DEADLINES, Address, Deadlines
from agent.cgminer.stream import Limits, Stream
from agent.errors import Garbled, Unreachable

FRAMED_PORT: Final = 4433
LENGTH_BYTES: Final = 4
_SHOWN: Final = 24


def encode(document: Mapping[str, Any]) -> bytes:
    """Return ``document`` as it is sent."""
    return behind_length(json.dumps(document, separators=(",", ":")).encode())


def behind_length(body: bytes) -> bytes:
    """Return ``body`` behind its length."""
    return len(body).to_bytes(LENGTH_BYTES, "little") + body


def length_in(head: bytes) -> int:
    """Return the length, in bytes, that the first four bytes announce: a stranger's word."""
    return int.from_bytes(head, "little")


async def converse(address: Address, document: Mapping[str, Any], deadlines: Deadlines = DEFAULT_DEADLINES) -> bytes:
    """Send ``document`` and return the reply without its length.

    Raises:
        Unreachable: no connection, or it broke before the whole reply had come.
        TimedOut: the reply did not start or did not end in time.
        TooLarge: its length exceeds ``deadlines.cap_bytes``.
        Garbled: it has no content, or what comes is no framed reply.
    """
    limits = Limits(address, deadlines)
    stream = await Stream.open(address, limits)
    try:
        await stream.send(encode(document), limits)
        limits.asked()
        return await _reply(stream, address, limits)
    finally:
        stream.close()


async def _reply(stream: Stream, address: Address, limits: Limits) -> bytes:
    received = bytearray()
    wanted = LENGTH_BYTES
    length = None
    while len(received) < wanted:
        data = await stream.receive(limits)
        limits.answered()
        if not data:
            where = "amid its answer" if received else "without an answer"
            raise Unreachable(f"{address}: closed the connection {where}; it is tried again")
        received += data
        if length is None and len(received) >= LENGTH_BYTES:
            length = _checked(length_in(bytes(received[:LENGTH_BYTES])), bytes(received), address, limits)
            wanted += length
    return bytes(received[LENGTH_BYTES:wanted])


def _checked(length: int, received: bytes, address: Address, limits: Limits) -> int:
    """Return the length when it can be one; four printable characters are another protocol's greeting."""
    head = received[:LENGTH_BYTES]
    if length == 0 or (head.isascii() and head.decode("ascii").isprintable()):
        shown = received[:_SHOWN].decode("utf-8", "backslashreplace")
        raise Garbled(f"{address}: answers {shown!r}, which is no framed reply; check the port")
    limits.check_size(length)
    return length
