"""Who this agent is and whom it believes: what enrolment left in ``state_dir/identity``.

Invariants: the private key is readable by its owner alone; the folder is replaced whole, never half: a
replacement that was cut off leaves the old one.
"""

import errno
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from agent.errors import BadInput
from agent.files import sync_folder, write_new
from agent.uplink import Tls

_REMEDY: Final = "enrol with: ballast-agent enrol --config agent.toml --token TOKEN"
_PROBE_BYTES: Final = 16 * 1024  # more than an identity has


@dataclass(frozen=True, slots=True)
class Identity:
    """The agent's names, the raw Ed25519 public keys it trusts, its TLS material, and how many that was in its life."""

    tenant_id: str
    site_id: str
    agent_id: str
    order_keys: tuple[bytes, ...]
    time_keys: tuple[bytes, ...]
    tls: Tls
    generation: int = 1


@dataclass(frozen=True, slots=True)
class CertificateLife:
    """From when until when a certificate holds, UTC."""

    issued_at: datetime
    expires_at: datetime


def load_identity(folder: Path, site_id: str) -> Identity:
    """Return the identity in ``folder``, which must be for ``site_id``.

    Raises:
        BadInput: the agent is not enrolled, a file is broken, or it was enrolled for another site.
    """
    trust_file = folder / "trust.json"
    _recover(folder)
    try:
        trust = json.loads(_read(trust_file))
        identity = Identity(
            tenant_id=_text(trust, "tenant_id"),
            site_id=_text(trust, "site_id"),
            agent_id=_text(trust, "agent_id"),
            order_keys=_keys(trust, "order_keys"),
            time_keys=_keys(trust, "time_keys"),
            generation=_whole(trust, "generation", 1),
            tls=Tls(_read(folder / "ca.crt"), _read(folder / "agent.crt"), _read(folder / "agent.key")),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{trust_file}: broken ({error}); {_REMEDY}") from None
    if identity.site_id != site_id:
        raise BadInput(f"{trust_file}: enrolled for site {identity.site_id}, the settings say {site_id}; {_REMEDY}")
    return identity


def certificate_life(identity: Identity) -> CertificateLife | None:
    """Return the life of the identity's certificate; None when what stands there is not one."""
    try:
        certificate = x509.load_pem_x509_certificate(identity.tls.certificate_pem)
    except ValueError:
        return None
    return CertificateLife(certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def check_writable(folder: Path) -> None:
    """Try every step by which ``store_identity`` would replace ``folder``; what stands there stays.

    Raises:
        OSError: one of them fails.
    """
    _recover(folder)
    fresh, old = _new(folder), _old(folder)
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700, parents=True)
    try:
        write_new(fresh / "probe", bytes(_PROBE_BYTES))
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            if old.exists():
                raise OSError(errno.ENOTEMPTY, "cannot be removed", str(old))
            folder.rename(old)
            old.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def store_identity(folder: Path, identity: Identity) -> None:
    """Write ``identity`` to ``folder``, replacing what was there in one step.

    Raises:
        OSError: the disk takes nothing; what was there stays.
    """
    _recover(folder)
    fresh = _new(folder)
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700, parents=True)
    trust = {
        "tenant_id": identity.tenant_id,
        "site_id": identity.site_id,
        "agent_id": identity.agent_id,
        "order_keys": [key.hex() for key in identity.order_keys],
        "time_keys": [key.hex() for key in identity.time_keys],
        "generation": identity.generation,
    }
    write_new(fresh / "trust.json", json.dumps(trust, indent=1).encode() + b"\n")
    write_new(fresh / "ca.crt", identity.tls.ca_pem)
    write_new(fresh / "agent.crt", identity.tls.certificate_pem)
    write_new(fresh / "agent.key", identity.tls.key_pem)
    sync_folder(fresh)
    old = _old(folder)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _recover(folder: Path) -> None:
    """Put back what a replacement moved aside when it was cut off between its two renames."""
    old = _old(folder)
    if not folder.exists() and old.exists():
        old.rename(folder)


def _new(folder: Path) -> Path:
    return folder.with_name(folder.name + ".new")


def _old(folder: Path) -> Path:
    return folder.with_name(folder.name + ".old")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file: this agent is not enrolled; {_REMEDY}") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}; run as the user that enrolled") from None


def _text(trust: Mapping[str, Any], name: str) -> str:
    value = trust[name]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is not a text")
    return value


def _whole(trust: Mapping[str, Any], name: str, default: int) -> int:
    value = trust.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is not a whole number from 1 up")
    return value


def _keys(trust: Mapping[str, Any], name: str) -> tuple[bytes, ...]:
    keys = tuple(bytes.fromhex(text) for text in trust[name])
    if not keys or any(len(key) != 32 for key in keys):
        raise ValueError(f"{name} does not hold 32-byte keys")
    return keys
