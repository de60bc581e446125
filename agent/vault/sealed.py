"""The vault's file: who sealed it, and what is sealed.

    {"format": 1, "key": NAME OF THE KEY, "nonce": .., "sealed": AES-256-GCM}

Invariants: a nonce is used once; the name of the key is bound to what is sealed, so that no part of one file can be
moved into another. cryptography is imported when the first vault is sealed or opened, not before.
"""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from agent.errors import BadInput
from agent.vault.keys import VaultKey, new_nonce

_FORMAT: Final = 1
_PARTS: Final = ("key", "nonce", "sealed")
_REMEDY: Final = "restore it from a backup, or remove it and enter the passwords again: ballast-agent credentials set"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A vault's file, read and not yet opened. ``key`` is the name of the key it needs."""

    path: Path
    key: str
    nonce: bytes
    sealed: bytes

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the file at ``path``.

        Raises:
            BadInput: it cannot be read, or is no vault.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BadInput(f"{path}: cannot be read: {error.strerror}; run as the user of the service") from None
        try:
            document = json.loads(content)
            written_by, key, nonce, sealed = (document[name] for name in ("format", *_PARTS))
            if written_by == _FORMAT and isinstance(key, str):
                return cls(path, key, base64.b64decode(nonce, validate=True), base64.b64decode(sealed, validate=True))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadInput(f"{path}: is no vault of this agent, or was cut off; {_REMEDY}") from None
        raise BadInput(f"{path}: was written by a newer agent; upgrade this one")

    def opened(self, key: VaultKey) -> Any:
        """Return the document inside.

        Raises:
            BadInput: it was changed or damaged since it was sealed.
        """
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - a site without a vault does not pay for it
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        try:
            return json.loads(AESGCM(key.secret).decrypt(self.nonce, self.sealed, _bound(key)))
        except (InvalidTag, ValueError):
            raise BadInput(f"{self.path}: was changed or damaged since it was written; {_REMEDY}") from None


def seal(document: Any, key: VaultKey) -> bytes:
    """Return ``document``, sealed with ``key``, as a vault's file."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    nonce = new_nonce()
    sealed = AESGCM(key.secret).encrypt(nonce, json.dumps(document, sort_keys=True).encode(), _bound(key))
    envelope = {
        "format": _FORMAT,
        "key": key.name,
        "nonce": base64.b64encode(nonce).decode(),
        "sealed": base64.b64encode(sealed).decode(),
    }
    return json.dumps(envelope, indent=1).encode() + b"\n"


def _bound(key: VaultKey) -> bytes:
    return f"ballast credentials vault {_FORMAT}, key {key.name}".encode()
