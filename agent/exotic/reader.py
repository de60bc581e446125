"""The library's process: started when first asked, asked over a pipe, killed when it answers nobody any more.

    ask --> a free place --> question --> answer, or an error
                               '--> nothing in time, for nobody --> the worker is killed, the next question starts one

Invariants: one question ends within ``DEADLINE_S`` of its turn, in an answer or an error, and its turn comes within
``_TURN_S`` or is refused; whatever the worker writes, nothing but the questions it has been asked is answered; a worker
that dies takes its open questions with it and no more than that; one that still answers others is left alone.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping
from typing import Any, Final

from agent.cgminer.credentials import Credentials
from agent.errors import SessionBusy, TimedOut, Transient, Unreachable
from sitelink.clock import Clock

DEADLINE_S: Final = 5.0
_AT_ONCE: Final = 16
"""Questions open at the worker; each may be for a host that hangs until the worker's own patience ends."""
_TURN_S: Final = 15.0
_START_S: Final = 10.0
"""How long a new worker may take to load the library, before it says that it is ready."""
_REST_S: Final = 5.0
"""A worker that died is not replaced before; else each poll of each miner would start one."""
_GONE_S: Final = 2.0
_LONGEST_LINE: Final = 1_000_000
_COMMAND: Final = (sys.executable, "-m", "agent.exotic.worker")


class Reader:
    """Asks one worker process. ``command`` starts it; ``deadline_s`` is for one question."""

    def __init__(self, clock: Clock, command: tuple[str, ...] = _COMMAND, deadline_s: float = DEADLINE_S) -> None:
        self._clock = clock
        self._command = command
        self._deadline_s = deadline_s
        self._worker: _Worker | None = None
        self._started_mono = float("-inf")
        self._starting = asyncio.Lock()
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._asked = 0

    async def ask(self, host: str, credentials: Credentials | None = None) -> Mapping[str, Any]:
        """Return the library's data of the miner at ``host``.

        Raises:
            SessionBusy: too many other questions go before.
            TimedOut: no answer in time.
            Unreachable: the library found no miner there.
            Transient: the worker cannot be started, or ended.
        """
        try:
            async with asyncio.timeout(_TURN_S):
                await self._places.acquire()
        except TimeoutError:
            raise SessionBusy(f"{host}: too many exotic miners are being read; it is tried again") from None
        try:
            found = await self._answer(host, credentials)
        finally:
            self._places.release()
        data = found.get("data")
        if not isinstance(data, dict):
            raise Unreachable(f"{host}: {found.get('error', 'no data')}; is the miner on, and of a make that is known?")
        return data

    async def close(self) -> None:
        """End the worker and see it gone."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GONE_S):
                    await worker.gone.wait()

    async def _answer(self, host: str, credentials: Credentials | None) -> Mapping[str, Any]:
        worker = await self._working()
        self._asked += 1
        question = {"id": self._asked, "host": host, "access": None if credentials is None else list(credentials)}
        heard = worker.heard
        answer = worker.ask(self._asked, json.dumps(question, separators=(",", ":")).encode() + b"\n")
        try:
            async with asyncio.timeout(self._deadline_s):
                return await answer
        except TimeoutError:
            told = f"{host}: no answer within {self._deadline_s:g} s"
            if worker.heard != heard:
                raise TimedOut(f"{told}; check the miner's address and power") from None
            worker.kill()
            raise TimedOut(f"{told}; the exotic reader is restarted") from None
        finally:
            worker.forget(question["id"])

    async def _working(self) -> "_Worker":
        async with self._starting:
            if self._worker is None or self._worker.ended:
                self._worker = await self._started()
            return self._worker

    async def _started(self) -> "_Worker":
        now_mono = self._clock.monotonic()
        if now_mono - self._started_mono < _REST_S:
            raise Transient("the exotic reader has ended; it is started again in a few seconds")
        self._started_mono = now_mono
        worker = _Worker(asyncio.get_running_loop())
        try:
            async with asyncio.timeout(_START_S):
                await asyncio.get_running_loop().subprocess_exec(lambda: worker, *self._command, stderr=None)
                await worker.ready
        except (TimeoutError, OSError) as error:
            worker.kill()
            cause = error.strerror or f"no word within {_START_S:g} s"
            raise Transient(f"the exotic reader does not start ({cause}); check the extra exotic") from None
        except BaseException:
            worker.kill()
            raise
        return worker


class _Worker(asyncio.SubprocessProtocol):
    """One process and its open questions."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._line = b""
        self._transport: asyncio.SubprocessTransport | None = None
        self.ready: asyncio.Future[None] = loop.create_future()
        self.gone = asyncio.Event()
        self.ended = False
        self.heard = 0
        """Questions answered so far, whoever asked them."""

    def ask(self, number: int, line: bytes) -> "asyncio.Future[Mapping[str, Any]]":
        """Send one question; its answer arrives in the future."""
        answer: asyncio.Future[Mapping[str, Any]] = self._loop.create_future()
        pipe = None if self._transport is None else self._transport.get_pipe_transport(0)
        if self.ended or not isinstance(pipe, asyncio.WriteTransport):
            answer.set_exception(_ended())
        else:
            self._open[number] = answer
            pipe.write(line)
        return answer

    def forget(self, number: object) -> None:
        """Wait no longer for an answer."""
        if isinstance(number, int):
            self._open.pop(number, None)

    def kill(self) -> None:
        """End the process at once."""
        self.ended = True
        if self._transport is not None:
            self._transport.close()  # which kills what still runs
        self._give_up()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the process."""
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Take what it writes, line by line."""
        if fd != 1:
            return
        *lines, self._line = (self._line + data).split(b"\n")
        if len(self._line) > _LONGEST_LINE:
            self.kill()
        for line in lines:
            self._take(line)

    def process_exited(self) -> None:
        """Let nobody wait for what has ended."""
        self.gone.set()
        self.kill()

    def _take(self, line: bytes) -> None:
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            return  # the library printed something of its own
        if not isinstance(document, dict):
            return
        if document.get("ready") is True and not self.ready.done():
            self.ready.set_result(None)
        number = document.get("id")
        answer = self._open.get(number) if isinstance(number, int) else None
        if answer is not None and not answer.done():
            self.heard += 1
            answer.set_result(document)

    def _give_up(self) -> None:
        if not self.ready.done():
            self.ready.set_exception(_ended())
            self.ready.exception()  # whoever started it may have gone
        for answer in self._open.values():
            if not answer.done():
                answer.set_exception(_ended())


def _ended() -> Transient:
    return Transient("the exotic reader has ended; it is tried again")
