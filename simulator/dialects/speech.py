"""CGMiner's way to speak on a port: one request a connection, then the device closes.

Invariant: a request is answered once it is complete, for JSON with balanced braces, for text with its first packet.
"""

from simulator.dialects.rpc import Dialect
from simulator.faults import TERMINATORS, spoil
from simulator.miner import Miner
from simulator.speech import Answer

MOST_RPC_BYTES = 65_536


class RpcSpeech:
    """CGMiner's: one request a connection, complete when its braces balance or, as text, with the first packet."""

    __slots__ = ("_dialect", "miner")

    most_bytes = MOST_RPC_BYTES

    def __init__(self, miner: Miner, dialect: Dialect) -> None:
        self.miner = miner
        self._dialect = dialect

    def cut(self, buffer: bytearray, *, at_end: bool) -> tuple[bytes, bytes] | None:
        """Return the whole buffer once it is a request."""
        text = buffer.lstrip()
        if not text:
            return None
        whole = at_end or not text.startswith(b"{") or text.count(b"{") == text.count(b"}")
        return (bytes(buffer), b"") if whole else None

    def answer(self, request: bytes, client: str) -> Answer:
        """Return the document and its terminator."""
        fault = self.miner.fault
        document = self._dialect.answer(self.miner, request, client)
        if fault is not None and fault.kind == "garbage":
            document = spoil(fault.detail, document)
        if fault is not None and fault.kind in TERMINATORS:
            return Answer(document + TERMINATORS[fault.kind])
        return Answer(document + self._dialect.terminator if document else document)
