"""Whatsminer API v2: token handshake and encrypted write commands.

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
from typing import TYPE_CHECKING, Any, Final

from agent.cgminer.control.driver import ReadBack, Wanted
from agent.cgminer.control.md5_crypt import md5_crypt
from agent.cgminer.control.read_back import shows_started, shows_stopped
from agent.cgminer.device import Device
from agent.cgminer.observation import Observation
from agent.cgminer.repair import decode
from agent.cgminer.status import Status
from agent.errors import AccessDenied, Garbled, SessionBusy, UnsupportedDevice
from sitelink.types import Verb

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.modes import ECB

_BLOCK_BYTES: Final = 16
_TOKEN_LIFE_S: Final = 25 * 60
_LONGEST_GRANT: Final = 64
"""Each part of a grant is a few characters; they go through a thousand rounds of a hash."""
DEFAULT_PASSWORD: Final = "admin"  # noqa: S105 - what a Whatsminer leaves its factory with
_BAD_TOKEN: Final = 135
_TOO_MANY_TOKENS: Final = 136
_ENABLE_API: Final = "change its default password and enable the write API with the vendor's tool"


@dataclass(frozen=True, slots=True)
class Token:
    """One granted token: the cipher key and the signature that goes into each command."""

    key: bytes
    sign: str
    granted_at: float


class WhatsminerAccess:
    """The right to write to one Whatsminer: the token last granted for the device's credentials."""

    def __init__(self, password: str) -> None:
        """``password`` is used as long as the device carries no credentials."""
        self._password = password
        self._token: Token | None = None

    async def write(self, device: Device, command: str, parameters: Mapping[str, str]) -> Status:
        """Send one write command and return the device's answer; a refused token is renewed once.

        Raises:
            AccessDenied: the write API is off, or the password is another.
            SessionBusy: all tokens are handed out.
            Garbled: the answer is not one.
        """
        status = await self._write_once(device, command, parameters)
        if status.code == _BAD_TOKEN and self._token is not None:
            self._token = None
            status = await self._write_once(device, command, parameters)
        if status.code == _BAD_TOKEN:
            self._token = None
            raise AccessDenied(f"{device.address}: refuses our token; check the password in whatsminer_password")
        if status.code == _TOO_MANY_TOKENS:
            raise SessionBusy(f"{device.address}: has no token left; it is tried again")
        return status

    async def _write_once(self, device: Device, command: str, parameters: Mapping[str, str]) -> Status:
        token = self._token
        if token is None or device.monotonic() - token.granted_at > _TOKEN_LIFE_S:
            token = self._token = await self._fetch(device)
        order = {"cmd": command, **parameters, "token": token.sign}
        sealed = seal(json.dumps(order, separators=(",", ":")), token.key)
        reply = await device.send(json.dumps({"enc": 1, "data": sealed}, separators=(",", ":")).encode())
        return Status.of(_opened(device, reply, token.key))

    async def _fetch(self, device: Device) -> Token:
        document = await device.ask("get_token")
        status = Status.of(document)
        status.raise_if_denied(device.address, _ENABLE_API)
        if status.code == _TOO_MANY_TOKENS or "over max" in status.message.lower():
            raise SessionBusy(f"{device.address}: has no token left; it is tried again")
        grant = document.get("Msg")
        if not isinstance(grant, dict) or not all(_is_part(grant.get(name)) for name in ("time", "salt", "newsalt")):
            raise Garbled(f"{device.address}: grants no token: {status.text}; {_ENABLE_API}")
        password = self._password if device.credentials is None else device.credentials.password
        return derive(password, grant["time"], grant["salt"], grant["newsalt"], device.monotonic())


class Whatsminer:
    """Control of one Whatsminer of API v1 or v2."""

    def __init__(self, password: str = DEFAULT_PASSWORD) -> None:
        self._access = WhatsminerAccess(password)

    @property
    def verbs(self) -> frozenset[Verb]:
        """Return what a Whatsminer can be told."""
        return frozenset({Verb.STOP, Verb.START})

    async def former(self, device: Device, wanted: Wanted) -> str:
        """Return nothing: a miner whose boards are powered on again is as it was."""
        return ""

    async def send(self, device: Device, wanted: Wanted, former: str) -> bytes:
        """See ``Driver.send``."""
        if wanted.verb is Verb.STOP:
            # "true" is text: the firmware ignores a JSON true and then answers only after the boards are off.
            await _order(device, self._access, "power_off", {"respbefore": "true"})
        else:
            await _order(device, self._access, "power_on", {})
        return b""

    async def shows(self, device: Device, wanted: Wanted, before: Observation) -> ReadBack:
        """See ``Driver.shows``."""
        seen = await device.observe()
        return shows_stopped(seen, before) if wanted.verb is Verb.STOP else shows_started(seen)


async def _order(device: Device, access: WhatsminerAccess, command: str, parameters: Mapping[str, str]) -> None:
    status = await access.write(device, command, parameters)
    status.raise_if_denied(device.address, _ENABLE_API)
    if not status.accepted:
        raise UnsupportedDevice(f"{device.address}: refuses {command}: {status.text}; check its firmware version")


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


def _opened(device: Device, reply: bytes, key: bytes) -> Mapping[str, Any]:
    document = decode(reply).document
    if isinstance(document, dict) and isinstance(document.get("enc"), str):
        try:
            document = decode(unseal(document["enc"], key)).document
        except (ValueError, binascii.Error):
            raise Garbled(f"{device.address}: its answer cannot be deciphered; check whatsminer_password") from None
    if not isinstance(document, dict):
        raise Garbled(f"{device.address}: answers with something else than an object; check that it is a Whatsminer")
    return document
