"""The ``$1$`` password hash (md5-crypt), which Whatsminer's token handshake is built on. Standard library only.

It is used here as a protocol's fixed key derivation, never to keep a password.
"""

import hashlib
from typing import Final

_ALPHABET: Final = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ROUNDS: Final = 1000
_PERIOD: Final = 42
_MAGIC: Final = b"$1$"
_SALT_BYTES: Final = 8
_ORDER: Final = ((0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5))


def md5_crypt(password: str, salt: str) -> str:
    """Return the 22-character digest part of ``$1$salt$digest``; only the first 8 bytes of ``salt`` count.

    Source: P.-H. Kamp, FreeBSD libcrypt, crypt-md5.c.
    """
    secret = password.encode()
    seed = salt.encode()[:_SALT_BYTES]
    return _encoded(_stretched(secret, seed, _first(secret, seed)))


def _first(secret: bytes, seed: bytes) -> bytes:
    mixed = _md5(secret + seed + secret)
    length = len(secret)
    parts = [secret, _MAGIC, seed, (mixed * (length // 16 + 1))[:length]]
    while length:
        parts.append(b"\0" if length & 1 else secret[:1])
        length >>= 1
    return _md5(b"".join(parts))


def _stretched(secret: bytes, seed: bytes, digest: bytes) -> bytes:
    # What stands before or behind the digest repeats after 2 * 3 * 7 turns: put together once, not a thousand times.
    beside = [_beside(secret, seed, turn) for turn in range(_PERIOD)]
    for turn in range(_ROUNDS):
        other = beside[turn % _PERIOD]
        digest = _md5(other + digest if turn & 1 else digest + other)
    return digest


def _beside(secret: bytes, seed: bytes, turn: int) -> bytes:
    """Return what is hashed beside the digest: before it in odd turns, behind it in even ones."""
    middle = (seed if turn % 3 else b"") + (secret if turn % 7 else b"")
    return secret + middle if turn & 1 else middle + secret


def _encoded(digest: bytes) -> str:
    text = [_group(digest[high] << 16 | digest[middle] << 8 | digest[low], 4) for high, middle, low in _ORDER]
    return "".join(text) + _group(digest[11], 2)


def _group(value: int, length: int) -> str:
    return "".join(_ALPHABET[value >> 6 * place & 0x3F] for place in range(length))


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()
