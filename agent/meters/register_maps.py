"""The register maps of meter models: one TOML file a model, three shipped, more from the site's own folder.

    model = "Eastron SDM630"
    source = "which document says so"
    registers = "input"                    # or "holding"
    [power]                                # total active power
    register = 52                          # as in the request, counted from 0
    form = "float32"                       # int16 uint16 int32 uint32 int64 uint64 float32 float64
    factor = 1.0                           # register value times factor is W (power) or Wh (energy)
    low_word_first = false
    [energy]                               # imported active energy; may be left out

Invariant: a map is taken whole or refused with its file, key, cause and what to write.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from agent.errors import BadInput
from agent.shipped import check_keys, own_or_shipped

SHIPPED: Final = Path(__file__).parent / "maps"
_LAST: Final = 0xFFFF
_KEYS: Final = frozenset({"model", "source", "registers", "power", "energy"})
_PLACE_KEYS: Final = frozenset({"register", "form", "factor", "low_word_first"})


class Kind(StrEnum):
    """Which of a unit's two tables of registers."""

    INPUT = "input"
    HOLDING = "holding"


class Form(StrEnum):
    """How a figure is written in registers."""

    INT16 = "int16"
    UINT16 = "uint16"
    INT32 = "int32"
    UINT32 = "uint32"
    INT64 = "int64"
    UINT64 = "uint64"
    FLOAT32 = "float32"
    FLOAT64 = "float64"


PACKED: Final = {
    Form.INT16: "h",
    Form.UINT16: "H",
    Form.INT32: "i",
    Form.UINT32: "I",
    Form.INT64: "q",
    Form.UINT64: "Q",
    Form.FLOAT32: "f",
    Form.FLOAT64: "d",
}
"""How ``struct`` writes each form."""
_REGISTER_BYTES: Final = 2
_KINDS: Final = {kind.value: kind for kind in Kind}
_FORMS: Final = {form.value: form for form in Form}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a figure stands. Its value times ``factor`` is W or Wh."""

    register: int
    form: Form
    factor: float
    low_word_first: bool

    @property
    def width(self) -> int:
        """Return how many registers it takes."""
        return struct.calcsize(f">{PACKED[self.form]}") // _REGISTER_BYTES


@dataclass(frozen=True, slots=True)
class RegisterMap:
    """One model's registers."""

    model: str
    kind: Kind
    power: Place
    energy: Place | None


def load_map(name: str, folder: Path | None = None) -> RegisterMap:
    """Return the map called ``name``, the site's own in ``folder`` before the one we ship.

    Raises:
        BadInput: there is none, or it is wrong.
    """
    path, document = own_or_shipped(name, folder, SHIPPED, "meters.csv: the register map", _KEYS)
    return _map(path, document)


def _map(path: Path, document: Mapping[str, Any]) -> RegisterMap:
    model, kind = document.get("model"), _KINDS.get(str(document.get("registers")))
    if not isinstance(model, str) or not model:
        raise BadInput(f"{path}: model: is missing; write the meter's maker and model")
    if kind is None:
        raise BadInput(f'{path}: registers: {document.get("registers")!r} is not known; write "input" or "holding"')
    if "power" not in document:
        raise BadInput(f"{path}: [power]: is missing; say where the total active power stands")
    energy = _place(path, "energy", document["energy"]) if "energy" in document else None
    return RegisterMap(model, kind, _place(path, "power", document["power"]), energy)


def _place(path: Path, name: str, table: object) -> Place:
    where = f"{path}: [{name}]"
    if not isinstance(table, dict):
        raise BadInput(f"{where}: is no table; write [{name}] and its keys below")
    check_keys(where, table, _PLACE_KEYS)
    register, form = table.get("register"), _FORMS.get(str(table.get("form")))
    factor, swapped = table.get("factor", 1.0), table.get("low_word_first", False)
    if type(register) is not int or not 0 <= register <= _LAST:
        raise BadInput(f"{where} register: {register!r} does not fit; write 0 to {_LAST}, counted from 0")
    if form is None:
        raise BadInput(f"{where} form: {table.get('form')!r} is not known; write one of {', '.join(_FORMS)}")
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < abs(factor) < 1e9:
        raise BadInput(f"{where} factor: {factor!r} does not fit; write what makes W, or Wh, of the register's value")
    if not isinstance(swapped, bool):
        raise BadInput(f"{where} low_word_first: {swapped!r} does not fit; write true or false")
    place = Place(register, form, float(factor), swapped)
    if register + place.width - 1 > _LAST:
        raise BadInput(f"{where} register: a {form.value} does not fit there; write a smaller one")
    return place
