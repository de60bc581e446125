"""The library's process: started when first asked, asked over a pipe, killed when it answers nobody any more.

    ask --> a free place --> question --> answer, or an error
                               '--> nothing in time, for nobody --> the worker is killed, the next question starts one

Invariants: one question ends within ``DEADLINE_S``, its wait for a place and for the worker's start counted, in an
answer or an error; whatever the worker writes, nothing but the questions it has been asked is answered; a worker that
dies takes its open questions with it and no more than that; one that still answers others is left alone, and so is one
that starts: its start is its own, and no question's end ends it.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.cgminer.credentials import Credentials
from agent.errors import AgentError, TimedOut, Transient, Unreachable
from sitelink.clock import Clock

DEADLINE_S: Final = 5.0
_AT_ONCE: Final = 16
"""Questions asked at a time; each may be for a host that hangs until the worker's own patience ends."""
_START_S: Final = 10.0
"""How long a new worker may take to load the library, before it says that it is ready."""
_REST_S: Final = 5.0
"""A worker that died is not replaced before; else each poll of each miner would start one."""
_HUNG: Final = 0.9
"""A worker that owes an answer and says nothing for so much of a question's time is hung: its own patience is less."""
_GONE_S: Final = 2.0
_LONGEST_LINE: Final = 1_000_000
_COMMAND: Final = (sys.executable, "-m", "agent.exotic.worker")


class Reader:
    """Asks one worker process. ``command`` starts it; ``deadline_s`` is for one question, whatever it waits for."""

    def __init__(self, clock: Clock, command: tuple[str, ...] = _COMMAND, deadline_s: float = DEADLINE_S) -> None:
        self._clock = clock
        self._command = command
        self._deadline_s = deadline_s
        self._worker: _Worker | None = None
        self._started_mono = float("-inf")
        self._start: asyncio.Task[_Worker] | None = None
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._asked = 0

    async def ask(self, host: str, credentials: Credentials | None = None) -> Mapping[str, Any]:
        """Return the library's data of the miner at ``host``.

        Raises:
            TimedOut: no answer in time, or so many other questions went before that it was not asked.
            Unreachable: the library found no miner there.
            Transient: the worker cannot be started, or ended.
        """
        waits_for = _Waits("other exotic miners, which hang, went before it; it is tried again")
        try:
            async with asyncio.timeout(self._deadline_s), self._places:
                found = await self._answer(host, credentials, waits_for)
        except TimeoutError:
            raise TimedOut(f"{host}: no answer within {self._deadline_s:g} s; {self._given_up(waits_for)}") from None
        data = found.get("data")
        if not isinstance(data, dict):
            raise Unreachable(f"{host}: {found.get('error', 'no data')}; is the miner on, and of a make that is known?")
        return data

    async def close(self) -> None:
        """End the worker and see it gone."""
        start, self._start = self._start, None
        if start is not None:
            start.cancel()
            with contextlib.suppress(AgentError, asyncio.CancelledError):
                await start
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GONE_S):
                    await worker.gone.wait()

    async def _answer(self, host: str, credentials: Credentials | None, waits_for: "_Waits") -> Mapping[str, Any]:
        waits_for.what = "the exotic reader is still starting; it is tried again"
        worker = await self._working()
        waits_for.what, waits_for.worker = "check the miner's address and power", worker
        self._asked += 1
        question = {"id": self._asked, "host": host, "access": None if credentials is None else list(credentials)}
        try:
            return await worker.ask(self._asked, json.dumps(question, separators=(",", ":")).encode() + b"\n")
        finally:
            worker.forget(question["id"])

    def _given_up(self, waits_for: "_Waits") -> str:
        """Return what a question waited for in vain; a worker that has answered nobody as long as that is killed."""
        worker = waits_for.worker
        if worker is None or worker.silent_for_s < _HUNG * self._deadline_s:
            return waits_for.what
        worker.kill()
        return "the exotic reader is restarted"

    async def _working(self) -> "_Worker":
        if self._worker is not None and not self._worker.ended:
            return self._worker
        if self._start is None or self._start.done():
            self._start = asyncio.create_task(self._started(), name="start of the exotic reader")
            self._start.add_done_callback(_heed)
        return await asyncio.shield(self._start)

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
        self._worker = worker
        return worker


@dataclass(slots=True)
class _Waits:
    """What a question waits for, in words, and the worker that was asked it, if one was."""

    what: str
    worker: "_Worker | None" = None


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
        self._owed: set[int] = set()
        self._silent_since = 0.0

    @property
    def silent_for_s(self) -> float:
        """Return how long it has said nothing, though it owes an answer to somebody, if only to one who gave up."""
        return self._loop.time() - self._silent_since if self._owed else 0.0

    def ask(self, number: int, line: bytes) -> "asyncio.Future[Mapping[str, Any]]":
        """Send one question; its answer arrives in the future."""
        answer: asyncio.Future[Mapping[str, Any]] = self._loop.create_future()
        pipe = None if self._transport is None else self._transport.get_pipe_transport(0)
        if self.ended or not isinstance(pipe, asyncio.WriteTransport):
            answer.set_exception(_ended())
        else:
            self._open[number] = answer
            if not self._owed:
                self._silent_since = self._loop.time()
            self._owed.add(number)
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
        if not isinstance(number, int) or number not in self._owed:
            return
        self._owed.discard(number)
        self._silent_since = self._loop.time()
        answer = self._open.get(number)
        if answer is not None and not answer.done():
            answer.set_result(document)

    def _give_up(self) -> None:
        if not self.ready.done():
            self.ready.set_exception(_ended())
            self.ready.exception()  # whoever started it may have gone
        for answer in self._open.values():
            if not answer.done():
                answer.set_exception(_ended())


def _heed(start: "asyncio.Task[_Worker]") -> None:
    """Take note of how a start ended, which whoever wanted it may no longer wait for."""
    if not start.cancelled():
        start.exception()


def _ended() -> Transient:
    return Transient("the exotic reader has ended; it is tried again")
