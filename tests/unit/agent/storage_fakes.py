"""An inline writer over a memory database that can crash before or after its COMMIT."""

import sqlite3
from collections.abc import Callable
from enum import Enum
from typing import TypeVar

from agent.storage import in_transaction

Result = TypeVar("Result")


class Crash(BaseException):
    """The process died here."""


class CrashPoint(Enum):
    NEVER = "never"
    BEFORE_COMMIT = "before commit"
    AFTER_COMMIT = "after commit"


class InlineWriter:
    """Runs work at once; ``crash_at`` kills the next piece of work at that point, or the one after ``spared``."""

    def __init__(self, connection: sqlite3.Connection | None = None) -> None:
        self.connection = connection or sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.crash_at = CrashPoint.NEVER
        self.spared = 0

    async def run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        return self.run_now(work)

    def run_now(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        point = CrashPoint.NEVER
        if self.spared > 0:
            self.spared -= 1
        else:
            point, self.crash_at = self.crash_at, CrashPoint.NEVER

        def doomed(connection: sqlite3.Connection) -> Result:
            result = work(connection)
            if point is CrashPoint.BEFORE_COMMIT:
                raise Crash
            return result

        result = in_transaction(self.connection, doomed)
        if point is CrashPoint.AFTER_COMMIT:
            raise Crash
        return result
