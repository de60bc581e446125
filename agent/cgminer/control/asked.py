"""What an order's parameters say, and what of it a firmware may have to refuse. Pure.

    LIMIT power_w | mode    POOLS pools    BLINK on    FIRMWARE version

Invariant: they are read by ``sitelink.verbs`` alone; what says nothing clear is refused before anything is sent.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from agent.cgminer.control.driver import Wanted
from agent.errors import Refused
from sitelink.units import Watts
from sitelink.verbs import BadCommand, Pool, blink_of, limit_of, pools_of

_T = TypeVar("_T")


def limit_asked(wanted: Wanted) -> Watts | str:
    """Return the limit asked for, or the mode. Raises Refused when neither or both are given, or one that is none."""
    return _read(limit_of, wanted)


def power_asked(wanted: Wanted) -> Watts | None:
    """Return the limit asked for, None when a mode is asked for instead. Raises Refused as ``limit_asked`` does."""
    found = limit_asked(wanted)
    return None if isinstance(found, str) else found


def power_asked_alone(wanted: Wanted, where: object) -> Watts:
    """Return the limit asked for, where the firmware knows no modes. Raises Refused as ``limit_asked``, and for one."""
    found = power_asked(wanted)
    if found is None:
        raise Refused("mode_unsupported", f"{where}: has no modes; give the limit as power_w")
    return found


def mode_asked(wanted: Wanted) -> str | None:
    """Return the mode asked for, None when a power is asked for instead. Raises Refused as ``limit_asked`` does."""
    found = limit_asked(wanted)
    return found if isinstance(found, str) else None


def pools_asked(wanted: Wanted) -> tuple[Pool, ...]:
    """Return the pools asked for, one to three. Raises Refused when they are no such list."""
    return _read(pools_of, wanted)


def blink_asked(wanted: Wanted) -> bool:
    """Return whether the lamp is to blink. Raises Refused when the order does not say."""
    return _read(blink_of, wanted)


def version_asked(wanted: Wanted) -> str:
    """Return the firmware version asked for. Raises Refused when the order names none."""
    version = wanted.parameters.get("version", "").strip()
    if not version:
        raise _unclear("the firmware's version is not named")
    return version


def _read(part: Callable[[Mapping[str, str]], _T], wanted: Wanted) -> _T:
    try:
        return part(wanted.parameters)
    except BadCommand as error:
        raise _unclear(str(error)) from None


def _unclear(what: str) -> Refused:
    return Refused("bad_parameters", f"the order is not clear: {what}; correct it and send it again")
