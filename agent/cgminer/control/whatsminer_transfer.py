"""Whatsminer's two commands that go on over their connection after the answer: logs out, firmware in.

    v2  download_logs    -> {"Msg":{"logfilelen":"1234"}} | 1234 bytes of log archive
        update_firmware  -> {"Msg":"ready"} | <- 4 bytes little-endian: size, image | {"Msg":".."}
    v3  get.log.download, set.system.update_firmware: the same, each document behind its own length

Invariants: the length is a stranger's word, and not more than the cap is ever read; the image goes out once, after the
device has said that it is ready; the device is ours alone meanwhile.

Source: WhatsMiner API 2.0.5, "Download logs" and "Upgrade firmware"; API 3.0, get.log.download and
set.system.update_firmware.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from agent.cgminer.device import Device
from agent.cgminer.framed import LENGTH_BYTES, behind_length, length_in
from agent.cgminer.repair import decode
from agent.cgminer.sections import whole
from agent.cgminer.stream import Limits, Stream
from agent.errors import Garbled, Refused, TooLarge, Unreachable

_LONGEST_ANSWER: Final = 65_536


class Talk:
    """One connection that goes on after the first answer. Each method raises Transient when the device breaks off."""

    def __init__(self, device: Device, stream: Stream, limits: Limits) -> None:
        self._device = device
        self._stream = stream
        self._limits = limits
        self._received = b""

    async def tell(self, request: bytes) -> None:
        """Send ``request`` as it is; an answer is then due."""
        await self._stream.send(request, self._limits)
        self._limits.asked()

    async def document(self) -> bytes:
        """Return the JSON document that comes next, which nothing but its own end ends (v2)."""
        while not (end := _end_of_document(self._received)):
            if len(self._received) > _LONGEST_ANSWER:
                raise Garbled(f"{self._device.address}: answers with no document; check that it is a Whatsminer")
            await self._more()
        found, self._received = self._received[:end], self._received[end:].removeprefix(b"\0")
        return found

    async def framed_document(self) -> Mapping[str, Any]:
        """Return the document that comes next behind its length (v3)."""
        size = length_in(await self.take(LENGTH_BYTES))
        if not 0 < size <= _LONGEST_ANSWER:
            raise Garbled(
                f"{self._device.address}: announces a document of {size} bytes; check that it is a Whatsminer"
            )
        document = decode(await self.take(size)).document
        if not isinstance(document, dict):
            raise Garbled(f"{self._device.address}: answers with no object; check that it is a Whatsminer")
        return document

    async def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        while len(self._received) < size:
            await self._more()
        found, self._received = self._received[:size], self._received[size:]
        return found

    async def logs(self, announced: object) -> bytes:
        """Return the log archive of the ``announced`` size, in bytes. Raises Garbled, TooLarge."""
        size = whole(announced)
        if size is None or size < 0:
            raise Garbled(
                f"{self._device.address}: does not say how long its logs are; fetch them with the vendor's tool"
            )
        if size > self._limits.deadlines.cap_bytes:
            raise TooLarge(
                f"{self._device.address}: announces {size} bytes of logs, too many to fetch; use the vendor's tool"
            )
        return await self.take(size)

    async def give(self, image: bytes) -> None:
        """Hand over a firmware image behind its size; an answer is then due."""
        await self.tell(behind_length(image))

    async def _more(self) -> None:
        data = await self._stream.receive(self._limits)
        self._limits.answered()
        if not data:
            raise Unreachable(f"{self._device.address}: broke off before all had come; order it anew")
        self._received += data


def image_of(device: Device, image: bytes) -> bytes:
    """Return ``image``. Raises Refused when there is none."""
    if not image:
        raise Refused("bad_parameters", f"{device.address}: there is no firmware image to give; fetch its file first")
    return image


def _end_of_document(received: bytes) -> int:
    """Return where the JSON document ends that ``received`` begins with, 0 while it is not whole."""
    text = received.decode("latin-1")
    try:
        _, end = json.JSONDecoder().raw_decode(text.lstrip())
    except ValueError:
        return 0
    return end + len(text) - len(text.lstrip())
