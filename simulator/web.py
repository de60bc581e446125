"""HTTP/1.1 as small devices serve it: keep-alive, bodies by length or in chunks, faults on status and body.

Invariants: every request gets an answer or loses its connection; a firmware's pages never see a broken request.

      bytes -> WebRequest -> WebFirmware.serve -> WebReply -> spoil -> bytes
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote

from simulator.faults import as_json, spoil
from simulator.miner import Miner
from simulator.speech import Answer

MOST_WEB_BYTES = 100_000_000
_MOST_HEAD_BYTES = 65_536
_REASONS = {
    200: "OK",
    201: "Created",
    204: "No Content",
    302: "Found",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    422: "Unprocessable Entity",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_ERROR_PAGE = (
    b"<html><head><title>500 Internal Server Error</title></head>\n"
    b"<body><center><h1>500 Internal Server Error</h1></center><hr><center>nginx</center></body></html>\n"
)


@dataclass(frozen=True)
class WebRequest:
    """One request. Header names are lower-case; ``path`` is decoded and without its query."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""
    client: str = "127.0.0.1"

    @cached_property
    def path(self) -> str:
        """Return the path alone."""
        return unquote(self.target.partition("?")[0])

    @cached_property
    def query(self) -> dict[str, str]:
        """Return the fields behind the question mark."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @cached_property
    def form(self) -> dict[str, str]:
        """Return the fields of a form body."""
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    @cached_property
    def document(self) -> Any:
        """Return the JSON in the body; None where there is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def fields(self) -> dict[str, Any]:
        """Return the JSON object in the body; empty where there is none."""
        return self.document if isinstance(self.document, dict) else {}


@dataclass(frozen=True, slots=True)
class WebReply:
    """One reply; ``kind`` is its media type."""

    status: int = 200
    body: bytes = b""
    kind: str = "application/json"
    headers: tuple[tuple[str, str], ...] = field(default=())


def page(document: Any, status: int = 200) -> WebReply:
    """Return ``document`` as a JSON reply."""
    return WebReply(status, as_json(document))


def plain(text: str, status: int = 200) -> WebReply:
    """Return ``text`` as it is."""
    return WebReply(status, text.encode(), "text/plain")


class WebFirmware(ABC):
    """The pages of one firmware."""

    @abstractmethod
    def serve(self, miner: Miner, request: WebRequest) -> WebReply:
        """Return the answer to one request."""


class WebSpeech:
    """HTTP on one port of one miner."""

    __slots__ = ("_firmware", "miner")

    most_bytes = MOST_WEB_BYTES

    def __init__(self, miner: Miner, firmware: WebFirmware) -> None:
        self.miner = miner
        self._firmware = firmware

    def cut(self, buffer: bytearray, *, at_end: bool) -> tuple[bytes, bytes] | None:  # noqa: ARG002 - a half is none
        """Return the first whole request: its head and its body."""
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return (bytes(buffer), b"") if len(buffer) > _MOST_HEAD_BYTES or _no_http(buffer) else None
        head = bytes(buffer[:end]).lower()
        chunked = b"transfer-encoding: chunked" in head
        body_end = _chunks_end(buffer, end + 4) if chunked else end + 4 + _length(head)
        if body_end is None or len(buffer) < body_end:
            return None
        return bytes(buffer[:body_end]), bytes(buffer[body_end:])

    def answer(self, request: bytes, client: str) -> Answer:
        """Return the reply to one request; what is no HTTP gets 400 and loses its connection."""
        try:
            parsed = parse_web(request, client)
        except ValueError:
            return Answer(_spell(WebReply(400, b"Bad Request", "text/plain"), keep=False, head_only=False))
        keep = parsed.headers.get("connection", "").lower() != "close"
        fault = self.miner.fault
        if self.miner.has("server_error"):
            reply = WebReply(500, _ERROR_PAGE, "text/html")
        else:
            reply = self._firmware.serve(self.miner, parsed)
        if fault is not None and fault.kind == "garbage":
            kind = "text/html" if fault.detail == "html" else reply.kind
            reply = WebReply(reply.status, spoil(fault.detail, reply.body), kind, reply.headers)
        return Answer(_spell(reply, keep=keep, head_only=parsed.method == "HEAD"), keep)


def parse_web(data: bytes, client: str) -> WebRequest:
    """Return the request in ``data``, one whole request.

    Raises:
        ValueError: it is no HTTP.
    """
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    method, target, version = lines[0].split(" ")
    if not version.startswith("HTTP/1.") or not method.isalpha():
        raise ValueError(version)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = _joined(body)
    return WebRequest(method, target, headers, body, client)


def _joined(chunks: bytes) -> bytes:
    parts = []
    while chunks:
        size, _, chunks = chunks.partition(b"\r\n")
        length = int(size.partition(b";")[0] or b"0", 16)
        if length == 0:
            break
        parts.append(chunks[:length])
        chunks = chunks[length + 2 :]
    return b"".join(parts)


def _chunks_end(buffer: bytearray, at: int) -> int | None:
    """Return where a body in chunks ends, None while its last chunk has not come."""
    while True:
        line_end = buffer.find(b"\r\n", at)
        if line_end < 0:
            return None
        try:
            size = int(buffer[at:line_end].split(b";")[0], 16)
        except ValueError:
            return len(buffer)
        at = line_end + 4 + size
        if size == 0:
            return at


def _no_http(buffer: bytearray) -> bool:
    first = bytes(buffer).split(b"\r\n", 1)[0]
    return (b"\r\n" in buffer and b" HTTP/1." not in first) or bytes(buffer[:1]) in {b"{", b"\x00"}


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip() == b"content-length":
            return int(value) if value.strip().isdigit() else 0
    return 0


def _spell(reply: WebReply, *, keep: bool, head_only: bool) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, 'Unknown')}", "Server: lighttpd/1.4.32"]
    if reply.body or reply.status != 204:
        lines.append(f"Content-Type: {reply.kind}")
    lines.append(f"Content-Length: {len(reply.body)}")
    lines.append(f"Connection: {'keep-alive' if keep else 'close'}")
    lines.extend(f"{name}: {value}" for name, value in reply.headers)
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (b"" if head_only else reply.body)
