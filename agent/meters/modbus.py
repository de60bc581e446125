"""A meter's figures out of its Modbus registers.

power and energy close together: one request     far apart: two, the power first
"""

import struct
from collections.abc import Sequence
from typing import Final

from agent.meters.figures import Figures
from agent.meters.register_maps import PACKED, Form, Kind, Place, RegisterMap
from agent.modbus import ModbusHost
from sitelink.meter_source import ModbusSource
from sitelink.units import Watts

_MOST_TOGETHER: Final = 64
"""Registers read in one request where both figures lie so close; the protocol allows 125, some meters fewer."""


class ModbusFigures:
    """One unit's figures. ``registers`` is the map of its model; None for the plain two float32 of the source."""

    def __init__(self, source: ModbusSource, host: ModbusHost, registers: RegisterMap | None) -> None:
        self._unit = source.unit
        self._host = host
        self._map = registers if registers is not None else plain_map(source.register)

    async def read(self, timeout_s: float) -> Figures:
        """Return the figures. Raises as ``ModbusHost.input_registers``.

        Source: Modbus Application Protocol 1.1b3, functions 3 and 4.
        """
        power, energy = self._map.power, self._map.energy
        places = [power] if energy is None else [power, energy]
        first = min(place.register for place in places)
        count = max(place.register + place.width for place in places) - first
        if count <= _MOST_TOGETHER:
            registers = await self._registers(first, count, timeout_s)
            found = [value_in(registers[place.register - first :], place) for place in places]
        else:
            found = [value_in(await self._registers(place.register, place.width, timeout_s), place) for place in places]
        return Figures(Watts(found[0]), found[1] if len(found) > 1 else None)

    def close(self) -> None:
        """Close the connections to its address; others who use it open new ones."""
        self._host.close()

    async def _registers(self, first: int, count: int, timeout_s: float) -> list[int]:
        read = self._host.input_registers if self._map.kind is Kind.INPUT else self._host.holding_registers
        return await read(self._unit, first, count, timeout_s)


def plain_map(register: int) -> RegisterMap:
    """Return the map of a meter without one: float32 W at ``register``, float32 kWh two above, big-endian."""
    return RegisterMap(
        "plain", Kind.INPUT, Place(register, Form.FLOAT32, 1.0, False), Place(register + 2, Form.FLOAT32, 1e3, False)
    )


def value_in(registers: Sequence[int], place: Place) -> float:
    """Return the figure that the first registers hold, in W or Wh; registers are big-endian words."""
    words = list(registers[: place.width])
    if place.low_word_first:
        words.reverse()
    (value,) = struct.unpack(f">{PACKED[place.form]}", struct.pack(f">{len(words)}H", *words))
    return float(value) * place.factor
