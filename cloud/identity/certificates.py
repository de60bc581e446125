r"""An agent's certificates: who may act with one, how it is renewed, and how a copied identity shows.

    generation 1 --Renew, over mTLS with 1--> 2 issued --first shown--> 2 in use; 1 is old
                                                   \-- 1 shown again after that: somebody else holds 1's key

Invariants:

* An agent's certificates are numbered, in the certificate itself. Only the one in use may renew, to a later
  number.
* A renewal whose answer was lost is answered again: for the same key as often as it is asked, for another key once.
* Two gateways that show one identity lock it: neither is believed any more, and both are told so.
* A certificate of a later generation than is known here, or of an agent that is not known here, is one that this cloud
  gave out and has forgotten, since it was put back from a backup: it is taken up again, unless it was withdrawn.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cloud.core.errors import Forbidden
from cloud.identity import agent_store as store
from cloud.identity.authority import CertificateAuthority, certificate_facts, key_bytes, requested_key
from cloud.identity.model import AgentIdentity, CertificateFacts, Verdict
from cloud.infra.db import UnitOfWork
from cloud.infra.sites import require_site

_AGAIN: Final = "make a token: ballast site token {site}, and enrol the right gateway with it"


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a renewal came to; ``certificate`` is None when the verdict is a refusal."""

    verdict: Verdict
    certificate: CertificateFacts | None = None


def admit(
    uow: UnitOfWork, identity: AgentIdentity, shown: CertificateFacts, is_withdrawn: Callable[[int], bool]
) -> Verdict:
    """Judge the agent behind a certificate that our CA signed, and revoke the site's earlier agents when it may act.

    Commit what it changed whatever the verdict says. ``is_withdrawn`` tells serial numbers of the revocation list.
    Asked again, it changes nothing more: an agent is only ever replaced by one enrolled after it.
    """
    row = store.agent(uow, identity.agent_id)
    known = row is not None and (row.revoked_at is not None or row.generation > shown.generation)
    if is_withdrawn(shown.serial) and not known:
        return Verdict(f"the certificate of agent {identity.agent_id} was withdrawn; {_again(identity)}")
    if row is None:
        refusal = _take_up(uow, identity, shown)
        if refusal:
            return Verdict(refusal)
        row = store.agent(uow, identity.agent_id)
    refusal = _standing(uow, identity, row, shown)
    if refusal:
        return Verdict(refusal)
    if not _is_in_use(uow, row, shown):
        return _locked(uow, identity, f"certificate {shown.generation} was shown while {row.generation} was in use")
    if store.revoke_earlier_agents(uow, row):
        uow.notify("agents", site_id=identity.site_id)
    return Verdict()


def recheck(uow: UnitOfWork, identity: AgentIdentity, certificate_sha256: str | None) -> None:
    """Check that an agent that was admitted may still act; ``certificate_sha256`` None: whichever it showed.

    Raises:
        Forbidden: it was revoked or locked, it expired, or has gone over to a newer certificate.
    """
    row = store.agent(uow, identity.agent_id)
    if row is None or row.site_id != identity.site_id:
        raise Forbidden(_unknown(identity))
    if row.revoked_at is not None:
        raise Forbidden(_revoked(row))
    if row.expires_at <= uow.now():
        raise Forbidden(_expired(identity, row.expires_at))
    if certificate_sha256 not in (None, row.certificate_sha256):
        raise Forbidden(f"agent {identity.agent_id} has a newer certificate in use; connect with that")


def renew(
    uow: UnitOfWork,
    authority: CertificateAuthority,
    identity: AgentIdentity,
    shown: CertificateFacts,
    csr_pem: bytes,
    is_withdrawn: Callable[[int], bool],
) -> Renewal:
    """Return the next certificate of an agent that shows the one in use. Commit whatever the verdict says.

    The same request may come many times: see the invariants.

    Raises:
        Refused: the request for the certificate is not one.
    """
    verdict = admit(uow, identity, shown, is_withdrawn)
    if verdict.refusal:
        return Renewal(verdict)
    wanted = key_hash(csr_pem, identity.site_id)
    newest = store.certificates(uow, identity.agent_id)[-1]
    again = newest.generation > shown.generation
    if again and newest.key_sha256 == wanted:
        return Renewal(Verdict(), facts_of(newest))
    if again and newest.reissued:
        why = f"certificate {shown.generation} asked for its successor with a third key"
        return Renewal(_locked(uow, identity, why))
    made = authority.issue(identity, csr_pem, newest.generation + 1)
    store.put_certificate(uow, identity.agent_id, made, reissued=again)
    return Renewal(Verdict(), made)


def key_hash(csr_pem: bytes, site_id: str) -> str:
    """Return the SHA-256 of the key in a signing request, hex. Raises Refused."""
    return hashlib.sha256(key_bytes(requested_key(csr_pem, site_id))).hexdigest()


def facts_of(row: Any) -> CertificateFacts:
    """Return what a stored certificate says."""
    return certificate_facts(bytes(row.certificate_pem))


def held_by(uow: UnitOfWork, agent_id: str) -> tuple[bytes, ...]:
    """Return every certificate (PEM) that is kept of an agent, the earliest first: it signed its batches with these."""
    return tuple(bytes(row.certificate_pem) for row in store.certificates(uow, agent_id))


def _take_up(uow: UnitOfWork, identity: AgentIdentity, shown: CertificateFacts) -> str:
    """Take up an agent that this cloud enrolled and has forgotten; return why not, "" when it is known now."""
    require_site(uow, identity.site_id)
    later = store.successor(uow, identity.site_id, shown.issued_at)
    if later is not None:
        return f"{_unknown(identity)}: {later} was enrolled after it"
    store.add_agent(uow, identity, shown, shown.issued_at)
    store.put_certificate(uow, identity.agent_id, shown, confirmed=True)
    return ""


def _standing(uow: UnitOfWork, identity: AgentIdentity, row: Any, shown: CertificateFacts) -> str:
    if row.site_id != identity.site_id:
        return _unknown(identity)
    if row.revoked_at is not None:
        return _revoked(row)
    if shown.expires_at <= uow.now():
        return _expired(identity, shown.expires_at)
    return ""


def _is_in_use(uow: UnitOfWork, row: Any, shown: CertificateFacts) -> bool:
    """Return whether the certificate shown is the agent's present one, which its next becomes by being shown."""
    if shown.sha256 == row.certificate_sha256:
        if store.certificate(uow, row.agent_id, shown.generation) is None:  # enrolled by an earlier version
            store.put_certificate(uow, row.agent_id, shown)
        store.confirm_certificate(uow, row.agent_id, shown)
        return True
    if shown.generation <= row.generation:
        return False
    known = store.certificate(uow, row.agent_id, shown.generation)
    if known is not None and known.certificate_sha256 != shown.sha256:
        return False
    if known is None:
        store.put_certificate(uow, row.agent_id, shown)
    store.confirm_certificate(uow, row.agent_id, shown)
    uow.notify("agents", site_id=row.site_id)
    return True


def _locked(uow: UnitOfWork, identity: AgentIdentity, why: str) -> Verdict:
    reason = f"locked, two gateways hold its identity ({why})"
    store.revoke_agent(uow, identity.agent_id, reason)
    uow.notify("agents", site_id=identity.site_id)
    return Verdict(f"agent {identity.agent_id} is {reason}: find the copy, then {_again(identity)}", locked=True)


def _again(identity: AgentIdentity) -> str:
    return _AGAIN.format(site=identity.site_id)


def _unknown(identity: AgentIdentity) -> str:
    return f"agent {identity.agent_id} is not enrolled for site {identity.site_id}; enrol it again"


def _revoked(row: Any) -> str:
    return f"agent {row.agent_id} was revoked: {row.revoked_reason}; enrol it again"


def _expired(identity: AgentIdentity, at: datetime) -> str:
    return f"the certificate of agent {identity.agent_id} expired at {at:%Y-%m-%d}; {_again(identity)}"
