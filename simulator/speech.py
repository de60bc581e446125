"""How a device speaks on one of its ports: where a request ends, what is answered, whether the connection stays.

Invariant: a speech never waits and never raises; whatever comes in, it gives an answer or wants more bytes.
"""

from dataclasses import dataclass
from typing import Protocol

from simulator.miner import Miner


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent for one request, and whether the connection stays open after it."""

    data: bytes
    keep: bool = False


class Speech(Protocol):
    """One protocol of one device."""

    @property
    def miner(self) -> Miner:
        """Return whose speech it is."""
        ...

    @property
    def most_bytes(self) -> int:
        """Return the size of the largest request; whoever sends more is dropped."""
        ...

    def cut(self, buffer: bytearray, *, at_end: bool) -> tuple[bytes, bytes] | None:
        """Return (first request, rest) of ``buffer``, None while it is incomplete; ``at_end`` no more will come."""
        ...

    def answer(self, request: bytes, client: str) -> Answer:
        """Return the answer to one request of the client at that address, spoiled as the miner's fault wants it."""
        ...
