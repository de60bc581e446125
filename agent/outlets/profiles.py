"""How the PDUs of a make are spoken to: one TOML file a make, three shipped, more from the site's own folder.

    model = "Shelly, second generation and later"
    source = "which document says so"
    on = "GET /rpc/Switch.Set?id={place}&on=true"        # method and target; {outlet} is the number in inventory.csv,
    off = "GET /rpc/Switch.Set?id={place}&on=false"      # {place} one less
    on_body = ""                                         # JSON to send along; may be left out, as off_body
    state = "GET /rpc/Switch.GetStatus?id={place}"
    state_at = ["output"]                                # where the answer has the state: the first place that exists
    on_value = true                                      # what stands there while the outlet is on
    off_value = false                                    # and while it is off; anything else is unknown
    power_at = "apower"                                  # where it has the power in W; may be left out

Invariant: a profile is taken whole or refused with its file, key, cause and what to write.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.errors import BadInput
from agent.shipped import own_or_shipped

SHIPPED: Final = Path(__file__).parent / "makes"
_TEXTS: Final = ("model", "on", "off", "state")
_OPTIONAL: Final = ("source", "on_body", "off_body", "power_at")
_KEYS: Final = frozenset((*_TEXTS, *_OPTIONAL, "state_at", "on_value", "off_value"))
_METHODS: Final = ("GET", "POST", "PUT")
Value = bool | int | str


@dataclass(frozen=True, slots=True)
class Profile:
    """One make of PDU. Targets, bodies and places may hold ``{outlet}`` and ``{place}``."""

    model: str
    on: str
    off: str
    on_body: str
    off_body: str
    state: str
    state_at: tuple[str, ...]
    on_value: Value
    off_value: Value
    power_at: str


def load_profile(name: str, folder: Path | None = None) -> Profile:
    """Return the profile called ``name``, the site's own in ``folder`` before the one we ship.

    Raises:
        BadInput: there is none, or it is wrong.
    """
    path, document = own_or_shipped(name, folder, SHIPPED, "inventory.csv: outlet: the PDU", _KEYS)
    return _profile(path, document)


def filled(text: str, outlet: int) -> str:
    """Return ``text`` with the outlet's number and place in it."""
    return text.replace("{outlet}", str(outlet)).replace("{place}", str(outlet - 1))


def _profile(path: Path, document: Mapping[str, Any]) -> Profile:
    texts = {name: _text(path, document, name) for name in (*_TEXTS, *_OPTIONAL)}
    for name in ("on", "off", "state"):
        method, _, target = texts[name].partition(" ")
        if method not in _METHODS or not target.startswith("/") or " " in target or not target.isascii():
            raise BadInput(f"{path}: {name}: {texts[name]!r} does not fit; write a method and a target, as GET /state")
    places = document.get("state_at")
    if not isinstance(places, list) or not places or not all(isinstance(place, str) and place for place in places):
        raise BadInput(f'{path}: state_at: {places!r} does not fit; write a list of places, as ["output"]')
    on, off = _value(path, document, "on_value"), _value(path, document, "off_value")
    if on == off:
        raise BadInput(f"{path}: on_value, off_value: are equal; write what stands for on and what for off")
    del texts["source"]
    return Profile(**texts, state_at=tuple(places), on_value=on, off_value=off)


def _value(path: Path, document: Mapping[str, Any], name: str) -> Value:
    value = document.get(name)
    if not isinstance(value, bool | int | str):
        raise BadInput(
            f"{path}: {name}: {value!r} does not fit; write the text, number, true or false that stands there"
        )
    return value


def _text(path: Path, document: Mapping[str, Any], name: str) -> str:
    value = document.get(name, "" if name in _OPTIONAL else None)
    if not isinstance(value, str) or (not value and name in _TEXTS):
        raise BadInput(f"{path}: {name}: expected a text, got {value!r}; write it in quotes")
    return value
