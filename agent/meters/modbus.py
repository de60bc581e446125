"""A meter's figures out of its Modbus registers.

power and energy close together: one request     far apart: two, the power first

Invariant: a register that says "no value", as every form has a way to, is unknown and never a figure.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from agent.meters.figures import Figures
from agent.meters.register_maps import PACKED, Form, Kind, Place, RegisterMap
from agent.modbus import ModbusHost
from sitelink.meter_source import ModbusSource
from sitelink.units import Watts

_FLOATS: Final = (Form.FLOAT32, Form.FLOAT64)
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
            words = [registers[place.register - first :] for place in places]
        else:
            words = [await self._registers(place.register, place.width, timeout_s) for place in places]
        return self._figures(dict(zip(places, words, strict=True)))

    def close(self) -> None:
        """Close the connections to its address; others who use it open new ones."""
        self._host.close()

    def _figures(self, words: Mapping[Place, Sequence[int]]) -> Figures:
        found = {place: value_in(registers, place) for place, registers in words.items()}
        unsaid = "; ".join(
            f"register {place.register} holds 0x{_hexadecimal(words[place], place)}, which is "
            f"no figure of an {place.form.value}; look at its display, and at the form in its register map"
            for place, value in found.items()
            if value is None
        )
        power, energy = found[self._map.power], None if self._map.energy is None else found[self._map.energy]
        return Figures(None if power is None else Watts(power), energy, unsaid)

    async def _registers(self, first: int, count: int, timeout_s: float) -> list[int]:
        read = self._host.input_registers if self._map.kind is Kind.INPUT else self._host.holding_registers
        return await read(self._unit, first, count, timeout_s)


def plain_map(register: int) -> RegisterMap:
    """Return the map of a meter without one: float32 W at ``register``, float32 kWh two above, big-endian."""
    return RegisterMap(
        "plain", Kind.INPUT, Place(register, Form.FLOAT32, 1.0, False), Place(register + 2, Form.FLOAT32, 1e3, False)
    )


def value_in(registers: Sequence[int], place: Place) -> float | None:
    """Return the figure that the first registers hold, in W or Wh; registers are big-endian words.

    An integer at its form's extreme is none: it is how a meter writes an overflow, or that it has no value.

    Source: SunSpec Device Information Model, not-implemented values; Carlo Gavazzi EM300 protocol (7FFFFFFFh);
    Schneider iEM3000 register list (8000..h).
    """
    (value,) = struct.unpack(f">{PACKED[place.form]}", _packed(registers, place))
    if value in extremes_of(place.form) or not math.isfinite(value):
        return None
    return float(value) * place.factor


def extremes_of(form: Form) -> tuple[int, ...]:
    """Return the values at which an integer's register tells no figure; a float says so by not being a number."""
    letter = PACKED[form]
    bits = 8 * struct.calcsize(f">{letter}")
    if form in _FLOATS:
        return ()
    return (2**bits - 1,) if letter.isupper() else (2 ** (bits - 1) - 1, -(2 ** (bits - 1)))


def _packed(registers: Sequence[int], place: Place) -> bytes:
    words = list(registers[: place.width])
    if place.low_word_first:
        words.reverse()
    return struct.pack(f">{len(words)}H", *words)


def _hexadecimal(registers: Sequence[int], place: Place) -> str:
    return _packed(registers, place).hex().upper()
