"""Whatsminer's two commands that go on over their connection after the answer: logs out, firmware in.

    download_logs   -> {"Msg":{"logfilelen":"1234"}} | 1234 bytes of log archive
    update_firmware -> {"Msg":"ready"} | <- 4 bytes little-endian: size, image | {"Msg":"..."}

Invariants: the length is a stranger's word, and not more than the cap is ever read; the image goes out once, after the
device has said that it is ready; the device is ours alone meanwhile.

Source: WhatsMiner API 2.0.5, "Download logs" and "Upgrade firmware".
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from agent.cgminer.client import Deadlines
from agent.cgminer.control.whatsminer_access import Packet, WhatsminerAccess, opened
from agent.cgminer.device import Device
from agent.cgminer.sections import whole
from agent.cgminer.status import Status
from agent.cgminer.stream import Exchange, Stream
from agent.errors import Garbled, Refused, TooLarge, Unreachable, UnsupportedDevice

_LOGS: Final = Deadlines(connect_s=2.0, first_byte_s=20.0, total_s=60.0, cap_bytes=8_388_608)
_IMAGE: Final = Deadlines(connect_s=2.0, first_byte_s=300.0, total_s=600.0)
_SIZE_BYTES: Final = 4
_LONGEST_ANSWER: Final = 65_536


async def fetch_logs(device: Device, access: WhatsminerAccess, password: str) -> bytes:
    """Return the device's log archive.

    Raises:
        Transient: it does not answer, or breaks off. TooLarge: it announces more than 8 MiB.
        AccessDenied, UnsupportedDevice, Garbled: as ``WhatsminerAccess.write``.
    """
    packet = await access.packet(device, password, "download_logs", {})
    async with device.connection(_LOGS) as (stream, exchange):
        document, rest = await _asked(device, stream, exchange, packet)
        access.check(device, Status.of(document), "download_logs")
        said = document.get("Msg")
        size = whole(said.get("logfilelen")) if isinstance(said, dict) else None
        if size is None:
            raise Garbled(f"{device.address}: does not say how long its logs are; fetch them with the vendor's tool")
        if size > _LOGS.cap_bytes:
            raise TooLarge(
                f"{device.address}: announces {size} bytes of logs, more than {_LOGS.cap_bytes}; not fetched"
            )
        content = bytearray(rest)
        while len(content) < size:
            content += await _more(device, stream, exchange)
        return bytes(content[:size])


async def give_firmware(device: Device, access: WhatsminerAccess, password: str, image: bytes) -> None:
    """Hand the image over; the device checks it, writes it and reboots.

    Raises:
        Refused: there is no image.
        Transient: it does not answer, or breaks off: whether it has the image is not known.
        AccessDenied, UnsupportedDevice, Garbled: as ``WhatsminerAccess.write``.
    """
    if not image:
        raise Refused("bad_parameters", f"{device.address}: there is no firmware image to give; fetch its file first")
    packet = await access.packet(device, password, "update_firmware", {})
    async with device.connection(_IMAGE) as (stream, exchange):
        document, _ = await _asked(device, stream, exchange, packet)
        access.check(device, Status.of(document), "update_firmware")
        if str(document.get("Msg")).lower() != "ready":
            raise UnsupportedDevice(
                f"{device.address}: is not ready for firmware ({Status.of(document).text}); use the vendor's tool"
            )
        await stream.send(len(image).to_bytes(_SIZE_BYTES, "little") + image, exchange)
        exchange.asked()
        document, _ = await _answer(device, stream, exchange, packet.key)
        access.check(device, Status.of(document), "update_firmware")


async def _asked(device: Device, stream: Stream, exchange: Exchange, packet: Packet) -> tuple[Mapping[str, Any], bytes]:
    await stream.send(packet.request, exchange)
    exchange.asked()
    return await _answer(device, stream, exchange, packet.key)


async def _answer(device: Device, stream: Stream, exchange: Exchange, key: bytes) -> tuple[Mapping[str, Any], bytes]:
    """Return the document that comes next, and what came behind it already."""
    received = b""
    while True:
        received += await _more(device, stream, exchange)
        end = _end_of_document(received)
        if end:
            return opened(device, received[:end], key), received[end:].removeprefix(b"\0")
        if len(received) > _LONGEST_ANSWER:
            raise Garbled(f"{device.address}: answers with no document; check that it is a Whatsminer")


def _end_of_document(received: bytes) -> int:
    """Return where the JSON document ends that ``received`` begins with, 0 while it is not whole."""
    text = received.decode("latin-1")
    try:
        _, end = json.JSONDecoder().raw_decode(text.lstrip())
    except ValueError:
        return 0
    return end + len(text) - len(text.lstrip())


async def _more(device: Device, stream: Stream, exchange: Exchange) -> bytes:
    data = await stream.receive(exchange)
    exchange.answered()
    if not data:
        raise Unreachable(f"{device.address}: broke off before all had come; it is asked again by a new order")
    return data
