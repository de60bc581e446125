"""The link as its users see it, whatever carries it.

Invariants: ``send`` means handed over, never stored; frames may be lost, doubled, late or out of order, and the caller
copes; nothing here or in ``agent.uplink`` itself imports a transport's library.
"""

from dataclasses import dataclass
from typing import Protocol

from sitelink.types import DownFrame, UpFrame


class Uplink(Protocol):
    """One conversation with the cloud at a time; ``connect`` may be called again after ``close``."""

    async def connect(self) -> None:
        """Open the stream.

        Raises:
            Transient: the cloud cannot be reached now.
            Permanent: the cloud does not accept this agent.
        """
        ...

    async def send(self, frame: UpFrame) -> None:
        """Hand ``frame`` over. It may still be lost.

        Raises:
            Transient: the link failed or takes nothing more.
        """
        ...

    async def receive(self) -> DownFrame:
        """Wait for the next frame.

        Raises:
            Garbled: one frame could not be read; the stream goes on.
            Transient: the link failed.
        """
        ...

    async def show(self, up: bool) -> None:
        """Tell whoever watches the link from outside whether it truly is up; must be said again every heartbeat.

        Never raises. Where nobody can watch it does nothing.
        """
        ...

    async def close(self) -> None:
        """End the conversation; does nothing when there is none. Never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Tls:
    """The agent's certificate and key, and the CA that vouches for the cloud; all PEM."""

    ca_pem: bytes
    certificate_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return "Tls(***)"
