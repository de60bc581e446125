"""One miner at one address: all that is sent to it goes through here, one request at a time.

    observe, identity --> Looks --+
                                  +--> Turn --> Wires --> the miner
    ask, send, call, framed, .. --+

Invariants:

* One request at a time, whichever wire it takes: a device's API is one small thread, and its control session is one for
  everybody. Its turn is waited for under a deadline, and not at all while a transfer holds it (``turn``).
* A request that falls silent on a wire that tells makes the looks forget, as one of their own does (``looks``).
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from agent.cgminer.client import DEFAULT_DEADLINES, Address, Deadlines, exchange
from agent.cgminer.credentials import Credentials
from agent.cgminer.looks import Looks
from agent.cgminer.observation import Observation
from agent.cgminer.repair import Decoded, decode
from agent.cgminer.sections import Sections
from agent.cgminer.stream import Limits, Stream
from agent.cgminer.turn import Turn
from agent.cgminer.web import WebReply
from agent.cgminer.wires import Wires, is_telling
from agent.errors import Garbled, Transient
from sitelink.clock import Clock
from sitelink.miners import WEB_PORT
from sitelink.units import Watts

_STATIC_AGE_S: Final = 3600.0


class Device:
    """A miner. ``dialect`` is one of the inventory's, ``auto`` to find out."""

    def __init__(
        self,
        address: Address,
        dialect: str,
        clock: Clock,
        *,
        miner_id: str = "",
        web_port: int = WEB_PORT,
        credentials: Credentials | None = None,
        deadlines: Deadlines = DEFAULT_DEADLINES,
        static_age_s: float = _STATIC_AGE_S,
    ) -> None:
        """``miner_id`` is the name the inventory has for it; ``identity`` answers with it when the device owns it.

        ``web_port`` 80 means the port of the firmware's own web page. ``credentials`` are who we are to it, None where
        nothing is known; they may change.
        """
        self._wires = wires = Wires(address, deadlines, web_port, credentials)
        self._clock = clock
        self._deadlines = deadlines
        # The turn is told of the wires, not of us: without a cycle, a device let go closes its sockets.
        self._turn = turn = Turn(lambda: wires.address, deadlines.total_s)
        self._looks = Looks(
            wires, turn, dialect, clock, miner_id=miner_id, limit_s=deadlines.total_s, static_age_s=static_age_s
        )

    @property
    def address(self) -> Address:
        """Where its API listens; may be set when the miner has moved."""
        return self._wires.address

    @address.setter
    def address(self, address: Address) -> None:
        self._wires.address = address

    @property
    def credentials(self) -> Credentials | None:
        """Who we are to it; may be set when the password has changed."""
        return self._wires.credentials

    @credentials.setter
    def credentials(self, credentials: Credentials | None) -> None:
        self._wires.credentials = credentials
        self._looks.forgive()

    @property
    def dialect(self) -> str:
        """Return the dialect, ``auto`` as long as it was never found out."""
        return self._looks.dialect

    @property
    def deadlines(self) -> Deadlines:
        """Return how patiently it is read."""
        return self._deadlines

    @property
    def named_by(self) -> Sections:
        """Return what ``identity`` was told last, for whoever needs no more than that; empty before."""
        return self._looks.named_by

    def monotonic(self) -> float:
        """Return the clock's monotonic seconds."""
        return self._clock.monotonic()

    def close(self) -> None:
        """Let go of the connection that is kept for the next request, if one is."""
        self._wires.forget()

    async def observe(self, *, glance: bool = False, idle_w: Watts | None = None) -> Observation:
        """Read the miner. What it answers but cannot be understood gives state UNKNOWN with a reason.

        A ``glance`` asks only whether it hashes and what it draws, not why it stands still; but of one that draws no
        more than ``idle_w``, where that is given, until it says that it was told to stand, else all there is.

        Raises:
            Transient: it does not answer.
            Permanent: it answers with too much, or with no miner's reply at all while its dialect is ``auto``.
        """
        return await self._looks.observe(glance=glance, idle_w=idle_w)

    async def identity(self) -> str:
        """Read afresh who answers: ``miner_id`` if the device goes by that name, else its first name, lower-case.

        Raises:
            Transient: it does not answer, or says that it cannot now.
            AccessDenied: it tells its name only to who has its password.
            Garbled: it names itself by nothing, or by nothing that can be compared with ``miner_id``; Nameless when
                nothing is wrong but that its firmware has no name to tell.
        """
        return await self._looks.identity()

    async def ask(self, command: str, parameter: str | None = None) -> Mapping[str, Any]:
        """Send one command and return its reply as an object.

        Raises:
            Transient: it does not answer.
            Permanent: the reply is too long, or no object.
        """
        return self._object_in(await self._decoded(command, parameter), command)

    async def send(self, request: bytes) -> bytes:
        """Send a request as it is and return the reply. Raises as ``query`` does."""
        async with self._turn:
            with self._heeding_silence():
                return await exchange(self._wires.address, request, self._deadlines)

    async def call(
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
        """Send one HTTP request to the web page, as us where it asks who we are, and return the reply.

        ``deadlines`` are for what takes longer than a reading: a firmware image, a log; nobody waits for what takes
        minutes (``Deadlines.transfer``). Raises as ``WebClient.request`` does: Transient, or AccessDenied, TooLarge,
        Garbled.
        """
        async with self._turn:
            if deadlines is not None and deadlines.transfer:
                self._turn.transfer()
            with self._heeding_silence("/"):
                table = self._looks.table
                return await self._wires.call(
                    table, method, target, json=json, form=form, body=body, headers=headers, deadlines=deadlines
                )

    async def tried(self, as_whom: Credentials, method: str, target: str, json: object = None) -> WebReply:
        """Send one request as somebody else, on a connection of its own; who we are stays. Raises as ``call``."""
        async with self._turn:
            with self._heeding_silence("/"):
                return await self._wires.tried(self._looks.table, as_whom, method, target, json)

    async def framed(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send one document to Whatsminer's framed API and return the reply as an object.

        Raises:
            Transient: it does not answer.
            Permanent: the reply is too long, or no object.
        """
        async with self._turn:
            with self._heeding_silence("v3:"):
                reply = await self._wires.framed(document)
        return self._object_in(decode(reply), document.get("cmd"))

    def _object_in(self, decoded: Decoded, asked: object) -> Mapping[str, Any]:
        if not isinstance(decoded.document, dict):
            raise Garbled(f"{self.address}: answers {asked} with no object; check what runs there")
        return decoded.document

    @asynccontextmanager
    async def connection(self, deadlines: Deadlines, *, framed: bool = False) -> AsyncIterator[tuple[Stream, Limits]]:
        """Hold one connection to its RPC, for what takes more than a request and its reply; nobody else asks meanwhile.

        ``framed`` goes to Whatsminer's framed API instead.

        Raises:
            Transient: it does not answer in time.
        """
        async with self._turn:
            if deadlines.transfer:
                self._turn.transfer()
            with self._heeding_silence("v3:" if framed else ""):
                address = self._wires.framed_address if framed else self.address
                limits = Limits(address, deadlines)
                stream = await Stream.open(address, limits)
                try:
                    yield stream, limits
                finally:
                    stream.close()

    async def _decoded(self, command: str, parameter: str | None = None) -> Decoded:
        async with self._turn:
            with self._heeding_silence():
                reply = await self._wires.rpc(command, parameter, order=True)
        return decode(reply)

    @contextmanager
    def _heeding_silence(self, command: str = "") -> Iterator[None]:
        """Forget what was found out about the device when it falls silent on a wire that tells."""
        try:
            yield
        except Transient:
            if is_telling(command, self._looks.table):
                self._looks.forget()
            raise
