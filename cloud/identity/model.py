"""Values of identity. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from cloud.core.access import Principal, Role

SESSION_IDLE: Final = timedelta(hours=12)
SESSION_LENGTH: Final = timedelta(days=7)
TOKEN_LIFE: Final = timedelta(hours=1)
AGENT_CERTIFICATE_LIFE: Final = timedelta(days=30)
APPROVAL_WAIT: Final = timedelta(hours=24)
"""How long a key waits for an operator's word."""
SHORTEST_PASSWORD: Final = 12
LONGEST_PASSWORD: Final = 256
FREE_ATTEMPTS: Final = 5
LONGEST_EMAIL: Final = 254


@dataclass(frozen=True, slots=True)
class Account:
    """A person who may log in."""

    tenant_id: UUID
    account_id: UUID
    email: str
    role: Role
    must_change: bool


@dataclass(frozen=True, slots=True)
class SessionView:
    """A live session: whom it speaks for."""

    principal: Principal
    account_id: UUID
    email: str
    role: Role
    must_change: bool


@dataclass(frozen=True, slots=True)
class FirstOperator:
    """The operator made at the first start; the password is shown once and never stored."""

    email: str
    one_time_password: str


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """What an agent's certificate says: ``ballast://TENANT/SITE/AGENT``."""

    tenant_id: UUID
    site_id: str
    agent_id: str

    @property
    def uri(self) -> str:
        """Return the name that stands in the certificate."""
        return f"ballast://{self.tenant_id}/{self.site_id}/{self.agent_id}"


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What an agent's certificate says. ``generation`` counts the agent's certificates from 1; hashes are hex."""

    pem: bytes
    uri: str
    sha256: str
    key_sha256: str
    generation: int
    serial: int
    issued_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What an agent gets that enrols: a certificate, or None while an operator has not approved its key."""

    identity: AgentIdentity
    certificate: CertificateFacts | None
    ca_pem: bytes
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the agent behind a certificate may act; ``refusal`` empty means it may.

    ``locked`` says that two gateways have shown the same identity just now, and that neither is believed any more.
    """

    refusal: str = ""
    locked: bool = False


def parse_agent_uri(uri: str) -> AgentIdentity:
    """Return the identity in a certificate's URI.

    Raises:
        ValueError: it is not of the form ``ballast://TENANT/SITE/AGENT``.
    """
    scheme, separator, rest = uri.partition("://")
    parts = rest.split("/")
    if scheme != "ballast" or not separator or len(parts) != 3 or not all(parts):
        raise ValueError(f"{uri!r} does not name tenant, site and agent")
    return AgentIdentity(UUID(parts[0]), parts[1], parts[2])


def lock_time(failed_attempts: int) -> timedelta:
    """Return for how long an account stays shut after its nth failed attempt in a row: 1 s doubling to 15 min."""
    if failed_attempts < FREE_ATTEMPTS:
        return timedelta(0)
    return timedelta(seconds=min(900, 2 ** min(failed_attempts - FREE_ATTEMPTS, 10)))
