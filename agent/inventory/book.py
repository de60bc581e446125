"""The operator's own changes to inventory.csv: checked whole, remembered, then made in one step.

    change --> checked --> history line --> inventory.csv.bak --> inventory.csv replaced

Invariants: a change happens whole or not at all; what it replaced stands in the backup; the history tells of it before
it happens. A running agent reads the inventory at its start.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import BadInput, SessionBusy
from agent.files import alone_with, replace_file
from agent.inventory import load_inventory
from agent.inventory.changes import Change, What, collisions
from agent.inventory.history import Event, History
from sitelink.clock import Clock
from sitelink.inventory import MinerEntry, read_miners, row_of, write_miners
from sitelink.rows import BadList

_READABLE: Final = 0o644
_LEAVES: Final = (What.REMOVED, What.RENAMED, What.SWAPPED, What.RMA_OUT)


@dataclass(frozen=True, slots=True)
class Author:
    """Who makes a change, and why."""

    name: str
    reason: str = ""


class InventoryBook:
    """One site's inventory and its history."""

    def __init__(self, path: Path, state_dir: Path, clock: Clock) -> None:
        self.path = path
        self.history = History(state_dir)
        self._clock = clock

    def entries(self) -> tuple[MinerEntry, ...]:
        """Return the inventory; empty when there is none yet. Raises BadInput when it is broken."""
        return load_inventory(self.path) if self.path.exists() else ()

    def make(
        self, change: Callable[[tuple[MinerEntry, ...]], tuple[Sequence[Change], Sequence[MinerEntry]]], author: Author
    ) -> tuple[Change, ...]:
        """Replace the inventory by what ``change`` makes of it, remember that, and return the changes.

        ``change`` is given the present rows while nobody else can write them.

        Raises:
            BadInput: the rows would be no inventory, or the disk takes nothing; nothing was changed.
            SessionBusy: another command changes it at this moment.
        """
        try:
            with alone_with(self.path):
                changes, result = change(self.entries())
                complaints = collisions(result, [each.entry.miner_id.lower() for each in changes])
                if complaints:
                    raise BadInput(complaints[0])
                if changes:
                    self._write(changes, result, author)
        except BlockingIOError:
            raise SessionBusy(f"{self.path}: another command changes it at this moment; try again") from None
        except OSError as error:
            raise BadInput(
                f"{self.path}: cannot be written: {error.strerror}; what was in it stays; check who may write there"
            ) from None
        return tuple(changes)

    def note(self, what: What, miner_id: str, author: Author, detail: str = "") -> None:
        """Remember what happened to a miner that the inventory does not have. Raises BadInput."""
        self.history.add([Event(self._now(), author.name, what, miner_id, reason=author.reason, detail=detail)])

    def _write(self, changes: Sequence[Change], result: Sequence[MinerEntry], author: Author) -> None:
        content = write_miners(result)
        try:
            read_miners(self.path.name, content)
        except BadList as error:
            raise BadInput(str(error)) from None
        self.history.add(self._event(each, author) for each in changes)
        try:
            mode = _READABLE
            if self.path.exists():
                mode = self.path.stat().st_mode & 0o777
                replace_file(backup_of(self.path), self.path.read_bytes(), mode)
            replace_file(self.path, content, mode)
        except OSError as error:
            detail = f"{self.path.name} could not be written: {error.strerror}"
            self.history.add(
                Event(self._now(), author.name, What.UNDONE, each.entry.miner_id, detail=detail) for each in changes
            )
            raise

    def _event(self, change: Change, author: Author) -> Event:
        entry, was = change.entry, change.was
        other = was.miner_id if was is not None and was.miner_id != entry.miner_id else ""
        return Event(
            at=self._now(),
            by=author.name,
            what=change.what,
            miner_id=entry.miner_id,
            other=other,
            rack=entry.rack,
            position=entry.position,
            feeder_id=entry.feeder_id,
            reason=author.reason,
            detail=change.detail,
            row=row_of(was) if was is not None and change.what in _LEAVES else {},
        )

    def _now(self) -> str:
        return self._clock.now().isoformat(timespec="seconds")


def backup_of(path: Path) -> Path:
    """Return where the inventory before the last change stands."""
    return path.with_name(path.name + ".bak")
