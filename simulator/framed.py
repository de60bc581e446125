"""Documents behind their length: four bytes, little-endian, both ways, as many on a connection as the client likes.

Invariant: an empty frame is a heartbeat and is answered with one; what cannot be a frame loses its connection.
"""

from typing import Protocol

from simulator.faults import spoil
from simulator.miner import Miner
from simulator.speech import Answer

LENGTH_BYTES = 4
MOST_FRAMED_BYTES = 100_000_000
_HEARTBEAT = bytes(LENGTH_BYTES)


class FramedFirmware(Protocol):
    """One firmware's documents."""

    def answer(self, miner: Miner, request: bytes) -> tuple[bytes, bytes]:
        """Return (document, raw bytes that follow it without a length) for one request."""
        ...


class FramedSpeech:
    """Frames on one port of one miner."""

    __slots__ = ("_firmware", "miner")

    most_bytes = MOST_FRAMED_BYTES

    def __init__(self, miner: Miner, firmware: FramedFirmware) -> None:
        self.miner = miner
        self._firmware = firmware

    def cut(self, buffer: bytearray, *, at_end: bool) -> tuple[bytes, bytes] | None:  # noqa: ARG002 - a half is none
        """Return the first whole frame with its length."""
        if len(buffer) < LENGTH_BYTES:
            return None
        end = LENGTH_BYTES + int.from_bytes(buffer[:LENGTH_BYTES], "little")
        if end > MOST_FRAMED_BYTES:
            return bytes(buffer), b""
        return (bytes(buffer[:end]), bytes(buffer[end:])) if len(buffer) >= end else None

    def answer(self, request: bytes, client: str) -> Answer:  # noqa: ARG002 - tokens are not bound to a client here
        """Return the framed reply."""
        if request == _HEARTBEAT:
            return Answer(_HEARTBEAT, keep=True)
        if int.from_bytes(request[:LENGTH_BYTES], "little") != len(request) - LENGTH_BYTES:
            return Answer(b"")
        document, follows = self._firmware.answer(self.miner, request[LENGTH_BYTES:])
        fault = self.miner.fault
        if fault is not None and fault.kind == "garbage":
            document = spoil(fault.detail, document)
        return Answer(len(document).to_bytes(LENGTH_BYTES, "little") + document + follows, keep=True)
