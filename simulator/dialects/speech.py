"""CGMiner's way to speak on a port: one request a connection, then the device closes.

Invariant: a request is answered once it is complete, for JSON with balanced braces, for text with its first packet; a
firmware image that was announced, with the length before it.
"""

from simulator.dialects.rpc import Dialect
from simulator.dialects.whatsminer_writes import AWAITS_IMAGE
from simulator.faults import TERMINATORS, spoil
from simulator.miner import Miner
from simulator.speech import Answer

MOST_RPC_BYTES = 65_536
MOST_IMAGE_BYTES = 100_000_000
_LENGTH_BYTES = 4


class RpcSpeech:
    """CGMiner's: one request a connection, complete when its braces balance or, as text, with the first packet."""

    __slots__ = ("_dialect", "miner")

    def __init__(self, miner: Miner, dialect: Dialect) -> None:
        self.miner = miner
        self._dialect = dialect

    @property
    def most_bytes(self) -> int:
        """Return the size of the largest request: an image's once one was announced."""
        return MOST_IMAGE_BYTES if AWAITS_IMAGE in self.miner.memory else MOST_RPC_BYTES

    def cut(self, buffer: bytearray, *, at_end: bool) -> tuple[bytes, bytes] | None:
        """Return the whole buffer once it is a request."""
        if AWAITS_IMAGE in self.miner.memory and not buffer.startswith(b"{"):
            end = _LENGTH_BYTES + int.from_bytes(buffer[:_LENGTH_BYTES], "little")
            return (bytes(buffer[:end]), b"") if len(buffer) >= max(end, _LENGTH_BYTES) else None
        text = buffer.lstrip()
        if not text:
            return None
        whole = at_end or not text.startswith(b"{") or text.count(b"{") == text.count(b"}")
        return (bytes(buffer), b"") if whole else None

    def answer(self, request: bytes, client: str) -> Answer:
        """Return the document and its terminator; the connection stays open only for an announced image."""
        fault = self.miner.fault
        if AWAITS_IMAGE in self.miner.memory and not request.startswith(b"{"):
            document = self._dialect.image(self.miner, request[_LENGTH_BYTES:])
        else:
            document = self._dialect.answer(self.miner, request, client)
        keep = AWAITS_IMAGE in self.miner.memory
        if fault is not None and fault.kind == "garbage":
            document = spoil(fault.detail, document)
        if fault is not None and fault.kind in TERMINATORS:
            return Answer(document + TERMINATORS[fault.kind], keep)
        return Answer(document + self._dialect.terminator if document else document, keep)
