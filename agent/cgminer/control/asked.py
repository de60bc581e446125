"""What an order's parameters say, in our units. Pure.

    LIMIT power_w | mode    POOLS pools    BLINK on    FIRMWARE version

Invariant: parameters that say nothing clear are refused before anything is sent; nothing is guessed.
"""

import json
from typing import Any, Final, NamedTuple

from agent.cgminer.control.driver import Wanted
from agent.cgminer.sections import number
from agent.errors import Refused
from sitelink.units import Watts

MOST_POOLS: Final = 3
_SWITCHES: Final = {"true": True, "false": False}


class Pool(NamedTuple):
    """One pool a miner works for, first choice first. The password is the pool's, not the miner's."""

    url: str
    user: str
    password: str


def power_asked(wanted: Wanted) -> Watts | None:
    """Return the limit asked for, None when a mode is asked for instead.

    Raises:
        Refused: neither or both are given, or it is no power.
    """
    text, mode = wanted.parameters.get("power_w"), wanted.parameters.get("mode")
    if (text is None) == (mode is None):
        raise _unclear("a limit is exactly one of power_w and mode")
    if text is None:
        return None
    found = number(text)
    if found is None or found <= 0:
        raise _unclear(f"power_w is {text!r}, which is no power in W")
    return Watts(found)


def power_asked_alone(wanted: Wanted, where: object) -> Watts:
    """Return the limit asked for, where the firmware knows no modes. Raises Refused as ``power_asked``, and for one."""
    found = power_asked(wanted)
    if found is None:
        raise Refused("mode_unsupported", f"{where}: has no modes; give the limit as power_w")
    return found


def mode_asked(wanted: Wanted) -> str | None:
    """Return the mode asked for, None when a power is asked for instead. Raises Refused as ``power_asked`` does."""
    power_asked(wanted)
    return wanted.parameters.get("mode")


def pools_asked(wanted: Wanted) -> tuple[Pool, ...]:
    """Return the pools asked for, one to three.

    Raises:
        Refused: they are no such list.
    """
    try:
        found = json.loads(wanted.parameters.get("pools", ""))
    except (ValueError, RecursionError):
        raise _unclear("pools is no JSON") from None
    if not isinstance(found, list) or not 1 <= len(found) <= MOST_POOLS:
        raise _unclear(f"pools is no list of one to {MOST_POOLS}")
    return tuple(_pool(entry) for entry in found)


def blink_asked(wanted: Wanted) -> bool:
    """Return whether the lamp is to blink. Raises Refused when the order does not say."""
    on = _SWITCHES.get(wanted.parameters.get("on", "").lower())
    if on is None:
        raise _unclear("on is neither true nor false")
    return on


def version_asked(wanted: Wanted) -> str:
    """Return the firmware version asked for. Raises Refused when the order names none."""
    version = wanted.parameters.get("version", "").strip()
    if not version:
        raise _unclear("the firmware's version is not named")
    return version


def _pool(entry: Any) -> Pool:
    told = entry if isinstance(entry, dict) else {}
    url, user, password = told.get("url"), told.get("user"), told.get("password", "")
    if not isinstance(url, str) or not isinstance(user, str) or not isinstance(password, str) or not url:
        raise _unclear("a pool has no url, user and password in text")
    return Pool(url, user, password)


def _unclear(what: str) -> Refused:
    return Refused("bad_parameters", f"the order is not clear: {what}; correct it and send it again")
