"""Contactors before miners that take no stop: one Modbus coil each, on while the miner has power.

Invariants: a coil reads what it was last told, whatever the power does: one that is welded (``ack_without_effect``)
lets it flow. A miner that gets its power back answers after its boot, and not before.

      modbus://HOST:PORT/247?coil=N   N is the miner's index on site
"""

from collections.abc import Iterable, Sequence

from simulator.miner import Miner

UNIT = 247


class Contactors:
    """The coils of a site."""

    def __init__(self, miners: Iterable[Miner]) -> None:
        self._miners = {miner.place.index: miner for miner in miners}
        self._closed = dict.fromkeys(self._miners, True)

    def __len__(self) -> int:
        return len(self._miners)

    def url(self, miner: Miner, host: str, port: int) -> str:
        """Return the outlet of ``miner`` as an inventory names it; empty where it has none."""
        return f"modbus://{host}:{port}/{UNIT}?coil={miner.place.index}" if miner.place.index in self._miners else ""

    def read(self, first: int, count: int) -> list[bool] | None:
        """Return the states of ``count`` coils from ``first`` on, None when the first has no contactor.

        Coils between contactors read as off.
        """
        if first not in self._miners:
            return None
        return [self._closed.get(first + place, False) for place in range(count)]

    def write(self, first: int, states: Sequence[bool]) -> bool:
        """Switch the coils from ``first`` on; return False, and switch none, when one has no contactor."""
        coils = range(first, first + len(states))
        if not all(coil in self._miners for coil in coils):
            return False
        for coil, closed in zip(coils, states, strict=True):
            if closed is not self._closed[coil]:
                self._closed[coil] = closed
                self._miners[coil].switch(on=closed)
        return True
