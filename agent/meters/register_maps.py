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

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from agent.errors import BadInput

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


_WIDTHS: Final = {
    Form.INT16: 1,
    Form.UINT16: 1,
    Form.INT32: 2,
    Form.UINT32: 2,
    Form.FLOAT32: 2,
    Form.INT64: 4,
    Form.UINT64: 4,
    Form.FLOAT64: 4,
}
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
        return _WIDTHS[self.form]


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
    own = None if folder is None else folder / f"{name}.toml"
    path = own if own is not None and own.exists() else SHIPPED / f"{name}.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        known = ", ".join(sorted(shipped.stem for shipped in SHIPPED.glob("*.toml")))
        put = "" if own is None else f", or write {own}"
        raise BadInput(f"meters.csv: the register map {name!r} is not known; use one of {known}{put}") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}; check its permissions") from None
    except ValueError as error:  # UnicodeDecodeError and TOMLDecodeError among them
        raise BadInput(f"{path}: not a TOML file: {error}; correct that line") from None
    return _map(path, document)


def _map(path: Path, document: Mapping[str, Any]) -> RegisterMap:
    unknown = set(document) - _KEYS
    if unknown:
        raise BadInput(f"{path}: {min(unknown)}: is not a known key; remove it or correct its spelling")
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
    unknown = set(table) - _PLACE_KEYS
    if unknown:
        raise BadInput(f"{where} {min(unknown)}: is not a known key; remove it or correct its spelling")
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
