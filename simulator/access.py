"""How devices ask who is there: HTTP digest (RFC 7616, MD5), and tokens that live for a while.

Invariants: a nonce counts each use once; a nonce that is old, unknown or replayed is answered ``stale=true`` and never
opens anything; the password asked for is the one the device keeps now.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass

from simulator import noise
from simulator.miner import Miner
from simulator.web import WebReply, WebRequest

_NONCE_S = 300.0
_MOST_NONCES = 64
_FIELD = re.compile(r'(\w+)\s*=\s*(?:"([^"]*)"|([^\s,]+))')
_DENIED = b"<html><head><title>401 - Unauthorized</title></head><body><h1>401 - Unauthorized</h1></body></html>"


@dataclass(slots=True)
class _Nonce:
    given_s: float
    count: int = 0


@dataclass(slots=True)
class Token:
    """A right to change something, given at ``given_s`` (monotonic) and last used at ``used_s``."""

    name: str
    given_s: float
    used_s: float


def knows(miner: Miner, user: str, password: str) -> bool:
    """Return whether ``user`` and ``password`` open ``miner``; under ``bad_password`` nobody's do."""
    kept = miner.kept
    right = hmac.compare_digest(f"{user}\0{password}".encode(), f"{kept.user}\0{kept.password}".encode())
    return right and not miner.has("bad_password")


def check_digest(miner: Miner, request: WebRequest, realm: str) -> WebReply | None:
    """Return None when the request proves the password, else the 401 that asks for it."""
    scheme, _, rest = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "digest":
        return _ask(miner, realm, stale=False)
    given = {name: quoted or bare for name, quoted, bare in _FIELD.findall(rest)}
    if given.get("uri") != request.target or given.get("realm") != realm:
        return _ask(miner, realm, stale=False)
    if not _proves(miner, request.method, given, realm):
        return _ask(miner, realm, stale=False)
    return None if _counts(miner, given) else _ask(miner, realm, stale=True)


def give_token(miner: Miner, kind: str, most: int = 32) -> str:
    """Return a new token; the oldest of ``most`` gives way."""
    now_s = miner.time.clock.monotonic()
    serial = miner.memory.get(f"{kind} given", 0) + 1
    miner.memory[f"{kind} given"] = serial
    name = f"{noise.key('token', miner.place.miner_id, kind, serial, miner.booted_s):016x}"
    tokens: list[Token] = miner.memory.setdefault(kind, [])
    tokens.append(Token(name, now_s, now_s))
    del tokens[:-most]
    return name


def holds_token(miner: Miner, kind: str, name: str, life_s: float, *, refreshed: bool = False) -> bool:
    """Return whether ``name`` is a living token; with ``refreshed``, each use prolongs its life."""
    now_s = miner.time.clock.monotonic()
    life_s = min(life_s, lifetime_s(miner, life_s))
    for token in miner.memory.get(kind, ()):
        if hmac.compare_digest(token.name.encode(), name.encode()):
            alive = now_s - (token.used_s if refreshed else token.given_s) < life_s
            token.used_s = now_s
            return bool(alive)
    return False


def lifetime_s(miner: Miner, usual_s: float) -> float:
    """Return how long tokens and sessions live: ``usual_s``, or the seconds of the fault ``expired_token``."""
    fault = miner.fault
    return fault.seconds if fault is not None and fault.kind == "expired_token" else usual_s


def bearer(request: WebRequest) -> str:
    """Return the token in the Authorization header, with or without the word Bearer before it."""
    return request.headers.get("authorization", "").removeprefix("Bearer ").strip()


def _proves(miner: Miner, method: str, given: dict[str, str], realm: str) -> bool:
    kept = miner.kept
    if given.get("username") != kept.user or miner.has("bad_password"):
        return False
    secret, what = _md5(f"{kept.user}:{realm}:{kept.password}"), _md5(f"{method}:{given['uri']}")
    middle = [given.get("nonce", "")]
    if "qop" in given:
        middle += [given.get("nc", ""), given.get("cnonce", ""), given["qop"]]
    return hmac.compare_digest(_md5(":".join([secret, *middle, what])).encode(), given.get("response", "").encode())


def _counts(miner: Miner, given: dict[str, str]) -> bool:
    """Return whether the nonce is ours, young and used with this count for the first time."""
    nonces: dict[str, _Nonce] = miner.memory.get("nonces", {})
    nonce = nonces.get(given.get("nonce", ""))
    if nonce is None or miner.time.clock.monotonic() - nonce.given_s >= lifetime_s(miner, _NONCE_S):
        return False
    if "qop" not in given:
        return True
    try:
        count = int(given.get("nc", ""), 16)
    except ValueError:
        return False
    fresh, nonce.count = count > nonce.count, max(count, nonce.count)
    return fresh


def _ask(miner: Miner, realm: str, *, stale: bool) -> WebReply:
    nonces: dict[str, _Nonce] = miner.memory.setdefault("nonces", {})
    serial = miner.memory.get("nonces given", 0) + 1
    miner.memory["nonces given"] = serial
    name = f"{noise.key('nonce', miner.place.miner_id, serial, miner.booted_s):016x}"
    nonces[name] = _Nonce(miner.time.clock.monotonic())
    while len(nonces) > _MOST_NONCES:
        nonces.pop(next(iter(nonces)))
    asked = f'Digest realm="{realm}", nonce="{name}", qop="auth"' + (", stale=true" if stale else "")
    return WebReply(401, _DENIED, "text/html", (("WWW-Authenticate", asked),))


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
