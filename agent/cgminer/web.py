"""HTTP to a miner's web page: one request at a time on a connection that is kept while it is of use.

Invariants:

* One call ends within its deadlines (see ``stream``), whatever the server does: silence, drip, garbage, a header
  without end, a redirect (never followed).
* A request is sent again only where it can do no harm: a GET whose kept connection the server has closed meanwhile, or
  any request that the server refused with 401, once, with what it asked for.
* Credentials go only to who asks for them, by digest where it is offered.
* What a server says with its status is sorted here alone (``check_status``), so that the same trouble reads the same
  whether a page is read or an order sent: 2xx taken; 404, 405, 501 no such page; 409, 423, 429, 503 busy; other 5xx
  not now; any other refused (401 and 403 are AccessDenied already).

      request --> 401 + challenge --> request with answer --> reply      (later requests answer at once)
"""

import asyncio
import json as documents
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.cgminer.challenge import Challenge, best_of
from agent.cgminer.client import DEFAULT_DEADLINES, Address, Deadlines
from agent.cgminer.credentials import Credentials
from agent.cgminer.repair import decode
from agent.cgminer.stream import Limits, Stream
from agent.errors import AccessDenied, Garbled, SessionBusy, Transient, Unreachable, UnsupportedDevice
from sitelink.miners import WEB_PORT

_IDLE_S: Final = 5.0
"""How long a connection is kept for a next request: a poll's next command follows at once, the next poll does not."""
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
CORRECT_EITHER: Final = "correct the user and password of its group, or what that user may do"
"""What to do about a refusal that may mean either."""
GREETING: Final = b"HTTP/"
"""What every answer of a web server begins with."""
_SHOWN: Final = 24
_BUSY: Final = frozenset({409, 423, 429, 503})
_ABSENT: Final = frozenset({404, 405, 501})
_FAILS: Final = 500
_SPOKEN: Final = 120
_MESSAGES: Final = ("err", "error", "message", "msg")


@dataclass(frozen=True, slots=True)
class WebReply:
    """What a web server answered. ``headers`` are by lower-case name, repeated ones joined by a comma."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def document(self) -> Mapping[str, Any]:
        """Return the body as an object. Raises Garbled when it is none."""
        found = decode(self.body).document
        if not isinstance(found, dict):
            raise Garbled("the reply is no object; check what answers at this address")
        return found

    @property
    def is_absent(self) -> bool:
        """Return whether the firmware has no such page."""
        return self.status in _ABSENT

    @property
    def spoken(self) -> str:
        """Return what the server said for people, on one line and not longer than a line."""
        if self.body.lstrip()[:1] == b"<":
            return "a web page"
        try:
            document = decode(self.body).document
        except Garbled:
            document = None
        told = document if isinstance(document, dict) else {}
        text = next((told[name] for name in _MESSAGES if isinstance(told.get(name), str) and told[name]), None)
        if text is None:
            text = self.body[:_SPOKEN].decode("utf-8", "replace")
        return " ".join(text.split())[:_SPOKEN] or "no text"


def check_status(where: object, reply: WebReply, what: str) -> None:
    """Sort what a server at ``where`` says with the status of its answer to ``what``.

    Raises:
        SessionBusy: it is busy with something else.
        Transient: it cannot now.
        UnsupportedDevice: it does not know ``what``, or refuses it.
    """
    if 200 <= reply.status < 300:
        return
    said = f"{where}: answers {what} with {reply.status} ({reply.spoken})"
    if reply.status in _BUSY:
        raise SessionBusy(f"{said}; it is tried again")
    if reply.is_absent:
        raise UnsupportedDevice(f"{said}; its firmware does not know it: update it")
    if reply.status >= _FAILS:
        raise Transient(f"{said}; it is tried again")
    raise UnsupportedDevice(f"{said}; change it on the device's own page")


class WebClient:
    """A miner's web server. ``credentials`` are used when it asks for them; None when we have none."""

    def __init__(
        self,
        address: Address,
        deadlines: Deadlines = DEFAULT_DEADLINES,
        credentials: Credentials | None = None,
    ) -> None:
        self.address = address
        self._deadlines = deadlines
        self._credentials = credentials
        self._challenge: Challenge | None = None
        self._stream: Stream | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def request(
        self,
        method: str,
        target: str,
        *,
        json: object = None,
        form: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        deadlines: Deadlines | None = None,
    ) -> WebReply:
        """Send one request and return the reply, whatever its status but 401 and 403.

        ``target`` is the path with its query, encoded. ``json`` and ``form`` are ways to write ``body``. ``headers``
        are sent as they are; an ``authorization`` among them (a bearer token) is used in place of our credentials.
        ``deadlines`` are for a request that takes longer, or a longer answer, than a reading.

        Raises:
            Unreachable, TimedOut: no connection, it broke, or no whole answer in time.
            TooLarge: the reply exceeds its cap.
            Garbled: what answers does not speak HTTP.
            AccessDenied: 401 or 403, also with our credentials.
        """
        told = {name.lower(): value for name, value in (headers or {}).items()}
        if json is not None:
            body = _written(documents.dumps(json, separators=(",", ":")).encode(), "application/json", told)
        elif form is not None:
            body = _written(_form(form), "application/x-www-form-urlencoded", told)
        limits = Limits(self.address, deadlines or self._deadlines)
        answered = self._authorize(told, method, target)
        reply, challenge = await self._sent(method, target, told, body, limits)
        if reply.status == _UNAUTHORIZED and challenge is not None and (answered or "authorization" not in told):
            self._challenge = challenge
            told.pop("authorization", None)
            if self._authorize(told, method, target):
                reply, _ = await self._sent(method, target, told, body, limits)
        if reply.status in (_UNAUTHORIZED, _FORBIDDEN):
            raise AccessDenied(self._denial(reply.status, target, given="authorization" in told))
        return reply

    def close(self) -> None:
        """Close the connection, if one is kept. The next request opens another."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _authorize(self, headers: dict[str, str], method: str, target: str) -> bool:
        """Add the answer to the challenge that stands, unless the caller has its own; return whether it was added."""
        if self._challenge is None or self._credentials is None or "authorization" in headers:
            return False
        cnonce = os.urandom(8).hex()
        headers["authorization"] = self._challenge.answer(method, target, self._credentials, cnonce)
        return True

    async def _sent(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, limits: Limits
    ) -> tuple[WebReply, Challenge | None]:
        """Send on the kept connection or a new one; a GET whose kept one was just closed goes out a second time."""
        stream = self._kept()
        if stream is not None:
            try:
                return await self._spoken(stream, method, target, headers, body, limits)
            except _Stale as stale:
                if method != "GET":
                    raise stale.error from None
        stream = await Stream.open(self.address, limits)
        try:
            return await self._spoken(stream, method, target, headers, body, limits)
        except _Stale as stale:
            raise stale.error from None

    def _kept(self) -> Stream | None:
        stream, self._stream = self._stream, None
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if stream is not None and not stream.is_open():
            stream.close()
            return None
        return stream

    async def _spoken(
        self, stream: Stream, method: str, target: str, headers: Mapping[str, str], body: bytes, limits: Limits
    ) -> tuple[WebReply, Challenge | None]:
        """Say the request on ``stream`` and hear the reply; keep the connection where the server does."""
        import h11  # noqa: PLC0415 - the failsafe starts without it

        kept = False
        talk = h11.Connection(h11.CLIENT)
        try:
            lines = [("host", _host(self.address)), ("accept", "*/*"), *headers.items()]
            if body or method not in ("GET", "HEAD"):
                lines.append(("content-length", str(len(body))))
            try:
                sent = [(name.encode("ascii"), value.encode("latin-1")) for name, value in lines]
                said = talk.send(h11.Request(method=method, target=target, headers=sent)) or b""
                if body:
                    said += talk.send(h11.Data(data=body)) or b""
                said += talk.send(h11.EndOfMessage()) or b""
            except (h11.LocalProtocolError, UnicodeEncodeError) as error:
                raise Garbled(f"{self.address}: {target!r} cannot be asked for: {error}") from None
            reply = await self._heard(stream, talk, said, limits)
            kept = talk.our_state is h11.DONE and talk.their_state is h11.DONE
            return reply
        finally:
            if kept:
                stream.used = True
                self._stream = stream
                self._idle = asyncio.get_running_loop().call_later(_IDLE_S, stream.close)
            else:
                stream.close()

    async def _heard(self, stream: Stream, talk: Any, said: bytes, limits: Limits) -> tuple[WebReply, Challenge | None]:
        """Send ``said`` and return the reply, with the way in that it offers."""
        import h11  # noqa: PLC0415 - the failsafe starts without it

        received = await self._begun(stream, said, limits)
        size, head, parts = len(received), None, []
        try:
            talk.receive_data(received)
            while type(event := talk.next_event()) is not h11.EndOfMessage:
                if type(event) is h11.Response:
                    head = event
                elif type(event) is h11.Data:
                    parts.append(bytes(event.data))
                elif event is h11.NEED_DATA:
                    received = await stream.receive(limits)
                    size += len(received)
                    limits.check_size(size)
                    talk.receive_data(received)
        except h11.RemoteProtocolError as error:
            raise self._no_http(received, error) from None
        assert head is not None
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]
        challenge = best_of(value for name, value in headers if name == "www-authenticate")
        return WebReply(head.status_code, _joined(headers), b"".join(parts)), challenge

    async def _begun(self, stream: Stream, said: bytes, limits: Limits) -> bytes:
        """Send ``said`` and return the first of the answer. Raises _Stale when a kept connection is of no use."""
        try:
            await stream.send(said, limits)
            limits.asked()
            received = await stream.receive(limits)
            if not received:
                raise Unreachable(f"{self.address}: closed the connection without an answer; it is tried again")
        except Unreachable as error:
            if stream.used:
                raise _Stale(error) from None
            raise
        limits.answered()
        limits.check_size(len(received))
        if not received.startswith(GREETING[: len(received)]):
            raise self._no_http(received, "no status line")
        return received

    def _no_http(self, received: bytes, error: object) -> Garbled | Unreachable:
        if not received:
            return Unreachable(f"{self.address}: closed the connection amid its answer; it is tried again")
        shown = received[:_SHOWN].decode("utf-8", "backslashreplace")
        return Garbled(f"{self.address}: answers {shown!r}, which is not HTTP ({error}); check the port")

    def _denial(self, status: int, target: str, *, given: bool) -> str:
        if given and status == _FORBIDDEN:  # who we are may well be known: this is not for us
            return f"{self.address}: {target} refuses us ({status}); {CORRECT_EITHER}"
        if given:
            return f"{self.address}: {target} refuses our credentials ({status}); correct its group's password"
        if self._credentials is None:
            return f"{self.address}: {target} asks for a user and a password ({status}); give its group credentials"
        return f"{self.address}: {target} is closed to us ({status}); allow this gateway on the miner's web page"


class _Stale(Exception):
    """A kept connection turned out to be closed before any answer came."""

    def __init__(self, error: Unreachable) -> None:
        super().__init__(str(error))
        self.error = error


def _joined(headers: list[tuple[str, str]]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _written(body: bytes, kind: str, headers: dict[str, str]) -> bytes:
    """Return ``body``, its ``kind`` noted in ``headers`` unless the caller has noted another."""
    headers.setdefault("content-type", kind)
    return body


def _form(fields: Mapping[str, str]) -> bytes:
    from urllib.parse import urlencode  # noqa: PLC0415 - the failsafe starts without it

    return urlencode(fields).encode("ascii")


def _host(address: Address) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return host if address.port == WEB_PORT else f"{host}:{address.port}"
