"""How an agent becomes known: a join token, used once, buys a certificate for a key that never left the site.

Invariants: a token is bound to tenant and site, works once within an hour, for one key, and is stored hashed; it
carries the hash of the CA, so the agent can check whom it talks to before it trusts anybody. A token that needs an
operator's word buys nothing before an operator has compared the key's fingerprint and approved it. Enrolling a site
again takes nothing from its earlier agent: that one is revoked when the new one first connects.

      ballast1.<secret: base64url of tenant and 24 random bytes>.<SHA-256 of the CA's DER, hex>

Asked again with the same token and the same key, the answer is the same: it may have been lost, or was a "not yet".
"""

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from cloud.core.access import Permission
from cloud.core.errors import NotFound, Refused
from cloud.identity import agent_store as store
from cloud.identity.authority import CertificateAuthority, key_bytes, requested_key
from cloud.identity.certificates import facts_of
from cloud.identity.model import APPROVAL_WAIT, TOKEN_LIFE, AgentIdentity, Enrolment
from cloud.infra.db import UnitOfWork
from sitelink.signing import fingerprint

_LONGEST_PREFIX: Final = 47
_VERSION: Final = "ballast1"
_SPENT: Final = "the join token is unknown, used or expired; make one: ballast site token SITE"


@dataclass(frozen=True, slots=True)
class EnrolmentRequest:
    """A key that awaits an operator's word."""

    site_id: str
    agent_id: str
    fingerprint: str
    asked_at: datetime


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """An agent that may act. ``driving`` is not known here: see the site's link."""

    site_id: str
    agent_id: str
    generation: int
    expires_at: datetime


def make_join_token(
    uow: UnitOfWork, authority: CertificateAuthority, site_id: str, *, needs_approval: bool = False
) -> str:
    """Return a new token for ``site_id``, to be shown once; ``needs_approval``: its key waits for an operator."""
    uow.principal.require(Permission.MANAGE_SITES, site_id)
    raw = uow.tenant_id.bytes + secrets.token_bytes(24)
    secret = base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
    store.add_join_token(uow, _digest(secret), site_id, uow.now() + TOKEN_LIFE, needs_approval=needs_approval)
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
    """Spend the token and return the agent's certificate, or that it waits; earlier agents go on until it connects.

    Raises:
        Refused: the token is unknown, expired or was used with another key, an operator refused the key, or the request
            is not one or is for another site than the token; the token is then still unused.
    """
    digest = _digest(secret)
    token = store.join_token(uow, digest)
    if token is None or (token.used_at is None and token.expires_at <= uow.now()):
        raise Refused("bad_token", _SPENT)
    key = key_bytes(requested_key(csr_pem, token.site_id))
    if token.used_at is not None:
        return _again(uow, authority, token, csr_pem, key)
    identity = AgentIdentity(uow.tenant_id, token.site_id, _agent_id(token.site_id))
    store.spend_join_token(uow, digest, identity.agent_id)
    if token.needs_approval:
        store.add_request(uow, digest, token.site_id, identity.agent_id, fingerprint(key), APPROVAL_WAIT)
        uow.notify("agents", site_id=token.site_id)
        return Enrolment(identity, None, authority.pem, fingerprint(key))
    return _issued(uow, authority, identity, csr_pem, key)


def open_agents(uow: UnitOfWork) -> dict[str, tuple[str, ...]]:
    """Return the agents not shut out by site, the earliest first; a later one takes over when it first connects."""
    found: dict[str, tuple[str, ...]] = {}
    for row in store.open_agents(uow):
        found[row.site_id] = (*found.get(row.site_id, ()), row.agent_id)
    return found


def agents(uow: UnitOfWork) -> tuple[AgentRecord, ...]:
    """Return every agent not shut out, by site, the earliest first."""
    return tuple(
        AgentRecord(row.site_id, row.agent_id, row.generation, row.expires_at) for row in store.open_agents(uow)
    )


def requests(uow: UnitOfWork) -> tuple[EnrolmentRequest, ...]:
    """Return the keys that await an operator's word, the earliest first."""
    return tuple(
        EnrolmentRequest(row.site_id, row.agent_id, row.fingerprint, row.asked_at) for row in store.open_requests(uow)
    )


def decide(uow: UnitOfWork, shown: str, *, approved: bool) -> EnrolmentRequest:
    """Keep an operator's word on the key whose fingerprint the gateway shows; the whole of it must be given.

    Raises:
        NotFound: no key of this fingerprint waits.
        Forbidden: the caller may not manage the site.
    """
    wanted = shown.strip().lower().replace("-", "").replace(" ", "")
    for row in store.open_requests(uow):
        if row.fingerprint.replace("-", "") == wanted:
            uow.principal.require(Permission.MANAGE_SITES, row.site_id)
            store.decide_request(uow, row.token_hash, approved=approved, by=uow.principal.actor)
            return EnrolmentRequest(row.site_id, row.agent_id, row.fingerprint, row.asked_at)
    raise NotFound(f"no key with the fingerprint {shown} waits; ballast agents list shows those that do")


def revoke(uow: UnitOfWork, agent_id: str, reason: str) -> bool:
    """Revoke an agent; its stream ends at its next heartbeat. False when there is no such unrevoked one."""
    uow.principal.require(Permission.MANAGE_SITES)
    row = store.agent(uow, agent_id)
    if row is None or not store.revoke_agent(uow, agent_id, reason):
        return False
    uow.notify("agents", site_id=row.site_id)
    return True


def _again(uow: UnitOfWork, authority: CertificateAuthority, token: Any, csr_pem: bytes, key: bytes) -> Enrolment:
    """Answer a token that was used before: the same key gets the same answer, or what was decided since."""
    identity = AgentIdentity(uow.tenant_id, token.site_id, token.agent_id)
    issued = store.certificate(uow, token.agent_id, 1)
    if issued is not None:
        if issued.key_sha256 != hashlib.sha256(key).hexdigest() or issued.confirmed_at is not None:
            raise Refused("bad_token", _SPENT)
        return Enrolment(identity, facts_of(issued), authority.pem, fingerprint(key))
    asked = store.request(uow, token.token_hash)
    if asked is None or asked.fingerprint != fingerprint(key):
        raise Refused("bad_token", _SPENT)
    if asked.decided_at is not None and not asked.approved:
        raise Refused("key_refused", f"{asked.decided_by} refused this key; make a new token: ballast site token SITE")
    if asked.approved:
        return _issued(uow, authority, identity, csr_pem, key)
    if asked.expires_at <= uow.now():
        raise Refused("not_approved", "nobody approved this key in a day; make a new token: ballast site token SITE")
    return Enrolment(identity, None, authority.pem, fingerprint(key))


def _issued(
    uow: UnitOfWork, authority: CertificateAuthority, identity: AgentIdentity, csr_pem: bytes, key: bytes
) -> Enrolment:
    made = authority.issue(identity, csr_pem, 1)
    store.add_agent(uow, identity, made)
    store.put_certificate(uow, identity.agent_id, made)
    uow.notify("agents", site_id=identity.site_id)
    return Enrolment(identity, made, authority.pem, fingerprint(key))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("ascii")).digest()


def _agent_id(site_id: str) -> str:
    """Return a new agent's id: no other agent of any tenant has it, and a certificate's common name can hold it."""
    return f"{site_id[:_LONGEST_PREFIX]}-{secrets.token_hex(8)}"
