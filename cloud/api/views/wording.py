"""The words of a screen: sentences with moments in them, levels with their words, verdicts, tiles, alerts. Pure.

Invariant: a moment inside a sentence stays a moment until the page shows it, so that the viewer's zone and the
chart's axes are one.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from cloud.api.views.formats import Figure

Sentence = tuple[str | datetime, ...]
"""Parts in reading order; a moment is shown as ``14:40 CST`` in the zone the viewer chose, and off the full
minute as ``14:40:12 CST``."""


class Level(StrEnum):
    """How far from normal; each has a colour, a shape and a word."""

    NORMAL = "normal"
    LOW = "low"
    HIGH = "high"
    CRITICAL = "critical"
    UNKNOWN = "unknown"

    @property
    def word(self) -> str:
        """Return what the level is called beside its shape."""
        return _WORDS[self]

    @property
    def rank(self) -> int:
        """Return 0 for the most urgent."""
        return _ORDER.index(self)


_WORDS: Final = {
    Level.NORMAL: "Normal",
    Level.LOW: "Notice",
    Level.HIGH: "Warning",
    Level.CRITICAL: "Critical",
    Level.UNKNOWN: "Not known",
}
_ORDER: Final = (Level.CRITICAL, Level.HIGH, Level.UNKNOWN, Level.LOW, Level.NORMAL)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is happening, against which target, until when."""

    level: Level
    headline: Sentence
    detail: Sentence = ()


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure with what it is measured against. ``source`` says where the figure comes from."""

    label: str
    figure: Figure
    against: Sentence
    level: Level = Level.NORMAL
    source: str = ""


@dataclass(frozen=True, slots=True)
class Alert:
    """A condition that somebody can act on: what, so what, what to do."""

    level: Level
    title: Sentence
    consequence: Sentence
    action: str
    since: datetime | None = None
    subjects: tuple[str, ...] = ()


def precise(moment: datetime) -> bool:
    """Return whether a sentence shows the seconds of ``moment``: where they are not those of a whole minute."""
    return bool(moment.second or moment.microsecond)


def text_of(sentence: Sentence) -> str:
    """Return ``sentence`` as text with its moments in UTC, for JSON and logs."""
    return "".join(part if isinstance(part, str) else _moment(part) for part in sentence)


def _moment(moment: datetime) -> str:
    return f"{moment:%H:%M:%S} UTC" if precise(moment) else f"{moment:%H:%M} UTC"


def worst(alerts: tuple[Alert, ...]) -> Level:
    """Return the most urgent level among ``alerts``."""
    return min((alert.level for alert in alerts), key=lambda level: level.rank, default=Level.NORMAL)
