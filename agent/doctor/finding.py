"""One finding of the doctor, and how findings are shown. Pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How bad a finding is. BAD makes the exit code 1."""

    OK = "ok"
    WARN = "warn"
    BAD = "BAD"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is, and what to do next; ``step`` is empty where nothing is to be done."""

    name: str
    level: Level
    what: str
    step: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**asdict(self), "level": self.level.value}


def ok(name: str, what: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(name, Level.OK, what)


def warn(name: str, what: str, step: str) -> Finding:
    """Return a finding that will become bad, or is inconvenient."""
    return Finding(name, Level.WARN, what, step)


def bad(name: str, what: str, step: str) -> Finding:
    """Return a finding that keeps something from working."""
    return Finding(name, Level.BAD, what, step)


def unknown(name: str, what: str) -> Finding:
    """Return that this cannot be told now."""
    return Finding(name, Level.UNKNOWN, what)


def lines(findings: Sequence[Finding]) -> list[str]:
    """Return ``findings`` for a terminal: each next step stands below its cause."""
    width = max((len(finding.name) for finding in findings), default=0)
    shown: list[str] = []
    for finding in findings:
        shown.append(f"{finding.level.value:<7}  {finding.name:<{width}}  {finding.what}")
        if finding.step:
            shown.append(f"{'':<7}  {'':<{width}}  -> {finding.step}")
    counts = {level: sum(finding.level is level for finding in findings) for level in Level}
    shown.append(f"{counts[Level.BAD]} bad, {counts[Level.WARN]} to look at, {counts[Level.UNKNOWN]} unknown")
    return shown
