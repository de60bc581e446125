"""Our md5-crypt and the token handshake give what the reference implementation gives."""

import ctypes
import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from agent.cgminer.control import md5_crypt as module
from agent.cgminer.control.md5_crypt import md5_crypt
from agent.cgminer.control.whatsminer_access import derive, seal, unseal

pytestmark = pytest.mark.agent

# Each made with `openssl passwd -1 -salt SALT PASSWORD`.
VECTORS = [
    ("admin", "BQ5hoXV9", "RxmaDUO33TS7O26yeMHZ81"),
    ("admin", "a", "W8NqLlKiUpyUpxmLGXcjB1"),
    ("x", "saltsalt", "4px9i58NU2Z2/vZOUlGjq."),
    ("a much longer password than one block of md5, indeed", "abcd1234", "06eXUvtmdTDFnzXHgXAkN1"),
    ("pässwörd", "./09AZaz", "cu.0Mr2SdQkKTTspVtrui/"),
    ("0123456789abcdef", "12345678", "QzvqVyjsfEisWRspy9tfx1"),
]


@pytest.mark.parametrize(("password", "salt", "digest"), VECTORS)
def test_it_agrees_with_openssl(password: str, salt: str, digest: str) -> None:
    assert md5_crypt(password, salt) == digest


@pytest.mark.parametrize(("password", "salt", "digest"), VECTORS)
def test_it_agrees_with_openssl_where_the_system_has_no_library(
    password: str, salt: str, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_native", lambda: None)
    assert md5_crypt(password, salt) == digest


@given(some.text(max_size=700), some.text(max_size=12))
def test_the_systems_library_changes_no_hash_whatever_a_device_sends_for_salt(password: str, salt: str) -> None:
    secret = password.encode("utf-8", "replace")
    assert md5_crypt(secret.decode(), salt) == module._in_python(secret, salt.encode()[:8])


@pytest.mark.parametrize("said", [None, b"*0", b"$1$BQ5hoXV9$", b"$1$BQ5hoXV9$shorter"])
def test_a_library_that_does_not_know_the_hash_is_not_used(said: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Crypt:
        def __call__(self, secret: bytes, setting: bytes) -> bytes | None:
            return said

    monkeypatch.setattr(ctypes, "PyDLL", lambda name: SimpleNamespace(crypt=Crypt()))
    module._native.cache_clear()
    try:
        assert md5_crypt("admin", "BQ5hoXV9") == "RxmaDUO33TS7O26yeMHZ81"
        assert module._native() is None
    finally:
        module._native.cache_clear()


def test_only_eight_bytes_of_salt_count() -> None:
    assert md5_crypt("admin", "12345678") == md5_crypt("admin", "123456789")


def test_the_token_is_the_hash_of_the_hash_and_the_time() -> None:
    token = derive("admin", "5626", "BQ5hoXV9", "jbzkfQls", 0.0)
    key = md5_crypt("admin", "BQ5hoXV9")
    assert token.sign == md5_crypt(key + "5626", "jbzkfQls")
    assert len(token.key) == 32


def test_what_is_sealed_unseals_and_is_padded_to_whole_blocks() -> None:
    token = derive("admin", "5626", "BQ5hoXV9", "jbzkfQls", 0.0)
    order = json.dumps({"cmd": "power_off", "respbefore": "true", "token": token.sign})
    sealed = seal(order, token.key)
    assert unseal(sealed, token.key) == order.encode()
    assert unseal("\n".join(sealed[i : i + 64] for i in range(0, len(sealed), 64)), token.key) == order.encode()


@pytest.mark.parametrize("text", ["not base64!", "QUJD"])
def test_what_is_no_cipher_text_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        unseal(text, bytes(32))
