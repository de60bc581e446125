"""Who signed a batch: checked against the certificates that the agent has held.

Invariant: the certificates are read again before a signature is called bad, since the agent may have renewed.
"""

from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from cloud.core.access import Principal
from cloud.identity import certificates
from cloud.infra.db import Database
from sitelink.batch_signing import BatchKeys
from sitelink.signing import BadSignature
from sitelink.types import Batch

_DER: Final = serialization.Encoding.DER
_INFO: Final = serialization.PublicFormat.SubjectPublicKeyInfo


class BatchSignatures:
    """Checks the batches of one agent."""

    def __init__(self, database: Database, principal: Principal, agent_id: str) -> None:
        self._database = database
        self._principal = principal
        self._agent_id = agent_id
        self._keys = BatchKeys(())

    def check(self, batch: Batch) -> str:
        """Return the id of the key that signed ``batch``. Blocks on the database where the key is new.

        Raises:
            BadSignature: none of the agent's keys did.
            Transient: the certificates could not be read.
        """
        try:
            return self._keys.check(batch)
        except BadSignature:
            self._keys = BatchKeys([_public_der(pem) for pem in reversed(self._held())])
            return self._keys.check(batch)

    def _held(self) -> tuple[bytes, ...]:
        return self._database.run(self._principal, lambda uow: certificates.held_by(uow, self._agent_id))


def _public_der(certificate_pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(certificate_pem).public_key().public_bytes(_DER, _INFO)
