"""Makes room in a full buffer: the oldest telemetry becomes thinner, and only at the very end is given up.

Invariants:

* The newest batches are left as they are, and what is new is always taken in; control data are never touched.
* Telemetry is thinned in passes, each from the oldest to the newest: to one item a minute, then in 5, then in 15. Only
  when everything is at the last is the oldest given up. What is left out stands in the batch as a gap.
* Small batches that never left the gateway and follow each other become one, else what a batch takes beside its items
  would fill the buffer in their place.
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
_BATCHES_A_STEP: Final = 16
_BYTES_A_STEP: Final = 32 * 1024
_LONGEST_RUN: Final = 10_000
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
        done = [(row, self._cut_one(connection, row, _target(row, level))) for row in victims]
        for run in _runs([(row, payload) for row, payload in done if payload is not None]):
            self._keep(connection, run, min(_target(row, level) for row, _ in run))
        return level

    def _victims(self, connection: sqlite3.Connection, level: int, youngest: tuple[int, int]) -> list[Row]:
        """Return a few of the oldest rows that the pass of ``level`` has yet to cut."""
        found = [self._at(connection, below, youngest) for below in range(min(level, levels.COARSEST))]
        if level == levels.NOTHING_LEFT and not any(found):
            return self._at(connection, levels.COARSEST, youngest)
        return min(filter(None, found), key=lambda rows: (rows[0].epoch_number, rows[0].batch.first_seq), default=[])

    def _at(self, connection: sqlite3.Connection, level: int, youngest: tuple[int, int]) -> list[Row]:
        rows: list[Row] = []
        size = 0
        for values in connection.execute(_AT_LEVEL, (level, *youngest, _BATCHES_A_STEP)):
            rows.append(self._rows.read(values))
            size += len(rows[-1].batch.payload)
            if size >= _BYTES_A_STEP:
                break
        return rows

    def _cut_one(self, connection: sqlite3.Connection, row: Row, level: int) -> bytes | None:
        """Return what is left of a row at ``level``; None when it is broken, and was set aside."""
        try:
            if row.is_broken:
                raise MalformedFrame("the digest does not fit")
            if level == levels.NOTHING_LEFT:
                payload, gone = levels.given_up(row.batch.payload)
                counter = "given_up_items"
            else:
                payload, gone = self._cutter_at(level).cut(row.batch.payload)
                counter = "thinned_items"
        except (MalformedFrame, OverflowError) as error:
            self._rows.set_aside(connection, row, str(error))
            return None
        connection.execute(f"UPDATE buffer_totals SET {counter} = {counter} + ?", (gone,))  # noqa: S608 - our own name
        connection.execute("UPDATE buffer_gap SET items = items + ?", (gone,))
        return payload

    def _keep(self, connection: sqlite3.Connection, run: list[tuple[Row, bytes]], level: int) -> None:
        rows, payloads = [row for row, _ in run], [payload for _, payload in run]
        payload = payloads[0] if len(run) == 1 else levels.joined(payloads)
        level = level if levels.has_items(payload) else levels.NOTHING_LEFT
        self._rows.join(connection, rows, payload, level)

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


def _target(row: Row, level: int) -> int:
    """Return what the pass of ``level`` makes of a row: it is given up only from the coarsest level."""
    return min(level, levels.COARSEST) if row.level < levels.COARSEST else level


def _runs(cut: list[tuple[Row, bytes]]) -> list[list[tuple[Row, bytes]]]:
    """Return the rows in runs that may become one: they follow each other, and none ever left the gateway."""
    runs: list[list[tuple[Row, bytes]]] = []
    for row, payload in cut:
        before = runs[-1][-1][0] if runs else None
        if (
            before is not None
            and not (before.sent or row.sent)
            and before.epoch_number == row.epoch_number
            and before.batch.last_seq + 1 == row.batch.first_seq
            and row.batch.last_seq - runs[-1][0][0].batch.first_seq < _LONGEST_RUN
        ):
            runs[-1].append((row, payload))
        else:
            runs.append([(row, payload)])
    return runs


def _size(connection: sqlite3.Connection) -> int:
    batches, size = connection.execute("SELECT waiting_batches, waiting_bytes FROM buffer_totals").fetchone()
    return int(size) + ROW_BYTES * int(batches)
