"""Modbus TCP: registers read, coils read and written, each request under its own deadline.

Invariants: at most ``CONNECTIONS`` connections are open to one address, because gateways to serial lines serve few;
one that failed is closed and never used again; an answer to another question is an error, never a figure.

Source: MODBUS Application Protocol Specification V1.1b3 (functions 1, 3, 4, 5 and exceptions); MODBUS Messaging on
TCP/IP Implementation Guide V1.0b, 3.1.3 (the header: transaction, protocol 0, length, unit).

    ask --> a free place --> kept connection, or a new one --> request --> answer of the same kind, or an error
"""

import asyncio
import socket
import struct
from typing import Final

from agent.errors import Garbled, TimedOut, Unreachable, UnsupportedDevice
from agent.names import locate

CONNECTIONS: Final = 4
_READ_COILS: Final = 1
_READ_HOLDING: Final = 3
_READ_INPUT: Final = 4
_WRITE_COIL: Final = 5
_ON: Final = 0xFF00
_EXCEPTION: Final = 0x80
_HEADER: Final = struct.Struct(">HHHB")
_TWO: Final = struct.Struct(">HH")
_LONGEST_REST: Final = 253  # a PDU


class ModbusHost:
    """One address where Modbus units answer."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._kept: list[_Line] = []
        self._places = asyncio.Semaphore(CONNECTIONS)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def input_registers(self, unit: int, register: int, count: int, timeout_s: float) -> list[int]:
        """Return ``count`` input registers from ``register`` (counted from 0) on; raises as ``holding_registers``."""
        answer = await self._ask(unit, _READ_INPUT, _TWO.pack(register, count), timeout_s)
        return self._registers(answer, count)

    async def holding_registers(self, unit: int, register: int, count: int, timeout_s: float) -> list[int]:
        """Return ``count`` holding registers from ``register`` (counted from 0) on.

        Raises:
            Unreachable, TimedOut: no connection, it broke, or no answer in ``timeout_s``.
            UnsupportedDevice: the unit refuses the register; the message has its exception code.
            Garbled: the answer is to another question.
        """
        answer = await self._ask(unit, _READ_HOLDING, _TWO.pack(register, count), timeout_s)
        return self._registers(answer, count)

    async def coil(self, unit: int, coil: int, timeout_s: float) -> bool:
        """Return whether ``coil`` is on. Raises as ``holding_registers``."""
        answer = await self._ask(unit, _READ_COILS, _TWO.pack(coil, 1), timeout_s)
        if len(answer) < 2 or answer[0] != len(answer) - 1:
            raise Garbled(f"{self}: answers without a coil; check that Modbus TCP runs there")
        return bool(answer[1] & 1)

    async def write_coil(self, unit: int, coil: int, timeout_s: float, *, on: bool) -> None:
        """Switch ``coil``. Raises as ``holding_registers``; after a TimedOut it may have been switched."""
        wanted = _TWO.pack(coil, _ON if on else 0)
        if await self._ask(unit, _WRITE_COIL, wanted, timeout_s) != wanted:
            raise Garbled(f"{self}: says that it switched something else; check that Modbus TCP runs there")

    def close(self) -> None:
        """Close the kept connections."""
        while self._kept:
            self._kept.pop().close()

    async def _ask(self, unit: int, function: int, data: bytes, timeout_s: float) -> bytes:
        """Return what the unit answers after the function's number."""
        async with self._places:
            line = self._kept.pop() if self._kept else None
            if line is not None and not line.is_quiet():
                line.close()
                line = None
            try:
                async with asyncio.timeout(timeout_s):
                    if line is None:
                        line = await self._connected(timeout_s)
                    answer = await self._answered(line, unit, function, data)
            except TimeoutError:
                raise TimedOut(f"{self}: no answer within {timeout_s:g} s; check its cabling and unit") from None
            else:
                self._kept.append(line)
                line = None
            finally:
                if line is not None:
                    line.close()
        if answer[0] == function | _EXCEPTION:
            code = answer[1] if len(answer) > 1 else "?"
            raise UnsupportedDevice(f"{self}: refuses the request with exception {code}; check unit and register")
        return answer[1:]

    async def _connected(self, timeout_s: float) -> "_Line":
        family, target = await locate(self.host, self.port, timeout_s)
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            await asyncio.get_running_loop().sock_connect(connection, target)
        except OSError:
            connection.close()
            raise Unreachable(f"{self}: no connection; check its address, its power and its cabling") from None
        except BaseException:
            connection.close()
            raise
        return _Line(connection)

    async def _answered(self, line: "_Line", unit: int, function: int, data: bytes) -> bytes:
        """Return function and data of the answer to this very question."""
        try:
            answer = await line.ask(unit, bytes((function,)) + data)
        except OSError as error:
            raise Unreachable(f"{self}: {error.strerror or error}; it is tried again") from None
        if answer is None or answer[0] & ~_EXCEPTION != function:
            raise Garbled(f"{self}: answers another question; check that Modbus TCP runs there")
        return answer

    def _registers(self, answer: bytes, count: int) -> list[int]:
        held = (len(answer) - 1) // 2
        if not answer or len(answer) % 2 == 0 or answer[0] != len(answer) - 1:
            raise Garbled(f"{self}: answers with half a register; check that Modbus TCP runs there")
        if held != count:
            raise Garbled(f"{self}: answers with {held} registers instead of {count}; check its map")
        return list(struct.unpack(f">{count}H", answer[1:]))


class _Line:
    """One connection, and the number of the question under way on it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._transaction = 0

    async def ask(self, unit: int, request: bytes) -> bytes | None:
        """Return the answer's function and data; None when it is no answer to this question. Raises OSError."""
        self._transaction = (self._transaction + 1) & 0xFFFF
        header = _HEADER.pack(self._transaction, 0, len(request) + 1, unit)
        await asyncio.get_running_loop().sock_sendall(self._socket, header + request)
        transaction, protocol, length, answering = _HEADER.unpack(await self._exactly(_HEADER.size))
        if (transaction, protocol, answering) != (self._transaction, 0, unit) or not 1 < length <= _LONGEST_REST + 1:
            return None
        return await self._exactly(length - 1)

    def is_quiet(self) -> bool:
        """Return whether the other side has neither closed the connection nor said something unasked."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    async def _exactly(self, count: int) -> bytes:
        loop, held = asyncio.get_running_loop(), b""
        while len(held) < count:
            more = await loop.sock_recv(self._socket, count - len(held))
            if not more:
                raise ConnectionResetError("the connection broke")
            held += more
        return held


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
