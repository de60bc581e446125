"""Well-formed replies of every dialect, invented, from which both fuzzers set out; and the words they are made of."""

import json
from collections.abc import Iterator
from typing import Any, Final

from tests.unit.agent.cgminer import replies_of as made
from tests.unit.agent.cgminer import web_replies_of as web
from tests.unit.agent.cgminer.native_replies_of import NATIVE

SAMPLES: Final[dict[str, dict[str, bytes]]] = {
    "luxos": made.luxos(),
    "avalon": made.avalon(),
    "nonsense": {"stats": made.antminer_stats(), "pools": made.POOLS},
    "whatsminer": {"summary": made.whatsminer_summary(), "devs": made.WHATSMINER_DEVS, "pools": made.POOLS},
    **web.FAMILIES,
    **NATIVE,
}
HTTP: Final = (
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{"a":1}',
    b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n{"a":1}\r\n0\r\n\r\n',
    b'HTTP/1.0 200 OK\r\n\r\n{"a":1}',
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b'HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm="m", nonce="5e7", qop="auth"\r\nContent-Length: 0\r\n\r\n',
    b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n",
)
FRAMES: Final = (b"\x0f\0\0\0" + b'{"code":0,"x":1}'[:15], b"\0\0\0\0", b"\xff\xff\0\0{}")
CHALLENGES: Final = (
    b'Digest realm="antMiner Configuration", nonce="5e7", qop="auth", algorithm=MD5',
    b'Basic realm="x"',
    b'Digest realm="a\\"b", nonce="n", algorithm=SHA-256-sess, qop="auth-int, auth", Basic realm="c"',
)
ODD_WORDS: Final = (
    "nan",
    "inf",
    "-1",
    "1e999",
    "2--1-20-22",
    "true",
    "\\ud800",
    "0x10",
    "[0 1 2 3 4 5 6]",
    "1_000",
    "\u0663",
    "%s",
    "\\u0000",
)


def keys() -> list[str]:
    """Return every key in the samples, and words that firmwares are known to answer with."""

    def within(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield key
                yield from within(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from within(inner)

    found = {key for sample in SAMPLES.values() for reply in sample.values() for key in within(json.loads(reply))}
    return sorted(found)
