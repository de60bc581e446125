"""What passes through a broker beside the frames themselves."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Opening:
    """The agent's first word on a connection: who it is, and the silence in seconds after which it counts as gone."""

    certificate_pem: bytes
    silence_s: float


@dataclass(frozen=True, slots=True)
class Opened:
    """The cloud has admitted the agent and waits for its Hello."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The cloud ends the conversation; ``code`` is the name of a gRPC status."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Brokered:
    """One message of a connection, the ``number``th from 0; ``content`` as bytes is a frame, exactly as on a stream."""

    connection: bytes
    number: int
    content: Opening | Opened | Closed | bytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """A signed ``Brokered``, still as bytes; ``key_id`` names the cloud's key, and is empty upwards."""

    content: bytes
    signature: bytes
    key_id: str = ""
