"""The list of withdrawn certificates: a file that a broker reads, and that outlives a database put back from a backup.

    agents, agent_certificates  --every change-->  key_dir/agents.crl (PEM, signed by the CA)  -->  broker, gRPC

Invariants: a serial number that was listed stays listed until the longest life of a certificate is over, whatever the
database says; the file is replaced whole; a database that cannot be read leaves the file as it is.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from cloud.core.access import system_principal
from cloud.identity import agent_store as store
from cloud.identity.authority import CertificateAuthority, certificate_facts
from cloud.identity.model import AGENT_CERTIFICATE_LIFE
from cloud.infra.db import Database

FILE_NAME: Final = "agents.crl"
_KEPT: Final = AGENT_CERTIFICATE_LIFE + timedelta(days=1)
_RENEWED_AFTER: Final = timedelta(days=1)


class WithdrawnCertificates:
    """The list in ``folder``, signed by ``authority``."""

    def __init__(self, folder: Path, authority: CertificateAuthority) -> None:
        self.path = folder / FILE_NAME
        self._authority = authority
        self._read_at: tuple[int, int] | None = None
        self._listed: dict[int, datetime] = {}
        self._signed_at: datetime | None = None

    def __contains__(self, serial: object) -> bool:
        """Return whether the certificate of this serial number is withdrawn."""
        self._refresh()
        return serial in self._listed

    def update(self, database: Database) -> bool:
        """List what the database says is withdrawn; return whether the file changed.

        Raises:
            Transient: the database cannot be read. OSError: the folder cannot be written.
        """
        found: dict[int, datetime] = {}
        for tenant_id in database.tenant_ids():
            with database.unit_of_work(system_principal(tenant_id, "revocation list")) as uow:
                for row in store.withdrawn_certificates(uow):
                    found[certificate_facts(bytes(row.certificate_pem)).serial] = row.withdrawn_at
        return self.add(found.items(), database.clock.now())

    def add(self, withdrawn: Iterable[tuple[int, datetime]], now: datetime) -> bool:
        """List ``withdrawn`` beside what is listed; return whether the file changed. Raises OSError."""
        self._refresh()
        kept = {serial: at for serial, at in self._listed.items() if now - at < _KEPT}
        wanted = {**dict(withdrawn), **kept}
        fresh = self._signed_at is not None and now - self._signed_at < _RENEWED_AFTER
        if wanted.keys() == self._listed.keys() and fresh:
            return False
        self._authority.write_list(self.path, wanted.items())
        return True

    def _refresh(self) -> None:
        try:
            state = self.path.stat()
        except FileNotFoundError:
            return
        if (state.st_mtime_ns, state.st_ino) == self._read_at:
            return
        try:
            signed = x509.load_pem_x509_crl(self.path.read_bytes())
        except ValueError:  # somebody damaged it: what was read before holds, and the next change writes it anew
            return
        self._listed = {entry.serial_number: entry.revocation_date_utc for entry in signed}
        self._signed_at = signed.last_update_utc
        self._read_at = (state.st_mtime_ns, state.st_ino)
