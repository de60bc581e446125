"""How a miner's web page asks who we are, and the answer: digest in its two forms, and basic. Pure.

Invariant: a header carries bytes, so every text here is Latin-1, one character a byte: the server's as it came, ours as
the bytes of its UTF-8. Whatever either holds, the answer can be sent.

Source: RFC 7616 (digest with qop and without), RFC 7617 (basic); lighttpd and its like on Antminer control boards.
"""

import re
from collections.abc import Iterable
from typing import Final

from agent.cgminer.credentials import Credentials

_SCHEME: Final = re.compile(r"(?:^|,)\s*(basic|digest)(?:\s+|$)", re.IGNORECASE)
_PARAMETER: Final = re.compile(r'([a-z][a-z-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))', re.IGNORECASE)
_ALGORITHMS: Final = {"md5": "md5", "md5-sess": "md5", "sha-256": "sha256", "sha-256-sess": "sha256"}
_STRENGTH: Final = ("sha-256-sess", "sha-256", "md5-sess", "md5", "")


class Challenge:
    """One way in that a server offers. ``answer`` counts its uses, as digest wants it."""

    def __init__(self, parameters: dict[str, str] | None) -> None:
        """``parameters`` are the digest's, None for basic."""
        self._parameters = parameters
        self._count = 0

    @property
    def algorithm(self) -> str:
        """Return the digest's algorithm in lower case, empty for basic."""
        return "" if self._parameters is None else self._parameters.get("algorithm", "MD5").lower()

    def answer(self, method: str, target: str, credentials: Credentials, cnonce: str) -> str:
        """Return the ``Authorization`` header for one request. ``cnonce`` is fresh randomness."""
        if self._parameters is None:
            return "Basic " + _base64(f"{credentials.user}:{credentials.password}")
        self._count += 1
        said = self._parameters
        realm, nonce, user = said.get("realm", ""), said.get("nonce", ""), _ours(credentials.user)
        secret = self._hash(f"{user}:{realm}:{_ours(credentials.password)}")
        if self.algorithm.endswith("-sess"):
            secret = self._hash(f"{secret}:{nonce}:{cnonce}")
        asked = self._hash(f"{method}:{target}")
        fields = [("username", user), ("realm", realm), ("nonce", nonce), ("uri", target)]
        if "qop" in said:
            count = f"{self._count:08x}"
            response = self._hash(f"{secret}:{nonce}:{count}:{cnonce}:auth:{asked}")
            bare = f", qop=auth, nc={count}"
            fields.append(("cnonce", cnonce))
        else:
            response = self._hash(f"{secret}:{nonce}:{asked}")
            bare = ""
        fields.append(("response", response))
        if "opaque" in said:
            fields.append(("opaque", said["opaque"]))
        if "algorithm" in said:
            bare += f", algorithm={said['algorithm']}"
        return "Digest " + ", ".join(f"{name}={_quoted(value)}" for name, value in fields) + bare

    def _hash(self, value: str) -> str:
        import hashlib  # noqa: PLC0415 - the failsafe starts without it

        return hashlib.new(_ALGORITHMS[self.algorithm], value.encode("latin-1"), usedforsecurity=False).hexdigest()


def best_of(headers: Iterable[str]) -> Challenge | None:
    """Return the strongest way in that the ``WWW-Authenticate`` headers offer, None when we know none of them."""
    offers = [offer for header in headers for offer in _offers(header[:4096])]
    return min(offers, key=lambda offer: _STRENGTH.index(offer.algorithm), default=None)


def _offers(header: str) -> list[Challenge]:
    found: list[Challenge] = []
    parts = _SCHEME.split(header)
    for scheme, rest in zip(parts[1::2], parts[2::2], strict=True):
        if scheme.lower() == "basic":
            found.append(Challenge(None))
            continue
        said = {
            name.lower(): re.sub(r"\\(.)", r"\1", quoted) or bare for name, quoted, bare in _PARAMETER.findall(rest)
        }
        qualities = [quality.strip().lower() for quality in said.get("qop", "auth").split(",")]
        if said.get("algorithm", "MD5").lower() in _ALGORITHMS and "auth" in qualities and "nonce" in said:
            found.append(Challenge(said))
    return found


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _ours(text: str) -> str:
    """Return text of ours as the characters of its bytes."""
    return text.encode().decode("latin-1")


def _base64(value: str) -> str:
    import base64  # noqa: PLC0415 - the failsafe starts without it

    return base64.b64encode(value.encode()).decode("ascii")
