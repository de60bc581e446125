"""A history as plain data: what happens, when. It is saved as JSON, and outlives the generator that drew it.

    Event("cut", 41.0, {"until_s": 90.0, "way": "up"})      see ``generate`` for every kind and its arguments

Invariant: a schedule and its seed decide a history wholly; the seed only gives latencies and the order of timers.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

QUIET = {"lose": 0.0, "double": 0.0, "late": 0.0, "late_s": 0.0, "slow": 0.0}
"""A network that does what is asked of it."""
TIERS = ("memory", "disk")


@dataclass(frozen=True)
class Event:
    kind: str
    at_s: float
    what: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.kind} at {self.at_s:.1f} " + " ".join(f"{name}={value}" for name, value in self.what.items())


@dataclass(frozen=True)
class Schedule:
    seed: int
    miners: int
    events: tuple[Event, ...]
    heal_s: float
    end_s: float
    network: dict[str, float] = field(default_factory=lambda: dict(QUIET))
    tier: str = "memory"
    real_keys: bool = False
    """Time is signed with Ed25519 as well, and frames cross the codec."""
    buffer_bytes: int = 1024**2

    def of(self, kind: str) -> tuple[Event, ...]:
        return tuple(event for event in self.events if event.kind == kind)

    def with_events(self, events: tuple[Event, ...]) -> "Schedule":
        return replace(self, events=events)

    def words(self) -> str:
        return " | ".join(str(event) for event in sorted(self.events, key=lambda event: event.at_s))


def to_json(schedule: Schedule) -> str:
    return json.dumps(asdict(schedule), indent=1, sort_keys=True) + "\n"


def from_json(text: str) -> Schedule:
    fields = json.loads(text)
    events = tuple(Event(**event) for event in fields.pop("events"))
    return Schedule(events=events, **{name: value for name, value in fields.items() if name != "note"})


def load(path: Path) -> Schedule:
    return from_json(path.read_text())
