"""Site and feeder meters over Modbus TCP.

Invariants: a meter that does not answer gives a sample with ``power_w`` None, never an exception and never zero; reads
take turns, each with its own deadline from the start of its turn; one connection is kept and opened again after any
fault.

    request:  transaction 2 | protocol 0 2 | length 2 | unit 1 | function 4 | register 2 | count 4
    reply:    transaction 2 | protocol 0 2 | length 2 | unit 1 | function 4 | bytes 8    | W float32 | kWh float32
"""

import asyncio
import logging
import math
import struct
from typing import Final

from sitelink.clock import Clock
from sitelink.inventory import MeterEntry
from sitelink.types import MeterSample
from sitelink.units import Watts, watt_hours

_LOG: Final = logging.getLogger(__name__)
_READ_INPUT_REGISTERS: Final = 4
_REGISTERS: Final = 4
_HEADER: Final = struct.Struct(">HHHBB")
_FAULT_BIT: Final = 0x80


class _MeterFault(Exception):
    """The meter answered with something that is not its registers."""


class ModbusMeter:
    """One meter. Several tasks may read it: a meter serves one request at a time, so each waits for its turn."""

    def __init__(self, entry: MeterEntry, clock: Clock, timeout_s: float = 1.0) -> None:
        self._entry = entry
        self._clock = clock
        self._timeout_s = timeout_s
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._transaction = 0
        self._silent = False
        self._turn = asyncio.Lock()

    @property
    def entry(self) -> MeterEntry:
        """Return the meter's place in the list."""
        return self._entry

    async def read(self) -> MeterSample:
        """Return total active power in W and imported energy in Wh; both None when the meter does not answer.

        Source: Modbus Application Protocol 1.1b3, function 4; registers as the site's meter list says.
        """
        # The connection belongs to whose turn it is: one who still waits, or gives up waiting, leaves it alone.
        async with self._turn:
            return await self._sample()

    async def close(self) -> None:
        """Close the connection."""
        self._drop()

    async def _sample(self) -> MeterSample:
        try:
            async with asyncio.timeout(self._timeout_s):
                power_w, energy_kwh = await self._registers()
        except (OSError, UnicodeError, TimeoutError, asyncio.IncompleteReadError, _MeterFault) as error:
            # UnicodeError is how Python refuses a host name that cannot be looked up.
            self._drop()
            self._note_silence(error)
            return MeterSample(self._entry.meter_id, self._clock.now(), None)
        except asyncio.CancelledError:
            self._drop()
            raise
        self._note_answer()
        return MeterSample(
            self._entry.meter_id,
            self._clock.now(),
            Watts(power_w) if math.isfinite(power_w) else None,
            watt_hours(energy_kwh) if math.isfinite(energy_kwh) else None,
        )

    async def _registers(self) -> tuple[float, float]:
        if self._stream is None:
            self._stream = await asyncio.open_connection(self._entry.host, self._entry.port)
        reader, writer = self._stream
        self._transaction = (self._transaction + 1) % 0x10000
        writer.write(
            _HEADER.pack(self._transaction, 0, 6, self._entry.unit, _READ_INPUT_REGISTERS)
            + struct.pack(">HH", self._entry.register, _REGISTERS)
        )
        await writer.drain()
        transaction, protocol, length, unit, function = _HEADER.unpack(await reader.readexactly(_HEADER.size))
        if protocol != 0 or not 3 <= length <= 256:
            raise _MeterFault("the answer is not Modbus TCP")
        body = await reader.readexactly(length - 2)
        if transaction != self._transaction or unit != self._entry.unit:
            raise _MeterFault("the answer belongs to another request")
        if function & _FAULT_BIT:
            raise _MeterFault(f"it refuses register {self._entry.register} with exception {body[0]}")
        if function != _READ_INPUT_REGISTERS or len(body) != 1 + 2 * _REGISTERS:
            raise _MeterFault("the answer has another size than two float32 values")
        power_w, energy_kwh = struct.unpack(">ff", body[1:])
        return power_w, energy_kwh

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream[1].transport.abort()
            self._stream = None

    def _note_silence(self, error: BaseException) -> None:
        if not self._silent:
            cause = str(error) or f"no answer within {self._timeout_s:g} s"
            _LOG.warning(
                "meter %s at %s:%d does not answer: %s; check its cabling and address",
                self._entry.meter_id,
                self._entry.host,
                self._entry.port,
                cause,
            )
        self._silent = True

    def _note_answer(self) -> None:
        if self._silent:
            _LOG.info("meter %s answers again", self._entry.meter_id)
        self._silent = False
