"""Which miners are too hot to run. Pure.

    look, look  ->  both at or above the limit        -> tripped, until two looks are below it by the margin
    rack        ->  its median twice above the limit  -> all of the rack

Invariants:

* One look trips nothing and releases nothing: two in a row must agree, of the same kind of sensor.
* A figure that no sensor shows (0, -1, 255 and the like) is none. Neither is one that stays exactly as it was while the
  miner's other figures move: that sensor is stuck.
* Who tells no temperature any more while it is held is released after ``BLIND_S``: many firmwares are silent when off.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sitelink.units import Celsius, Watts

HOTTEST_C: Final = 150.0
"""Above this no chip computes: 255 and the like are what a broken sensor shows."""
BLIND_S: Final = 900.0
_STUCK_LOOKS: Final = 4
_MOVED_C: Final = 5.0
_MOVED_SHARE: Final = 0.25
_ENOUGH: Final = 3
"""So many miners of a rack must tell a temperature for its median to say something."""


@dataclass(frozen=True, slots=True)
class HeatLimit:
    """Above what a miner is stopped, None: no limit; it is released ``cooled_by_c`` below."""

    board_c: Celsius | None = None
    chip_c: Celsius | None = None
    cooled_by_c: float = 10.0

    @property
    def is_set(self) -> bool:
        """Return whether anything is limited."""
        return self.board_c is not None or self.chip_c is not None


@dataclass(frozen=True, slots=True)
class HeatRules:
    """A site's limits: ``groups`` by rack, feeder or model go before ``limit``; ``rack_c`` is for a rack's median."""

    limit: HeatLimit = field(default_factory=HeatLimit)
    groups: Mapping[str, HeatLimit] = field(default_factory=dict)
    rack_c: Celsius | None = None

    def of(self, rack: str, feeder_id: str, model: str) -> HeatLimit:
        """Return the limit of a miner, by the narrowest group it is in."""
        for name in (rack, feeder_id, model):
            if name and name in self.groups:
                return self.groups[name]
        return self.limit


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a miner told, the hottest of each kind; ``at_s`` is a monotonic second."""

    at_s: float
    board_c: Celsius | None = None
    chip_c: Celsius | None = None
    power_w: Watts | None = None


NO_HEAT_RULES: Final = HeatRules()


def plausible(temp_c: float | None) -> bool:
    """Return whether a sensor may show this."""
    return temp_c is not None and 0.0 < temp_c < HOTTEST_C


def look_of(at_s: float, boards_c: Iterable[Celsius], chips_c: Iterable[Celsius], power_w: Watts | None) -> Look:
    """Return a look at all sensors of a miner: the hottest figures that a sensor may show."""
    board_c = max((temp for temp in boards_c if plausible(temp)), default=None)
    chip_c = max((temp for temp in chips_c if plausible(temp)), default=None)
    return Look(at_s, board_c, chip_c, power_w)


@dataclass(slots=True)
class Heat:
    """One miner's looks, and whether it is held for heat."""

    limit: HeatLimit
    held: bool = False
    _looks: deque[Look] = field(default_factory=lambda: deque(maxlen=8))
    _seen_s: float = 0.0

    def hold(self, now_s: float) -> None:
        """Take up a hold of an earlier process."""
        self.held, self._seen_s = True, now_s

    def shown(self, look: Look) -> None:
        """Take note of a look; one as old as the last is the same."""
        if self._looks and look.at_s <= self._looks[-1].at_s:
            return
        self._looks.append(look)
        if any(self._told(kind, look) is not None for kind in ("board_c", "chip_c")):
            self._seen_s = look.at_s
        if not self.held and self._agree(above=True):
            self.held = True
        elif self.held and self._agree(above=False):
            self.held = False

    def expire(self, now_s: float) -> None:
        """Release who has told no temperature for long."""
        if self.held and now_s - self._seen_s >= BLIND_S:
            self.held = False

    @property
    def suspect(self) -> bool:
        """Return whether the last look alone says other than what stands: another is to be had soon."""
        return bool(self._looks) and self._over(self._looks[-1], above=not self.held)

    @property
    def is_odd(self) -> bool:
        """Return whether the last look told figures of a limited kind that no sensor shows: one may hide another."""
        last = self.last
        kinds = [kind for kind in ("board_c", "chip_c") if getattr(self.limit, kind) is not None]
        return last is not None and any(
            (temp_c := getattr(last, kind)) is not None and not plausible(temp_c) for kind in kinds
        )

    @property
    def last(self) -> Look | None:
        """Return the last look."""
        return self._looks[-1] if self._looks else None

    def words(self) -> str:
        """Return what the last look showed, beside the limits."""
        told = []
        for name, kind in (("board", "board_c"), ("chip", "chip_c")):
            limit_c = getattr(self.limit, kind)
            seen_c = self._told(kind, self._looks[-1]) if self._looks else None
            if limit_c is not None and seen_c is not None:
                told.append(f"{name} {seen_c:.0f} C, limit {limit_c:.0f} C")
        return "; ".join(told) or "no temperature is told"

    def _agree(self, *, above: bool) -> bool:
        """Return whether the last two looks both are above a limit, or both below all there are."""
        return len(self._looks) > 1 and all(self._over(look, above=above) for look in list(self._looks)[-2:])

    def _over(self, look: Look, *, above: bool) -> bool:
        pairs = [
            (limit_c, temp_c)
            for kind in ("board_c", "chip_c")
            if (limit_c := getattr(self.limit, kind)) is not None and (temp_c := self._told(kind, look)) is not None
        ]
        if above:
            return any(temp_c >= limit_c for limit_c, temp_c in pairs)
        return bool(pairs) and all(temp_c <= limit_c - self.limit.cooled_by_c for limit_c, temp_c in pairs)

    def _told(self, kind: str, look: Look) -> float | None:
        """Return the temperature of one kind in a look, None where it is none or its sensor is stuck."""
        temp_c: float | None = getattr(look, kind)
        return temp_c if plausible(temp_c) and not self._stuck(kind) else None

    def _stuck(self, kind: str) -> bool:
        """Return whether a kind shows exactly the same in look after look while what it depends on has moved."""
        values = [getattr(look, kind) for look in self._looks]
        if len(values) < _STUCK_LOOKS or any(value != values[-1] for value in values[-_STUCK_LOOKS:]):
            return False
        same = [look for look in self._looks if getattr(look, kind) == values[-1]]
        others = [getattr(look, "chip_c" if kind == "board_c" else "board_c") for look in same]
        temps = [temp for temp in others if plausible(temp)]
        powers = [look.power_w for look in same if look.power_w is not None]
        moved = len(temps) > 1 and max(temps) - min(temps) >= _MOVED_C
        return moved or (len(powers) > 1 and max(powers) - min(powers) > _MOVED_SHARE * max(powers))

    def boards_c(self) -> tuple[float, float] | None:
        """Return the board temperature of the last two looks, None where either tells none."""
        told = [self._told("board_c", look) for look in list(self._looks)[-2:]]
        return (told[0], told[1]) if len(told) > 1 and told[0] is not None and told[1] is not None else None


def median(values: Iterable[float]) -> float:
    """Return the middle of ``values``, of two the upper; there must be one."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def racks_too_hot(
    racks: Mapping[str, Iterable[Heat]], held: Iterable[str], limit_c: Celsius | None, cooled_by_c: float
) -> frozenset[str]:
    """Return the racks to hold: their median board is twice above the limit, or, held already, not twice well below.

    A rack of which too few tell a temperature stays as it is.
    """
    if limit_c is None:
        return frozenset()
    before = frozenset(held)
    found = set()
    for rack, members in racks.items():
        told = [pair for heat in members if (pair := heat.boards_c()) is not None]
        if len(told) < _ENOUGH:
            if rack in before:
                found.add(rack)
            continue
        medians = (median(pair[0] for pair in told), median(pair[1] for pair in told))
        if min(medians) >= limit_c or (rack in before and max(medians) > limit_c - cooled_by_c):
            found.add(rack)
    return frozenset(found)
