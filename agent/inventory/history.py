"""What became of each miner and each place: one JSON object a line, only ever added to.

    {"at": .., "by": .., "what": .., "miner_id": .., "other": .., "rack": .., "position": .., "feeder_id": ..,
     "reason": .., "detail": .., "row": {the inventory's row, where a miner left it}}

Invariants: a line is written before the change it tells of, so that a row taken out is never lost; one that did not
come about after all is followed by a line that says so. A line cut off by a crash is passed over.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from agent.errors import BadInput
from agent.files import append_line
from agent.inventory.changes import What


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to ``miner_id``; ``other`` is the miner that stood there before it."""

    at: str
    by: str
    what: What
    miner_id: str
    other: str = ""
    rack: str = ""
    position: int = 0
    feeder_id: str = ""
    reason: str = ""
    detail: str = ""
    row: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, line: bytes) -> Self | None:
        """Return the event of one line, None when the line holds none."""
        try:
            document = json.loads(line)
            return cls(**{**document, "what": What(document["what"])})
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def line(self) -> bytes:
        """Return the event as its line, without the line's end."""
        return json.dumps({name: value for name, value in asdict(self).items() if value not in ("", {})}).encode()

    def concerns(self, name: str) -> bool:
        """Return whether it is about the miner or the rack of this name, in whatever case."""
        return name.lower() in {self.miner_id.lower(), self.other.lower(), self.rack.lower()}


class History:
    """The history of one site."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "history.jsonl"

    def add(self, events: Iterable[Event]) -> None:
        """Add events durably.

        Raises:
            BadInput: the file cannot be written; the message says why and what to do.
        """
        lines = [event.line() for event in events]
        if not lines:
            return
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            append_line(self.path, b"\n".join(lines))
        except OSError as error:
            raise BadInput(
                f"{self.path}: cannot be written: {error.strerror}; nothing was changed; check free space and who may "
                "write there"
            ) from None

    def events(self, name: str = "") -> tuple[Event, ...]:
        """Return what happened to the miner or rack called ``name``, or to all, the oldest first.

        Raises:
            BadInput: the file cannot be read.
        """
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise BadInput(f"{self.path}: cannot be read: {error.strerror}; run as the user of the service") from None
        found = [event for event in map(Event.of, lines) if event is not None]
        return tuple(event for event in found if not name or event.concerns(name))

    def last_row(self, miner_id: str) -> dict[str, Any]:
        """Return the inventory row that the miner had when it last left it; empty when it never did.

        Raises:
            BadInput: the file cannot be read.
        """
        rows: dict[str, Any] = {}
        for event in self.events(miner_id):
            if event.row.get("miner_id", "").lower() == miner_id.lower():
                rows = dict(event.row)
        return rows


def as_table(events: Iterable[Event]) -> str:
    """Return the events as lines for a terminal, the oldest first."""
    rows = [("when", "by", "miner", "what", "place", "reason")]
    for event in events:
        place = f"{event.rack} {event.position}" if event.rack else ""
        what = event.what.value + (f" for {event.other}" if event.other else "")
        rows.append(
            (event.at, event.by, event.miner_id, what, place, "; ".join(filter(None, (event.reason, event.detail))))
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, (*widths, 0), strict=True)).rstrip() for row in rows
    )
