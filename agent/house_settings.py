"""The house rules of a site as its operator writes them: ``[limits]`` and ``[fallback]`` of ``agent.toml``.

Invariant: a limit that is not written limits nothing, but for ``max_off_s``; one that contradicts itself is refused.
"""

from dataclasses import dataclass
from typing import Final

from agent.settings_section import Section
from sitelink.miner_ids import canonical
from sitelink.types import Fallback, Verb
from sitelink.units import Megawatts, Watts, watts

_MOST_W: Final = 1e9
_MOST_MW: Final = 10_000.0


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """What no order may exceed at this site, whoever signed it.

    ``max_step_w`` bounds the load switched in ten seconds, ``max_per_min_w`` that of a minute; 0 means no limit.
    """

    max_off_s: float
    max_step_w: Watts
    never_touch: tuple[str, ...]
    max_per_min_w: Watts
    allowed_verbs: frozenset[Verb]


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
