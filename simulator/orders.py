"""The device log: each order that a device received, and when it really took effect.

Invariant: ``effect_at`` is set only once the effect is there: true power past the threshold (15 % of nameplate for a
stop, 50 % for a start, settled for a limit), the device back from its reboot, the setting stored. For an order that
found it so already, it is the moment of receipt.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from simulator.physics import Effect
from sitelink.types import Verb


@dataclass(frozen=True, slots=True)
class ReceivedOrder:
    """One order as a device received it; ``effect`` lives on while power follows. ``detail`` is what it asked for."""

    miner_id: str
    verb: Verb
    received_at: datetime
    received_s: float
    effect: Effect
    detail: Mapping[str, Any] = field(default_factory=dict)


class OrderLog:
    """Orders of a whole site in order of receipt.

    Args:
        time_scale: simulated seconds a real second; effects are known in simulated seconds.
    """

    def __init__(self, time_scale: float) -> None:
        self._time_scale = time_scale
        self._orders: list[ReceivedOrder] = []

    def add(self, order: ReceivedOrder) -> None:
        """Append ``order``."""
        self._orders.append(order)

    def __len__(self) -> int:
        return len(self._orders)

    def rows(self, now_s: float) -> Iterator[dict[str, Any]]:
        """Yield one JSON object an order; every miner must have been advanced to ``now_s``."""
        for order in self._orders:
            effect_s = order.effect.at_s
            effect_at = None
            if effect_s is not None and effect_s <= now_s:
                effect_at = order.received_at + timedelta(seconds=(effect_s - order.received_s) / self._time_scale)
            yield {
                "miner_id": order.miner_id,
                "verb": order.verb.value,
                "received_at": order.received_at.isoformat(),
                "effect_at": effect_at.isoformat() if effect_at else None,
                "detail": dict(order.detail),
            }
