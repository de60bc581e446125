"""The device's half of Whatsminer's write protocol: md5-crypt tokens and AES-256-ECB envelopes.

Invariant: written apart from any client's code, so that a client is tested against a second opinion.

      key  = digest part of md5-crypt(admin password, salt)
      sign = digest part of md5-crypt(key + time, newsalt)
      envelope = base64(AES-256-ECB(sha256(key), JSON padded with NUL to 16))
"""

import base64
import binascii
import hashlib

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_SYMBOLS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BLOCK = 16


def md5_crypt(password: str, salt: str) -> str:
    """Return the 22 characters after ``$1$salt$``.

    Source: the md5-crypt scheme of FreeBSD's libcrypt (P.-H. Kamp, 1994).
    """
    key, seed = password.encode(), salt.encode()[:8]
    inner = _md5(key + seed + key)
    outer = key + b"$1$" + seed + (inner * (len(key) // 16 + 1))[: len(key)]
    bits = len(key)
    while bits:
        outer += b"\x00" if bits & 1 else key[:1]
        bits >>= 1
    state = _md5(outer)
    for turn in range(1000):
        odd = turn & 1
        message = (key if odd else state) + (seed if turn % 3 else b"") + (key if turn % 7 else b"")
        state = _md5(message + (state if odd else key))
    groups = ((0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5))
    text = "".join(_spell(state[a] << 16 | state[b] << 8 | state[c], 4) for a, b, c in groups)
    return text + _spell(state[11], 2)


def open_envelope(data: str, key: str) -> bytes:
    """Return the plain bytes of ``data``.

    Raises:
        ValueError: ``data`` is not base64 of whole blocks.
    """
    try:
        sealed = base64.b64decode("".join(data.split()), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if len(sealed) % _BLOCK:
        raise ValueError("not whole blocks")
    decryptor = _cipher(key).decryptor()
    return (decryptor.update(sealed) + decryptor.finalize()).rstrip(b"\x00")


def close_envelope(plain: bytes, key: str) -> str:
    """Return ``plain`` as an envelope."""
    encryptor = _cipher(key).encryptor()
    sealed = encryptor.update(plain + bytes(-len(plain) % _BLOCK)) + encryptor.finalize()
    return base64.b64encode(sealed).decode("ascii")


def _cipher(key: str) -> "Cipher[modes.ECB]":
    return Cipher(algorithms.AES(hashlib.sha256(key.encode()).digest()), modes.ECB())  # noqa: S305 - the device's way


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _spell(value: int, length: int) -> str:
    return "".join(_SYMBOLS[value >> 6 * place & 63] for place in range(length))
