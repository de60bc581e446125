"""The agent with a wall clock, and a boot, that a test moves while it runs: ``python -m tests.e2e.moved_clock FILE ...``.

FILE holds ``OFFSET_S BOOT``: seconds by which the wall clock is wrong, and the name of the boot, empty for the
machine's own. It is read at each question for the time. The rest are the agent's own arguments.
"""

import sys
from datetime import datetime, timedelta
from pathlib import Path

from sitelink import clock


class MovedClock(clock.SystemClock):
    """The machine's clocks, as far as the file does not say otherwise."""

    place = Path()

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=float(self._said()[0]))

    def boot_id(self) -> str:
        return self._said()[1] or super().boot_id()

    def _said(self) -> tuple[str, str]:
        offset, _, boot = self.place.read_text().strip().partition(" ")
        return offset, boot


def main() -> None:
    MovedClock.place = Path(sys.argv.pop(1))
    clock.SystemClock = MovedClock  # before anybody imports the name
    from agent.__main__ import main as agent

    agent()


if __name__ == "__main__":
    main()
