"""Power meters over Modbus TCP, fed by what miners really draw.

Invariants: a feeder meter reads the true power of its miners plus 0.5 % of loss; the site meter reads the sum of all
feeders plus the house load; noise is 0.1 % on power and none on energy. Unknown units and registers are refused with
Modbus exceptions, never with a made-up figure.

      unit U, register N: float32 W at N, float32 kWh at N + 2 (big-endian), function 4 (3 answers alike)
      unit 247, coil N: the contactor before miner N, functions 1, 5 and 15
"""

import asyncio
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from simulator import noise
from simulator.contactors import UNIT, Contactors
from simulator.listener import bind
from simulator.miner import Miner, SiteTime
from sitelink.units import Watts

_LOSS = 1.005
_POWER_NOISE = 0.001
_UNITS = 240
_PAGE = 10
_REGISTERS = 4
_HEADER = struct.Struct(">HHHB")
_ILLEGAL_FUNCTION, _ILLEGAL_ADDRESS, _ILLEGAL_VALUE, _NO_SUCH_UNIT = 1, 2, 3, 11
_COIL_ON, _COIL_OFF = 0xFF00, 0x0000
_MOST_COILS = 2000
METER_FAULTS = ("silent", "stuck")


@dataclass(slots=True)
class Meter:
    """One meter and where it answers. ``fault`` is None, ``silent`` (never answers) or ``stuck`` (old figures)."""

    meter_id: str
    kind: str
    feeder_id: str
    unit: int
    register: int
    fault: str | None = None
    stuck_at: tuple[float, float] = field(default=(0.0, 0.0))


class MeterBank:
    """All meters of a site.

    Args:
        feeders: miners by feeder id, in order.
        house_w: what the site draws beside its miners.
    """

    def __init__(
        self, site_id: str, seed: int, feeders: Mapping[str, Sequence[Miner]], house_w: Watts, time: SiteTime
    ) -> None:
        self._feeders = feeders
        self._house_w = house_w
        self._time = time
        self._keys: dict[str, int] = {}
        self.meters: dict[str, Meter] = {}
        names = [(f"{site_id}-site", "site", "")] + [(f"{name}-meter", "feeder", name) for name in feeders]
        for index, (meter_id, kind, feeder_id) in enumerate(names):
            page, unit = divmod(index, _UNITS)
            self.meters[meter_id] = Meter(meter_id, kind, feeder_id, unit + 1, page * _PAGE)
            self._keys[meter_id] = noise.key("meter", seed, meter_id)

    def find(self, unit: int, register: int) -> Meter | None:
        """Return the meter whose page holds ``register`` of ``unit``."""
        index = register // _PAGE * _UNITS + unit - 1
        meters = list(self.meters.values())
        return meters[index] if 0 <= index < len(meters) and unit <= _UNITS else None

    def true_power_w(self, meter: Meter) -> Watts:
        """Return what flows through ``meter``, without noise."""
        now_s = self._time.seconds()
        if meter.kind == "site":
            drawn = sum(miner.true_power_w(now_s) for feeder in self._feeders.values() for miner in feeder)
            return Watts(drawn * _LOSS + self._house_w)
        return Watts(sum(miner.true_power_w(now_s) for miner in self._feeders[meter.feeder_id]) * _LOSS)

    def measure(self, meter: Meter) -> tuple[float, float]:
        """Return (W, kWh) as the meter shows them."""
        if meter.fault == "stuck":
            return meter.stuck_at
        key = self._keys[meter.meter_id]
        wobble = 1.0 + _POWER_NOISE * noise.smooth(key, self._time.seconds(), 1.0)
        return self.true_power_w(meter) * wobble, 100.0 + key % 400 + self._energy_kwh(meter)

    def set_fault(self, meter_id: str, fault: str | None) -> None:
        """Put ``fault`` on a meter.

        Raises:
            KeyError: there is no such meter, or no such fault.
        """
        meter = self.meters[meter_id]
        if fault is not None and fault not in METER_FAULTS:
            raise KeyError(fault)
        meter.stuck_at = self.measure(meter)
        meter.fault = fault

    def _energy_kwh(self, meter: Meter) -> float:
        now_s = self._time.seconds()
        feeders = self._feeders.values() if meter.kind == "site" else (self._feeders[meter.feeder_id],)
        drawn_wh = sum(miner.true_energy_wh(now_s) for feeder in feeders for miner in feeder) * _LOSS
        house_wh = self._house_w * now_s / self._time.scale / 3600 if meter.kind == "site" else 0.0
        return (drawn_wh + house_wh) / 1e3


class ModbusServer:
    """Modbus TCP in front of a ``MeterBank`` and a site's contactors."""

    def __init__(self, bank: MeterBank, contactors: Contactors, host: str, port: int) -> None:
        self._bank = bank
        self._contactors = contactors
        self.host = host
        self.port = port
        self._server: asyncio.Server | None = None
        self._open: set[_ModbusConnection] = set()

    async def start(self) -> None:
        """Start to listen; ``port`` 0 becomes the port the kernel chose.

        Raises:
            SimulatorError: the address cannot be bound.
        """
        listening = bind(self.host, self.port)
        self.port = listening.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, sock=listening)

    async def close(self) -> None:
        """Stop to listen and drop every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in tuple(self._open):
            connection.abort()

    def _connection(self) -> "_ModbusConnection":
        return _ModbusConnection(self._bank, self._contactors, self._open)


class _ModbusConnection(asyncio.Protocol):
    def __init__(self, bank: MeterBank, contactors: Contactors, others: "set[_ModbusConnection]") -> None:
        self._bank = bank
        self._contactors = contactors
        self._others = others
        self._transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._others.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._others.discard(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            transaction, protocol, length, unit = _HEADER.unpack_from(self._buffer)
            if protocol or not 2 <= length <= 254:
                self.abort()
                return
            if len(self._buffer) < 6 + length:
                return
            request, self._buffer = self._buffer[_HEADER.size : 6 + length], self._buffer[6 + length :]
            if unit == UNIT and len(self._contactors):
                answer: bytes | None = _switch(self._contactors, request)
            else:
                answer = _answer(self._bank, unit, request)
            if answer is not None and self._transport is not None:
                self._transport.write(_HEADER.pack(transaction, 0, len(answer) + 1, unit) + answer)

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()


def _answer(bank: MeterBank, unit: int, request: bytes) -> bytes | None:
    """Return the answer's function code and body; None from a silent meter.

    Source: Modbus Application Protocol 1.1b3, functions 3 and 4.
    """
    function = request[0]
    if function not in {3, 4} or len(request) != 5:
        return bytes((function | 0x80, _ILLEGAL_FUNCTION))
    first, count = struct.unpack(">HH", request[1:])
    meter = bank.find(unit, first)
    if meter is None:
        known = any(unit == other.unit for other in bank.meters.values())
        return bytes((function | 0x80, _ILLEGAL_ADDRESS if known else _NO_SUCH_UNIT))
    if meter.fault == "silent":
        return None
    offset = first - meter.register
    if count < 1 or offset + count > _REGISTERS:
        return bytes((function | 0x80, _ILLEGAL_ADDRESS))
    body = struct.pack(">ff", *bank.measure(meter))[offset * 2 : (offset + count) * 2]
    return bytes((function, len(body))) + body


def _switch(contactors: Contactors, request: bytes) -> bytes:
    """Return the answer to a request that reads or switches coils.

    Source: Modbus Application Protocol 1.1b3, functions 1, 5 and 15.
    """
    function = request[0]
    if function not in {1, 5, 15} or len(request) < 5:
        return bytes((function | 0x80, _ILLEGAL_FUNCTION))
    first, value = struct.unpack(">HH", request[1:5])
    if function == 1:
        states = contactors.read(first, value) if 1 <= value <= _MOST_COILS else None
        if states is None:
            return bytes((function | 0x80, _ILLEGAL_ADDRESS))
        packed = bytes(
            sum(state << place for place, state in enumerate(states[at : at + 8])) for at in range(0, len(states), 8)
        )
        return bytes((function, len(packed))) + packed
    if function == 5 and value not in {_COIL_ON, _COIL_OFF}:
        return bytes((function | 0x80, _ILLEGAL_VALUE))
    wanted = [value == _COIL_ON] if function == 5 else _unpacked(request, value)
    if wanted is None:
        return bytes((function | 0x80, _ILLEGAL_VALUE))
    done = contactors.write(first, wanted)
    return request[:5] if done else bytes((function | 0x80, _ILLEGAL_ADDRESS))


def _unpacked(request: bytes, count: int) -> list[bool] | None:
    """Return the states that function 15 carries, None when they are not as many as it says."""
    data = request[6:]
    if not 1 <= count <= _MOST_COILS or len(data) != (count + 7) // 8 or request[5] != len(data):
        return None
    return [bool(data[place // 8] >> place % 8 & 1) for place in range(count)]
