"""What a miner is limited to, as its stop keeps it, and the order that gives it back. Pure.

    {"power_limit_w": 2800.0, "mode": "low"}     where a firmware knows one of them, the other is left out

Invariants: what was not known is neither kept nor asked back; a mode goes before a limit, for it may set one.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, Protocol, runtime_checkable

from agent.cgminer.control.driver import Wanted
from agent.cgminer.device import Device
from agent.cgminer.observation import Observation
from agent.cgminer.sections import number
from sitelink.types import Verb
from sitelink.units import Watts
from sitelink.verbs import MODES

_TOLERANCE: Final = 0.02
"""Devices round a limit to their own steps."""


@runtime_checkable
class KeepsLimit(Protocol):
    """A driver of a firmware whose limit, mode or profile a restart of the miner may lose."""

    async def limits(self, device: Device, seen: Observation | None) -> str:
        """Return, as JSON text, what the miner is limited to; empty where that is not known.

        ``seen`` is a look of this moment at the hashing miner, None where there is none: what it tells is not asked
        again. At most one connection is made. Raises Transient or Permanent.
        """
        ...

    async def lost(self, device: Device, kept: Mapping[str, Any], seen: Observation) -> Wanted | None:
        """Return the LIMIT order for ``send`` that gives a hashing miner back what ``limits`` had kept.

        None when nothing is lost. ``seen`` is the look that shows it hashing. Raises Transient or Permanent.
        """
        ...


def kept_limit(limit_w: float | None, mode: object = None) -> str:
    """Return a limit and a mode as they are kept; a mode that no order sets is left out."""
    named = _mode(mode)
    found = {**({} if not limit_w else {"power_limit_w": limit_w}), **({} if named is None else {"mode": named})}
    return json.dumps(found) if found else ""


def lost_limit(kept: Mapping[str, Any], limit_w: float | None, mode: object = None) -> Wanted | None:
    """Return the order that brings back the mode or the limit kept, whichever the miner is no longer in."""
    former, now = _mode(kept.get("mode")), _mode(mode)
    if former is not None and now is not None and former != now:
        return Wanted(Verb.LIMIT, {"mode": former})
    former_w = number(kept.get("power_limit_w"))
    if former_w and limit_w is not None and abs(limit_w - former_w) > _TOLERANCE * former_w:
        return Wanted(Verb.LIMIT, {"power_w": str(round(Watts(former_w)))})
    return None


def _mode(value: object) -> str | None:
    name = str(value).strip("'\" ").lower()
    return name if name in MODES else None
