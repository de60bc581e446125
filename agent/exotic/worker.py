"""The process that runs asic-rs: questions come as lines of JSON on stdin, answers go as lines to stdout.

    {"id": 7, "host": "10.0.0.9", "access": ["root", "secret"]}  ->  {"id": 7, "data": {..}} or {"id": 7, "error": ".."}

Invariants: it ends when stdin ends, and when the agent dies, even while the library hangs; a question ends within
``_PATIENCE_S``, waiting for no other, because whoever asks holds back what would be too many; a failure of the library
is an answer.
"""

import asyncio
import ctypes
import json
import os
import signal
import sys
from typing import Any, Final

_PATIENCE_S: Final = 4.0
_SHOWN: Final = 120
_PR_SET_PDEATHSIG: Final = 1


class Miners:
    """The miners met so far, by host: finding out what one is costs more than reading it."""

    def __init__(self, library: Any) -> None:
        self._factory = library.MinerFactory()
        self._chips = [library.data.DataField.Chips]
        self._known: dict[str, Any] = {}

    async def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one question."""
        host = str(question["host"])
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return {"id": question["id"], "data": await self._data(host, question.get("access"))}
        except TimeoutError:
            error = f"no answer within {_PATIENCE_S:g} s"
        except Exception as failure:  # noqa: BLE001 - whatever the library raises is an answer, not the end
            error = f"{type(failure).__name__}: {failure}"[:_SHOWN]
        self._known.pop(host, None)
        return {"id": question["id"], "error": error}

    async def _data(self, host: str, access: list[str] | None) -> dict[str, Any]:
        miner = self._known.get(host)
        if miner is None:
            miner = await self._factory.get_miner(host)
            if miner is None:
                raise LookupError("no miner that the library knows answers there")
            self._known[host] = miner
        if access:
            miner.set_auth(*access)
        found: dict[str, Any] = (await miner.get_data(exclude=self._chips)).model_dump()
        return found


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the agent ends. Source: Linux prctl(2), PR_SET_PDEATHSIG."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(0)


async def serve() -> None:
    """Answer until stdin ends."""
    import pyasic_rs  # noqa: PLC0415 - an extra, and what takes time to load
    import pyasic_rs.data  # noqa: PLC0415 - see above

    miners = Miners(pyasic_rs)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    _say({"ready": True})
    async with asyncio.TaskGroup() as tasks:
        while line := await reader.readline():
            tasks.create_task(_answered(miners, json.loads(line)))
        os._exit(0)  # who asked has gone, and the library has been seen to abort in its own ending


async def _answered(miners: Miners, question: dict[str, Any]) -> None:
    _say(await miners.answer(question))


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, default=str, separators=(",", ":")) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    die_with_parent()
    asyncio.run(serve())
