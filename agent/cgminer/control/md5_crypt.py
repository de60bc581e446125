"""The ``$1$`` password hash (md5-crypt), which Whatsminer's token handshake is built on. Standard library only.

It is used here as a protocol's fixed key derivation, never to keep a password.

Invariant: the system's libcrypt, where it is installed and knows this hash, only saves time: each of its thousand
rounds costs Python more than the exchange that it is for, and a site's burst has two hashes a Whatsminer. Whatever it
does not take is hashed here.
"""

import ctypes
import hashlib
import re
from collections.abc import Callable
from functools import cache
from typing import Final

_ALPHABET: Final = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ROUNDS: Final = 1000
_PERIOD: Final = 42
_MAGIC: Final = b"$1$"
_SALT_BYTES: Final = 8
_DIGEST_LENGTH: Final = 22
_ORDER: Final = ((0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5))
_PLAIN_SALT: Final = re.compile(rb"[./0-9A-Za-z]{1,8}")
"""What every libcrypt takes for a salt."""
_LIBRARIES: Final = ("libcrypt.so.2", "libcrypt.so.1")
_KNOWN: Final = (b"admin", b"BQ5hoXV9", "RxmaDUO33TS7O26yeMHZ81")
"""A secret, a salt and their digest, by which a library shows that it does what is done here."""


def md5_crypt(password: str, salt: str) -> str:
    """Return the 22-character digest part of ``$1$salt$digest``; only the first 8 bytes of ``salt`` count.

    Source: P.-H. Kamp, FreeBSD libcrypt, crypt-md5.c.
    """
    secret = password.encode()
    seed = salt.encode()[:_SALT_BYTES]
    if _PLAIN_SALT.fullmatch(seed) and b"\0" not in secret and (native := _native()) is not None:
        found = native(secret, seed)
        if found is not None:
            return found
    return _in_python(secret, seed)


def _in_python(secret: bytes, seed: bytes) -> str:
    return _encoded(_stretched(secret, seed, _first(secret, seed)))


@cache
def _native() -> Callable[[bytes, bytes], str | None] | None:
    """Return the system's own hash, looked for at the first order; None where there is none that agrees with ours."""
    for name in _LIBRARIES:
        try:
            # PyDLL keeps the interpreter's lock: ``crypt`` answers in one buffer for all threads.
            crypt = ctypes.PyDLL(name).crypt
        except (OSError, AttributeError):
            continue
        crypt.argtypes, crypt.restype = (ctypes.c_char_p, ctypes.c_char_p), ctypes.c_char_p

        def native(secret: bytes, seed: bytes, crypt: Callable[[bytes, bytes], bytes | None] = crypt) -> str | None:
            setting = _MAGIC + seed + b"$"
            said = crypt(secret, setting)
            whole = said is not None and said.startswith(setting) and len(said) == len(setting) + _DIGEST_LENGTH
            return said[len(setting) :].decode("ascii", "replace") if said is not None and whole else None

        if native(*_KNOWN[:2]) == _KNOWN[2]:
            return native
    return None


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
