"""Modbus TCP over pymodbus: registers read, coils read and written, each request under its own deadline.

Invariants: at most ``CONNECTIONS`` connections are open to one address, because gateways to serial lines serve few;
one that failed is closed and never used again; an answer to another question is an error, never a figure. pymodbus is
loaded by the first request, because the failsafe starts without it. What it awaits runs in a task of its own: on
Python 3.11 its ``wait_for`` swallows a cancellation that comes with an answer, and our task would never end.

    ask --> a free place --> kept connection, or a new one --> request --> answer of the same kind, or an error
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from agent.errors import Garbled, TimedOut, Transient, Unreachable, UnsupportedDevice
from agent.names import locate

CONNECTIONS: Final = 4
_READ_COILS: Final = 1
_READ_HOLDING: Final = 3
_READ_INPUT: Final = 4
_WRITE_COIL: Final = 5
_Request = Callable[[Any], Coroutine[Any, Any, Any]]
_Answer = TypeVar("_Answer")
_ENDS_WITHIN_S: Final = 1.0


class ModbusHost:
    """One address where Modbus units answer."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._kept: list[Any] = []
        self._places = asyncio.Semaphore(CONNECTIONS)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def input_registers(self, unit: int, register: int, count: int, timeout_s: float) -> list[int]:
        """Return ``count`` input registers from ``register`` (counted from 0) on; raises as ``holding_registers``."""
        answer = await self._ask(
            lambda client: client.read_input_registers(register, count=count, device_id=unit), _READ_INPUT, timeout_s
        )
        return self._registers(answer, count)

    async def holding_registers(self, unit: int, register: int, count: int, timeout_s: float) -> list[int]:
        """Return ``count`` holding registers from ``register`` (counted from 0) on.

        Raises:
            Unreachable, TimedOut: no connection, it broke, or no answer in ``timeout_s``.
            UnsupportedDevice: the unit refuses the register; the message has its exception code.
            Garbled: the answer is to another question.
        """
        answer = await self._ask(
            lambda client: client.read_holding_registers(register, count=count, device_id=unit),
            _READ_HOLDING,
            timeout_s,
        )
        return self._registers(answer, count)

    async def coil(self, unit: int, coil: int, timeout_s: float) -> bool:
        """Return whether ``coil`` is on. Raises as ``holding_registers``."""
        answer = await self._ask(
            lambda client: client.read_coils(coil, count=1, device_id=unit), _READ_COILS, timeout_s
        )
        if not answer.bits:
            raise Garbled(f"{self}: answers without a coil; check that Modbus TCP runs there")
        return bool(answer.bits[0])

    async def write_coil(self, unit: int, coil: int, timeout_s: float, *, on: bool) -> None:
        """Switch ``coil``. Raises as ``holding_registers``; after a TimedOut it may have been switched."""
        await self._ask(lambda client: client.write_coil(coil, on, device_id=unit), _WRITE_COIL, timeout_s)

    def close(self) -> None:
        """Close the kept connections."""
        while self._kept:
            self._kept.pop().close()

    async def _ask(self, request: _Request, function: int, timeout_s: float) -> Any:
        async with self._places:
            client = self._kept.pop() if self._kept else None
            if client is not None and not client.connected:
                client.close()
                client = None
            try:
                async with asyncio.timeout(timeout_s):
                    if client is None:
                        client = await self._connected(timeout_s)
                    answer = await self._answered(client, request)
            except TimeoutError:
                raise TimedOut(f"{self}: no answer within {timeout_s:g} s; check its cabling and unit") from None
            else:
                self._kept.append(client)
                client = None
            finally:
                if client is not None:
                    client.close()
        if answer.isError():
            raise UnsupportedDevice(
                f"{self}: refuses the request with exception {getattr(answer, 'exception_code', '?')}; "
                "check unit and register"
            )
        if answer.function_code != function:
            raise Garbled(f"{self}: answers another question; check that Modbus TCP runs there")
        return answer

    async def _connected(self, timeout_s: float) -> Any:
        from pymodbus.client import AsyncModbusTcpClient  # noqa: PLC0415 - the failsafe starts without it

        # It says at every outage what our own log says once.
        logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)
        _, (address, _) = await locate(self.host, self.port, timeout_s)
        client = AsyncModbusTcpClient(address, port=self.port, timeout=timeout_s, retries=0, reconnect_delay=0)
        try:
            if await _apart(client.connect()):
                return client
        except BaseException:
            client.close()
            raise
        client.close()
        raise Unreachable(f"{self}: no connection; check its address, its power and its cabling")

    async def _answered(self, client: Any, request: _Request) -> Any:
        from pymodbus.exceptions import ModbusException  # noqa: PLC0415 - see above

        try:
            return await _apart(request(client))
        except ModbusException as error:
            raise Unreachable(f"{self}: {_cause(error)}; it is tried again") from None
        except OSError as error:
            raise Transient(f"{self}: {error.strerror or error}; it is tried again") from None

    def _registers(self, answer: Any, count: int) -> list[int]:
        registers = list(answer.registers)
        if len(registers) != count:
            raise Garbled(f"{self}: answers with {len(registers)} registers instead of {count}; check its map")
        return registers


class ModbusHosts:
    """The addresses known so far: meters and outlets behind one gateway share its few connections."""

    def __init__(self) -> None:
        self._hosts: dict[tuple[str, int], ModbusHost] = {}

    def at(self, host: str, port: int) -> ModbusHost:
        """Return the one ``ModbusHost`` for an address."""
        key = (host.lower(), port)
        if key not in self._hosts:
            self._hosts[key] = ModbusHost(host, port)
        return self._hosts[key]

    def close(self) -> None:
        """Close every kept connection."""
        for host in self._hosts.values():
            host.close()


async def _apart(work: Coroutine[Any, Any, _Answer]) -> _Answer:
    """Return what ``work`` returns, or raise what it raises; being cancelled is never hidden by it."""
    inner = asyncio.create_task(work)
    try:
        await asyncio.wait({inner})
    except asyncio.CancelledError:
        inner.cancel()
        ended, _ = await asyncio.wait({inner}, timeout=_ENDS_WITHIN_S)
        if ended and not inner.cancelled():
            inner.exception()  # seen: that we are cancelled is what counts
        raise
    if inner.cancelled():
        raise Transient("the request was cancelled from within; it is tried again")
    return inner.result()


def _cause(error: Exception) -> str:
    text = str(error).removeprefix("Modbus Error: ").strip()
    return text.splitlines()[0] if text else "the connection broke"
