"""The house rules of a site as its operator writes them: ``[limits]`` and ``[fallback]`` of ``agent.toml``.

Invariant: a limit that is not written limits nothing, but for ``max_off_s``; one that contradicts itself is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agent.settings_section import Section
from sitelink.meter_source import BadSource, parse_source
from sitelink.miner_ids import canonical
from sitelink.types import Fallback, Verb
from sitelink.units import Celsius, Megawatts, Watts, watts

_MOST_W: Final = 1e9
_MOST_MW: Final = 10_000.0
_BACK_BY_SHARE: Final = 0.05
_DEAD_METER: Final = ("nameplate", "run", "hold", "stop")
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
class RampSettings:
    """How ramps are carried out: see ``RampRules`` of local curtailment, field by field."""

    jitter_down: float
    jitter_up: float
    feedback_down_s: float
    feedback_up_s: float
    first_models: tuple[str, ...]
    first_wait_s: float


@dataclass(frozen=True, slots=True)
class FallbackSettings:
    """What the site does when the clock is untrusted or the plan has expired, after ``grace_s``."""

    mode: Fallback
    grace_s: float
    rule: "RuleSettings | None" = None


@dataclass(frozen=True, slots=True)
class PriceSettings:
    """The site's own price table: ``steps`` of USD/MWh and the share of the fleet that is off from there on."""

    file: Path
    timezone: str
    steps: tuple[tuple[float, float], ...]
    unknown: Fallback


@dataclass(frozen=True, slots=True)
class TemperatureSettings:
    """Steps of degrees Celsius and shares; of the air where ``thermometer`` is given, else of the boards."""

    thermometer: str
    steps: tuple[tuple[float, float], ...]
    back_by_c: float
    unknown: Fallback


@dataclass(frozen=True, slots=True)
class CapSettings:
    """What the site may draw at the most by its own meter."""

    cap_w: Watts
    back_by_w: Watts
    other_w: Watts
    settle_s: float
    dead_meter: str


RuleSettings = PriceSettings | TemperatureSettings | CapSettings


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


def ramp_of(section: Section) -> RampSettings:
    """Return ``[ramp]``. Raises BadInput."""
    settings = RampSettings(
        jitter_down=section.number("jitter_down", 0.1, 0, 1),
        jitter_up=section.number("jitter_up", 0, 0, 1),
        feedback_down_s=section.number("feedback_down_s", 10, 0, 120),
        feedback_up_s=section.number("feedback_up_s", 0, 0, 120),
        first_models=section.texts("first_models", '["fan wall"]'),
        first_wait_s=section.number("first_wait_s", 60, 0, 600),
    )
    section.nothing_left()
    return settings


def fallback_of(section: Section) -> FallbackSettings:
    """Return ``[fallback]``. Raises BadInput."""
    mode = section.text("mode", Fallback.RUN.value)
    rules: dict[str, Callable[[Section], RuleSettings]] = {
        "prices": _prices,
        "temperature": _temperature,
        "import_cap": _cap,
    }
    plain = [choice.value for choice in Fallback]
    if mode not in (*plain, *rules):
        raise section.bad("mode", f"{mode!r} is not known", f"write one of {', '.join((*plain, *rules))}")
    rule: RuleSettings | None = None
    for name, read in rules.items():
        below = section.table(name)
        if below is None and mode == name:
            raise section.bad("mode", f"{name} has nothing to go by", f"write a section [fallback.{name}]")
        if below is not None:
            found = read(below)
            below.nothing_left()
            rule = found if mode == name else rule
    settings = FallbackSettings(
        mode=Fallback(mode) if mode in plain else Fallback.RUN,
        grace_s=section.number("grace_s", 0, 0, 86400),
        rule=rule,
    )
    section.nothing_left()
    return settings


def _prices(section: Section) -> PriceSettings:
    zone = section.text("timezone", "UTC")
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise section.bad("timezone", f"{zone!r} is not known here", "write for example America/Chicago") from None
    return PriceSettings(
        file=section.path("file", "prices.csv"),
        timezone=zone,
        steps=_steps(section, "[[80, 0.5], [150, 1]]"),
        unknown=_plain(section, "unknown", Fallback.RUN),
    )


def _temperature(section: Section) -> TemperatureSettings:
    thermometer = section.text_or_nothing("thermometer")
    if thermometer:
        try:
            parse_source(thermometer)
        except BadSource as error:
            raise section.bad("thermometer", str(error), error.fix) from None
    return TemperatureSettings(
        thermometer=thermometer,
        steps=_steps(section, "[[70, 0.25], [75, 0.5]]"),
        back_by_c=section.number("back_by_c", 5, 0, 50),
        unknown=_plain(section, "unknown", Fallback.HOLD),
    )


def _cap(section: Section) -> CapSettings:
    cap_mw = section.number("cap_mw", 0, 0, _MOST_MW)
    if not cap_mw:
        raise section.bad("cap_mw", "is missing", "write what the site may draw at the most, in MW")
    dead = section.text("dead_meter", _DEAD_METER[0])
    if dead not in _DEAD_METER:
        raise section.bad("dead_meter", f"{dead!r} is not known", f"write one of {', '.join(_DEAD_METER)}")
    return CapSettings(
        cap_w=watts(Megawatts(cap_mw)),
        back_by_w=watts(Megawatts(section.number("back_by_mw", _BACK_BY_SHARE * cap_mw, 0, cap_mw))),
        other_w=watts(Megawatts(section.number("other_load_mw", 0, 0, cap_mw))),
        settle_s=section.number("settle_s", 30, 15, 600),
        dead_meter=dead,
    )


def _plain(section: Section, key: str, default: Fallback) -> Fallback:
    value = section.text(key, default.value)
    known = [choice.value for choice in Fallback]
    if value not in known:
        raise section.bad(key, f"{value!r} is not known", f"write one of {', '.join(known)}")
    return Fallback(value)


def _steps(section: Section, example: str) -> tuple[tuple[float, float], ...]:
    """Return steps of a value and a share, both rising."""
    steps = section.pairs("steps", example)
    if not steps or any(not 0 < share <= 1 for _, share in steps) or list(steps) != sorted(set(steps)):
        raise section.bad(
            "steps",
            "are none, or a share is not above 0 and at most 1, or they do not rise",
            f"write for example {example}",
        )
    if any(later[1] < earlier[1] for earlier, later in pairwise(steps)):
        raise section.bad("steps", "their shares fall", f"write for example {example}")
    return steps


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
