"""Single texts sealed with the vault's key, for what is secret in a file of ours that is none of the vault's.

    sealed:KEY NAME:base64(nonce, AES-256-GCM(text))        bound to what it is about, so that no row takes another's

Invariants: a text is never given back unsealed for want of a key: without one it is not kept at all, which is logged.
What does not look sealed is of an agent that knew no sealing, and is read as it is. cryptography is imported when the
first text is sealed or opened, not before.
"""

import base64
import logging
from typing import Final

from agent.errors import BadInput
from agent.vault import Vault
from agent.vault.keys import VaultKey, new_nonce

_LOG: Final = logging.getLogger(__name__)
_MARK: Final = "sealed:"
_NONCE_BYTES: Final = 12


class SealedTexts:
    """Seals and opens texts; keys once read are remembered, so that a ``rekey`` meanwhile loses nothing."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._key: VaultKey | None = None
        self._known: dict[str, VaultKey] = {}

    def sealed(self, text: str, about: str) -> str:
        """Return ``text`` sealed; empty where there is no key to be had."""
        if not text:
            return ""
        try:
            key = self._own_key()
        except (BadInput, OSError) as error:
            _LOG.error("%s: is kept in memory only, there is no key to seal it with: %s", about, error)
            return ""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        nonce = new_nonce()
        sealed = AESGCM(key.secret).encrypt(nonce, text.encode(), _bound(about, key.name))
        return f"{_MARK}{key.name}:{base64.b64encode(nonce + sealed).decode()}"

    def opened(self, text: str, about: str) -> str:
        """Return what was sealed; empty, and logged, where its key is gone or it was changed."""
        if not text.startswith(_MARK):
            return text
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        name, _, coded = text.removeprefix(_MARK).partition(":")
        try:
            content = base64.b64decode(coded, validate=True)
            nonce, sealed = content[:_NONCE_BYTES], content[_NONCE_BYTES:]
            return AESGCM(self._named(name).secret).decrypt(nonce, sealed, _bound(about, name)).decode()
        except (BadInput, InvalidTag, ValueError) as error:
            _LOG.error("%s: cannot be opened and is left out; order it again: %s", about, error)
            return ""

    def _own_key(self) -> VaultKey:
        if self._key is None:
            self._key = self._vault.key()
            self._known[self._key.name] = self._key
        return self._key

    def _named(self, name: str) -> VaultKey:
        if name not in self._known:
            self._known[name] = self._vault.key_named(name)
        return self._known[name]


def _bound(about: str, key_name: str) -> bytes:
    return f"ballast sealed text, key {key_name}, {about}".encode()
