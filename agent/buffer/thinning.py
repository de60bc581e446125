"""Makes room in a full buffer: the oldest telemetry becomes thinner, and only at the very end is given up.

Invariants:

* The newest batches are left as they are, and what is new is always taken in; control data are never touched.
* Telemetry is thinned in passes, each from the oldest to the newest: to one item a minute, then in 5, then in 15. Only
  when everything is at the last is the oldest given up. What is left out stands in the batch as a gap.
* One step is one transaction over a few batches, so that orders never wait long; cut off anywhere, the next goes on.
* A pass and its passing are told by BUFFER_GAP notices, one each.

      fill  > 95 % --> steps until < 90 %                     < 80 %: over; the next begins with 1 min
"""

import sqlite3
from typing import Final

from agent.buffer import levels
from agent.buffer.rows import COLUMNS, JOINED, Row, Rows
from sitelink.clock import Clock
from sitelink.codec import MalformedFrame
from sitelink.codec.moments import microseconds, moment_of
from sitelink.types import NoticeCode

ROW_BYTES: Final = 256
"""What a batch takes in the file beside its payload: keys, digest, signature, indexes."""
_START_SHARE: Final = 0.95
_STOP_SHARE: Final = 0.90
_OVER_SHARE: Final = 0.80
_BATCHES_A_STEP: Final = 4
_LEFT_WHOLE: Final = 8
_WAITING: Final = "b.settled_at_us IS NULL AND b.kind = 'telemetry'"
_AT_LEVEL: Final = (
    f"SELECT {COLUMNS} FROM {JOINED} WHERE {_WAITING} AND b.level = ?"  # noqa: S608 - our own names
    " AND (b.epoch_number, b.first_seq) <= (?, ?) ORDER BY b.epoch_number, b.first_seq LIMIT ?"
)
_YOUNGEST_TO_CUT: Final = (
    f"SELECT b.epoch_number, b.first_seq FROM buffer_batches b WHERE {_WAITING}"  # noqa: S608 - our own names
    " ORDER BY b.epoch_number DESC, b.first_seq DESC LIMIT 1 OFFSET ?"
)


class Thinner:
    """Thins what waits until there is room. All its work is in the caller's transactions."""

    def __init__(self, rows: Rows, clock: Clock, max_bytes: int) -> None:
        self._rows = rows
        self._clock = clock
        self._max_bytes = max_bytes
        self._cutter = levels.Cutter(levels.KEPT_EVERY_S[1])
        self._cutter_level = 1

    def is_due(self, connection: sqlite3.Connection) -> bool:
        """Return whether the buffer is so full that steps are due; tells when it is long not any more."""
        size = _size(connection)
        if size < self._max_bytes * _OVER_SHARE:
            self._tell_over(connection)
        return size > self._max_bytes * _START_SHARE

    def step(self, connection: sqlite3.Connection) -> bool:
        """Thin a few batches; return whether another step is due."""
        if _size(connection) <= self._max_bytes * _STOP_SHARE:
            return False
        found = self._cut_some(connection, levels.NOTHING_LEFT)
        self._tell_level(connection, found)
        return found > 0

    def squeeze(self, connection: sqlite3.Connection) -> bool:
        """Thin a few batches however full the buffer is, giving none up; return whether anything was left to thin."""
        return self._cut_some(connection, levels.COARSEST) > 0

    def forget(self) -> None:
        """A step was undone: what was remembered of it does not count."""
        self._cutter = levels.Cutter(levels.KEPT_EVERY_S[self._cutter_level])

    def _cut_some(self, connection: sqlite3.Connection, last_level: int) -> int:
        """Cut a few rows in the pass that is under way, or the next one; return its level, 0 when nothing is left."""
        youngest = connection.execute(_YOUNGEST_TO_CUT, (_LEFT_WHOLE,)).fetchone()
        if youngest is None:
            return 0
        level = min(self._level(connection), last_level)
        while not (victims := self._victims(connection, level, youngest)):
            level += 1
            if level > last_level:
                return 0
        for row in victims:
            self._cut_one(connection, row, min(level, levels.COARSEST) if row.level < levels.COARSEST else level)
        return level

    def _victims(self, connection: sqlite3.Connection, level: int, youngest: tuple[int, int]) -> list[Row]:
        """Return a few of the oldest rows that the pass of ``level`` has yet to cut."""
        found = [self._at(connection, below, youngest) for below in range(min(level, levels.COARSEST))]
        if level == levels.NOTHING_LEFT and not any(found):
            return self._at(connection, levels.COARSEST, youngest)
        return min(filter(None, found), key=lambda rows: (rows[0].epoch_number, rows[0].batch.first_seq), default=[])

    def _at(self, connection: sqlite3.Connection, level: int, youngest: tuple[int, int]) -> list[Row]:
        found = connection.execute(_AT_LEVEL, (level, *youngest, _BATCHES_A_STEP))
        return [self._rows.read(values) for values in found]

    def _cut_one(self, connection: sqlite3.Connection, row: Row, level: int) -> None:
        try:
            if row.is_broken:
                raise MalformedFrame("the digest does not fit")
            if level == levels.NOTHING_LEFT:
                payload, gone = levels.given_up(row.batch.payload)
                left, counter = 0, "given_up_items"
            else:
                payload, gone, left = self._cutter_at(level).cut(row.batch.payload)
                counter = "thinned_items"
        except (MalformedFrame, OverflowError) as error:
            self._rows.set_aside(connection, row, str(error))
            return
        self._rows.recut(connection, row, payload, level if left else levels.NOTHING_LEFT)
        connection.execute(f"UPDATE buffer_totals SET {counter} = {counter} + ?", (gone,))  # noqa: S608 - our own name
        connection.execute("UPDATE buffer_gap SET items = items + ?", (gone,))

    def _cutter_at(self, level: int) -> levels.Cutter:
        if level != self._cutter_level:
            self._cutter, self._cutter_level = levels.Cutter(levels.KEPT_EVERY_S[level]), level
        return self._cutter

    def _level(self, connection: sqlite3.Connection) -> int:
        row = connection.execute("SELECT level FROM buffer_gap").fetchone()
        return 0 if row is None else int(row[0])

    def _tell_level(self, connection: sqlite3.Connection, level: int) -> None:
        """Keep which pass is under way, and tell of it when it is a new one."""
        if level in (0, self._level(connection)):
            return
        now_us = microseconds(self._clock.now())
        connection.execute("INSERT OR IGNORE INTO buffer_gap (id, since_us, items) VALUES (1, ?, 0)", (now_us,))
        connection.execute("UPDATE buffer_gap SET level = ?", (level,))
        done = (
            "the oldest of it is given up"
            if level == levels.NOTHING_LEFT
            else f"the oldest of it is thinned to one item in {levels.KEPT_EVERY_S[level]} s"
        )
        detail = f"the buffer is full, {_size(connection)} of {self._max_bytes} bytes of telemetry wait; {done}"
        self._rows.notify(connection, NoticeCode.BUFFER_GAP, detail)

    def _tell_over(self, connection: sqlite3.Connection) -> None:
        row = connection.execute("SELECT since_us, items FROM buffer_gap").fetchone()
        if row is None:
            return
        connection.execute("DELETE FROM buffer_gap")
        since = moment_of(row[0]).isoformat(timespec="seconds")
        detail = f"{row[1]} items were left out since {since}; telemetry is kept whole again"
        self._rows.notify(connection, NoticeCode.BUFFER_GAP, detail)


def _size(connection: sqlite3.Connection) -> int:
    batches, size = connection.execute("SELECT waiting_batches, waiting_bytes FROM buffer_totals").fetchone()
    return int(size) + ROW_BYTES * int(batches)
