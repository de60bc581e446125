"""A way in is answered in bytes, whatever letters the server, the user or the password has."""

import base64
import hashlib
import re

import pytest

from agent.cgminer.challenge import best_of
from agent.cgminer.credentials import Credentials

pytestmark = pytest.mark.agent

US = Credentials("müller", "pässwörd…")


def md5(value: bytes) -> bytes:
    return hashlib.md5(value, usedforsecurity=False).hexdigest().encode()


@pytest.mark.parametrize("nonce", ["5e7", "\x80\xff", "n\u00e4"])
def test_a_digest_over_bytes_beyond_ascii_is_what_the_server_computes(nonce: str) -> None:
    realm = "Anlage \xdc"
    challenge = best_of([f'Digest realm="{realm}", nonce="{nonce}", qop="auth"'])
    assert challenge is not None
    header = challenge.answer("GET", "/x", US, "c1").encode("latin-1")
    secret = md5(US.user.encode() + b":" + realm.encode("latin-1") + b":" + US.password.encode())
    proof = md5(b":".join([secret, nonce.encode("latin-1"), b"00000001", b"c1", b"auth", md5(b"GET:/x")]))
    assert b'response="' + proof + b'"' in header
    assert b'username="' + US.user.encode() + b'"' in header


def test_basic_carries_utf8() -> None:
    challenge = best_of(['Basic realm="x"'])
    assert challenge is not None
    sent = re.fullmatch(r"Basic (\S+)", challenge.answer("GET", "/", US, ""))
    assert sent is not None
    assert base64.b64decode(sent[1]).decode() == "müller:pässwörd…"
