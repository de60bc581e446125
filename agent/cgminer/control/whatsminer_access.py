"""Whatsminer API v2: the right to write, by token handshake and cipher.

    get_token -> time, salt, newsalt
    key  = md5_crypt(password, salt)            the device derives the same
    sign = md5_crypt(key + time, newsalt)       the token of the write command
    {"enc":1,"data": base64(AES-256-ECB(sha256(key), command padded with NUL))}

Invariants: the password never travels; a token is used for at most 25 of its 30 minutes and dropped when refused,
because a device hands out 32 tokens to one address and then none.

Source: WhatsMiner API 2.0.5, "Token" and "API ciphertext".
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from agent.cgminer.control.md5_crypt import md5_crypt
from agent.cgminer.device import Device
from agent.cgminer.repair import decode
from agent.cgminer.status import Status
from agent.errors import AccessDenied, Garbled, SessionBusy, UnsupportedDevice

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.modes import ECB

_BLOCK_BYTES: Final = 16
_TOKEN_LIFE_S: Final = 25 * 60
_LONGEST_GRANT: Final = 64
"""Each part of a grant is a few characters; they go through a thousand rounds of a hash."""
_BAD_TOKEN: Final = 135
_TOO_MANY_TOKENS: Final = 136
ENABLE_API: Final = "change its default password and enable the write API with the vendor's tool"


@dataclass(frozen=True, slots=True)
class Token:
    """One granted token: the cipher key and the signature that goes into each command."""

    key: bytes
    sign: str
    granted_at: float


class Packet(NamedTuple):
    """One enciphered command, and the key that its answer is enciphered with."""

    request: bytes
    key: bytes


class WhatsminerAccess:
    """The right to write to one Whatsminer: the token last granted, and the password it rests on."""

    def __init__(self) -> None:
        self._token: Token | None = None
        self._password = ""

    async def write(self, device: Device, password: str, command: str, parameters: Mapping[str, object]) -> Status:
        """Send one write command and return the device's answer; a refused token is renewed once.

        Raises:
            AccessDenied: the write API is off, or the password is another.
            SessionBusy: all tokens are handed out.
            UnsupportedDevice: it refuses. Garbled: the answer is not one.
        """
        kept = self._token is not None
        status = await self._write_once(device, password, command, parameters)
        if status.code == _BAD_TOKEN and kept:
            self.forget()
            status = await self._write_once(device, password, command, parameters)
        self.check(device, status, command)
        return status

    async def packet(self, device: Device, password: str, command: str, parameters: Mapping[str, object]) -> Packet:
        """Return the enciphered command, for a token that is fetched where none is at hand. Raises as ``write``."""
        token = self._token
        stale = token is None or device.monotonic() - token.granted_at > _TOKEN_LIFE_S or password != self._password
        if token is None or stale:
            token, self._password = await _fetch(device, password), password
            self._token = token
        order = {"cmd": command, **parameters, "token": token.sign}
        sealed = seal(json.dumps(order, separators=(",", ":")), token.key)
        return Packet(json.dumps({"enc": 1, "data": sealed}, separators=(",", ":")).encode(), token.key)

    def forget(self) -> None:
        """Drop the token: it was refused, or its password has changed."""
        self._token = None

    def check(self, device: Device, status: Status, command: str) -> None:
        """Raise what a device's answer to ``command`` means when it has not taken it; see ``write``."""
        status.raise_if_denied(device.address, ENABLE_API)
        if status.code == _BAD_TOKEN:
            self.forget()
            raise AccessDenied(
                f"{device.address}: refuses our token ({status.text}); correct the password of its credentials group "
                "(whatsminer unless inventory.csv names another)"
            )
        if status.code == _TOO_MANY_TOKENS:
            raise SessionBusy(f"{device.address}: has no token left; it is tried again")
        if not status.accepted:
            raise UnsupportedDevice(f"{device.address}: refuses {command}: {status.text}; check its firmware version")

    async def _write_once(
        self, device: Device, password: str, command: str, parameters: Mapping[str, object]
    ) -> Status:
        packet = await self.packet(device, password, command, parameters)
        return Status.of(opened(device, await device.send(packet.request), packet.key))


async def _fetch(device: Device, password: str) -> Token:
    document = await device.ask("get_token")
    status = Status.of(document)
    status.raise_if_denied(device.address, ENABLE_API)
    if status.code == _TOO_MANY_TOKENS or "over max" in status.message.lower():
        raise SessionBusy(f"{device.address}: has no token left; it is tried again")
    grant = document.get("Msg")
    if not isinstance(grant, dict) or not all(_is_part(grant.get(name)) for name in ("time", "salt", "newsalt")):
        raise Garbled(f"{device.address}: grants no token: {status.text}; {ENABLE_API}")
    return derive(password, grant["time"], grant["salt"], grant["newsalt"], device.monotonic())


def _is_part(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_GRANT


def derive(password: str, time: str, salt: str, newsalt: str, granted_at: float) -> Token:
    """Return the token that ``password`` and the device's three values give."""
    key = md5_crypt(password, salt)
    sign = md5_crypt(key + time, newsalt)
    return Token(hashlib.sha256(key.encode()).digest(), sign, granted_at)


def seal(text: str, key: bytes) -> str:
    """Return ``text`` padded with NUL, enciphered with AES-256-ECB (the device knows no other) and in base64."""
    plain = text.encode()
    encryptor = _cipher(key).encryptor()
    sealed = encryptor.update(plain + bytes(-len(plain) % _BLOCK_BYTES)) + encryptor.finalize()
    return base64.b64encode(sealed).decode("ascii")


def unseal(text: str, key: bytes) -> bytes:
    """Return the bytes that ``seal`` took, without padding.

    Raises:
        ValueError: ``text`` is not base64 of whole blocks.
    """
    sealed = base64.b64decode("".join(text.split()), validate=True)
    decryptor = _cipher(key).decryptor()
    return (decryptor.update(sealed) + decryptor.finalize()).rstrip(b"\0")


def _cipher(key: bytes) -> "Cipher[ECB]":
    # Imported at the first Whatsminer order: the failsafe command must start in an instant on a site without any.
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # noqa: PLC0415

    return Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305 - the vendor's protocol


def opened(device: Device, reply: bytes, key: bytes) -> Mapping[str, Any]:
    """Return the document in a reply, deciphered where it is enciphered. Raises Garbled when there is none."""
    document = decode(reply).document
    if isinstance(document, dict) and isinstance(document.get("enc"), str):
        try:
            document = decode(unseal(document["enc"], key)).document
        except (ValueError, binascii.Error):
            raise Garbled(
                f"{device.address}: its answer cannot be deciphered; correct its password in the credentials"
            ) from None
    if not isinstance(document, dict):
        raise Garbled(f"{device.address}: answers with something else than an object; check that it is a Whatsminer")
    return document
