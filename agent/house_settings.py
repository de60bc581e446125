"""The house rules of a site as its operator writes them: ``[limits]`` and ``[fallback]`` of ``agent.toml``.

Invariant: a limit that is not written limits nothing, but for ``max_off_s``; one that contradicts itself is refused.
"""

from dataclasses import dataclass
from typing import Final

from agent.settings_section import Section
from sitelink.miner_ids import canonical
from sitelink.types import Fallback, Verb
from sitelink.units import Celsius, Megawatts, Watts, watts

_MOST_W: Final = 1e9
_MOST_MW: Final = 10_000.0
_MILDEST_C: Final = 30.0
_HOTTEST_C: Final = 140.0


@dataclass(frozen=True, slots=True)
class HeatSettings:
    """Above which temperatures a miner, or by its median board a rack, is stopped; None: no limit.

    ``groups`` are those of a rack, feeder or model: its name, boards, chips. Released ``cooled_by_c`` below.
    """

    board_c: Celsius | None
    chip_c: Celsius | None
    rack_c: Celsius | None
    cooled_by_c: float
    groups: tuple[tuple[str, Celsius | None, Celsius | None], ...]


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """What no order may exceed at this site, whoever signed it.

    ``max_step_w`` bounds the load switched in ten seconds, ``max_per_min_w`` that of a minute; ``min_load_w`` is what
    the site draws at the least. 0 means no limit.
    """

    max_off_s: float
    max_step_w: Watts
    never_touch: tuple[str, ...]
    max_per_min_w: Watts
    allowed_verbs: frozenset[Verb]
    min_load_w: Watts
    heat: "HeatSettings"


@dataclass(frozen=True, slots=True)
class FallbackSettings:
    """What the site does when the clock is untrusted or the plan has expired, after ``grace_s``."""

    mode: Fallback
    grace_s: float


def limits_of(section: Section) -> LimitSettings:
    """Return ``[limits]``. Raises BadInput."""
    settings = LimitSettings(
        max_off_s=section.number("max_off_s", 14400, 1, 7 * 86400),
        max_step_w=Watts(section.number("max_step_w", 0, 0, _MOST_W)),
        never_touch=tuple(canonical(name) for name in section.texts("never_touch")),
        max_per_min_w=watts(Megawatts(section.number("max_mw_per_min", 0, 0, _MOST_MW))),
        allowed_verbs=_verbs(section),
        min_load_w=watts(Megawatts(section.number("min_load_mw", 0, 0, _MOST_MW))),
        heat=_heat(section),
    )
    section.nothing_left()
    return settings


def fallback_of(section: Section) -> FallbackSettings:
    """Return ``[fallback]``. Raises BadInput."""
    mode = section.text("mode", Fallback.RUN.value)
    known = [choice.value for choice in Fallback]
    if mode not in known:
        raise section.bad("mode", f"{mode!r} is not known", f"write one of {', '.join(known)}")
    settings = FallbackSettings(mode=Fallback(mode), grace_s=section.number("grace_s", 0, 0, 86400))
    section.nothing_left()
    return settings


def _heat(section: Section) -> HeatSettings:
    board_c, chip_c = _celsius(section, "max_board_temp_c"), _celsius(section, "max_chip_temp_c")
    groups = []
    for name, group in section.tables("groups").items():
        groups.append((name, _celsius(group, "max_board_temp_c"), _celsius(group, "max_chip_temp_c")))
        group.nothing_left()
    return HeatSettings(
        board_c, chip_c, _celsius(section, "max_rack_temp_c"), section.number("cooled_by_c", 10, 1, 60), tuple(groups)
    )


def _celsius(section: Section, key: str) -> Celsius | None:
    """Return a temperature, None for 0 or where the key is absent."""
    found = section.number(key, 0, 0, _HOTTEST_C)
    if 0 < found < _MILDEST_C:
        raise section.bad(key, f"{found:g} C stops miners that are well", f"write {_MILDEST_C:g} or more, 0 for none")
    return Celsius(found) if found else None


def _verbs(section: Section) -> frozenset[Verb]:
    """Return the verbs that orders may use: all, where none are named."""
    known = [verb.value for verb in Verb]
    names = section.texts("allowed_verbs", '["stop", "start"]', default=known)
    strange = [name for name in names if name not in known]
    if strange:
        raise section.bad("allowed_verbs", f"{strange[0]!r} is not a verb", f"write some of {', '.join(known)}")
    verbs = frozenset(Verb(name) for name in names)
    if Verb.STOP in verbs and Verb.START not in verbs:
        raise section.bad("allowed_verbs", "has stop without start", "add start, so that what is stopped comes back")
    return verbs
