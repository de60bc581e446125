"""The key of the vault: from systemd's credentials where the unit hands one over, else a file beside the identity.

    $CREDENTIALS_DIRECTORY/ballast-vault-key    decrypted by systemd for this service alone; bound to the TPM, if any
    state_dir/credentials.key                   readable by its owner alone; made with the first vault
    state_dir/credentials.key.next              only while ``rekey`` is under way

Invariants: a key is 32 bytes and is named by a digest that tells nothing about it; a key file is never overwritten
while a vault may be sealed with it.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.errors import BadInput
from agent.files import replace_file, sync_folder

CREDENTIAL_NAME: Final = "ballast-vault-key"
_KEY_BYTES: Final = 32
_HEX: Final = re.compile(rb"[0-9A-Fa-f]{64}")


@dataclass(frozen=True, slots=True)
class VaultKey:
    """One key and where it was found."""

    secret: bytes = field(repr=False)
    place: Path

    @property
    def name(self) -> str:
        """Return the name a vault has for this key."""
        return hashlib.sha256(b"ballast-vault-key|" + self.secret).hexdigest()[:16]


class KeyPlaces:
    """Where this agent's keys may be."""

    def __init__(self, state_dir: Path, key_directory: Path | None) -> None:
        """``key_directory`` is where systemd put the service's credentials, None outside of it."""
        self._file = state_dir / "credentials.key"
        self._next = state_dir / "credentials.key.next"
        self._handed_over = None if key_directory is None else key_directory / CREDENTIAL_NAME

    def named(self, name: str) -> VaultKey:
        """Return the key called ``name``.

        Raises:
            BadInput: it is at none of the places, or what is there is no key.
        """
        complaint: BadInput | None = None
        for place in self._places():
            try:
                key = _read(place)
            except BadInput as error:
                complaint = error
                continue
            if key is not None and key.name == name:
                return key
        raise complaint or BadInput(f"its key {name} is {self._nowhere()}")

    def for_a_new_vault(self) -> VaultKey:
        """Return the key that a first vault is sealed with; the key file is made when there is none at all.

        Raises:
            BadInput: what is at the first place is no key. OSError: the file cannot be written.
        """
        for place in self._places():
            key = _read(place)
            if key is not None:
                return key
        return self._make(self._file)

    def successor(self) -> VaultKey:
        """Return the key to seal anew with: the one handed over, else a fresh one that waits beside the present one.

        Raises:
            BadInput: what is handed over is no key. OSError: the file cannot be written.
        """
        handed_over = None if self._handed_over is None else _read(self._handed_over)
        if handed_over is not None:
            return handed_over
        self._next.unlink(missing_ok=True)
        return self._make(self._next)

    def keep_only(self, key: VaultKey) -> None:
        """Forget the key files that the vault, now sealed with ``key``, no longer needs. Raises OSError."""
        if key.place == self._next:
            self._next.rename(self._file)
        else:
            for place in (self._next, self._file):
                if place != key.place:
                    place.unlink(missing_ok=True)
        sync_folder(self._file.parent)

    def open_to_others(self) -> Path | None:
        """Return the key file if anybody but its owner may read it."""
        try:
            return self._file if self._file.stat().st_mode & 0o077 else None
        except OSError:
            return None

    def _places(self) -> Iterator[Path]:
        if self._handed_over is not None:
            yield self._handed_over
        yield self._file
        yield self._next

    def _nowhere(self) -> str:
        if self._handed_over is not None:
            return f"neither {self._handed_over} nor {self._file}"
        return (
            f"not in {self._file}, and systemd hands none over; if the unit holds it, run this inside the unit's "
            f"surroundings: systemd-run --pipe --wait --property=LoadCredentialEncrypted={CREDENTIAL_NAME} ..."
        )

    @staticmethod
    def _make(place: Path) -> VaultKey:
        key = VaultKey(os.urandom(_KEY_BYTES), place)
        replace_file(place, key.secret.hex().encode() + b"\n")
        return key


def new_nonce() -> bytes:
    """Return 12 bytes that no sealing under one key ever had before."""
    return os.urandom(12)


def _read(place: Path) -> VaultKey | None:
    """Return the key at ``place``, None when nothing is there. Raises BadInput."""
    try:
        content = place.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadInput(f"{place}: cannot be read: {error.strerror}; run as the user of the service") from None
    text = content.strip()
    if _HEX.fullmatch(text):
        return VaultKey(bytes.fromhex(text.decode()), place)
    if len(content) == _KEY_BYTES:
        return VaultKey(content, place)
    raise BadInput(f"{place}: is no key; a key is 64 hexadecimal digits, as `openssl rand -hex 32` prints them")
