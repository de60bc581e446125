"""How an agent becomes known: a join token, used once, buys a certificate for a key that never left the site.

Invariants: a token is bound to tenant and site, works once within an hour and is stored hashed; it carries the hash of
the CA, so the agent can check whom it talks to before it trusts anybody. Enrolling a site again takes nothing from its
earlier agent: that one is revoked when the new one first connects.

      ballast1.<secret: base64url of tenant and 24 random bytes>.<SHA-256 of the CA's DER, hex>
"""

import base64
import binascii
import hashlib
import secrets
from typing import Final
from uuid import UUID

from cloud.core.access import Permission
from cloud.core.errors import Forbidden, Refused
from cloud.identity import store
from cloud.identity.authority import CertificateAuthority, certificate_identity
from cloud.identity.model import TOKEN_LIFE, AgentIdentity, Enrolment
from cloud.infra.db import UnitOfWork

_VERSION: Final = "ballast1"


def make_join_token(uow: UnitOfWork, authority: CertificateAuthority, site_id: str) -> str:
    """Return a new token for ``site_id``, to be shown once."""
    uow.principal.require(Permission.MANAGE_SITES, site_id)
    raw = uow.tenant_id.bytes + secrets.token_bytes(24)
    secret = base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
    store.add_join_token(uow, _digest(secret), site_id, uow.now() + TOKEN_LIFE)
    return f"{_VERSION}.{secret}.{authority.sha256_hex}"


def token_tenant(token: str) -> tuple[UUID, str]:
    """Return ``(tenant, secret)`` of a token's text.

    Raises:
        Refused: it is not of a token's form.
    """
    parts = token.strip().split(".")
    if len(parts) == 3 and parts[0] == _VERSION:
        try:
            raw = base64.b64decode(parts[1] + "=" * (-len(parts[1]) % 4), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            raw = b""
        if len(raw) == 40:
            return UUID(bytes=raw[:16]), parts[1]
    raise Refused("bad_token", "not a join token; make one with: ballast site token SITE")


def enrol(uow: UnitOfWork, authority: CertificateAuthority, secret: str, csr_pem: bytes) -> Enrolment:
    """Spend the token and return the agent's certificate; earlier agents of the site go on until it connects.

    Raises:
        Refused: the token is unknown, used or expired, or the request is not one, or is for another site than the
            token; the token is then still unused.
    """
    spent = store.spend_join_token(uow, _digest(secret), lambda site_id: f"{site_id}-{secrets.token_hex(4)}")
    if spent is None:
        raise Refused("bad_token", "the join token is unknown, used or expired; make one: ballast site token SITE")
    site_id, agent_id = spent
    enrolment = authority.enrol(AgentIdentity(uow.tenant_id, site_id, agent_id), csr_pem)
    _, fingerprint = certificate_identity(enrolment.certificate_pem)
    store.add_agent(uow, agent_id, site_id, fingerprint, enrolment.expires_at)
    uow.notify("agents", site_id=site_id)
    return enrolment


def admit(uow: UnitOfWork, identity: AgentIdentity, certificate_sha256: str) -> None:
    """Check that the agent behind a certificate may still act for its site, and revoke the site's earlier ones.

    Asked again, it changes nothing more: an agent is only ever replaced by one enrolled after it.

    Raises:
        Forbidden: it is unknown, revoked, expired, or shows another certificate than the one it was given.
    """
    row = store.agent(uow, identity.agent_id)
    if row is None or row.site_id != identity.site_id or row.certificate_sha256 != certificate_sha256:
        raise Forbidden(f"agent {identity.agent_id} is not enrolled for site {identity.site_id}; enrol it again")
    if row.revoked_at is not None:
        raise Forbidden(f"agent {identity.agent_id} was revoked: {row.revoked_reason}; enrol it again")
    if row.expires_at <= uow.now():
        raise Forbidden(
            f"the certificate of agent {identity.agent_id} expired at {row.expires_at:%Y-%m-%d}; enrol again"
        )
    if store.revoke_earlier_agents(uow, row):
        uow.notify("agents", site_id=identity.site_id)


def open_agents(uow: UnitOfWork) -> dict[str, tuple[str, ...]]:
    """Return the agents not shut out by site, the earliest first; a later one takes over when it first connects."""
    found: dict[str, tuple[str, ...]] = {}
    for row in store.open_agents(uow):
        found[row.site_id] = (*found.get(row.site_id, ()), row.agent_id)
    return found


def revoke(uow: UnitOfWork, agent_id: str, reason: str) -> bool:
    """Revoke an agent; its stream ends at its next heartbeat. False when there is no such unrevoked one."""
    uow.principal.require(Permission.MANAGE_SITES)
    return store.revoke_agent(uow, agent_id, reason)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("ascii")).digest()
