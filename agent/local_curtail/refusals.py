"""Which refusals are told: all are counted, a flood of them is told in one line an hour.

    refused --> counted under its code (inbox.py)
            --> the first few of a code in an hour, each: a notice       the same bytes again: nothing
            --> the others: one notice for all of them when the hour is over

Invariant: whoever can send, and cannot sign, fills neither the buffer nor the cloud with what he sends.
"""

import hashlib
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sitelink.types import Envelope

_REMEMBERED: Final = 256
_WINDOW: Final = timedelta(hours=1)
_SINGLY: Final = 10


@dataclass(slots=True)
class _Hour:
    begun: datetime
    told: int = 0
    untold: int = 0


class Telling:
    """What has been told of refusals in this hour."""

    def __init__(self) -> None:
        self._answered: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._hours: dict[str, _Hour] = {}

    def is_news(self, envelope: Envelope, code: str, now: datetime) -> bool:
        """Return whether this refusal is told by itself; one that is not is counted for the hour's line."""
        digest = hashlib.sha256(envelope.signature + envelope.payload).digest()
        if digest in self._answered:
            return False
        self._answered.append(digest)
        hour = self._hours.get(code)
        if hour is None or (not hour.untold and abs(now - hour.begun) >= _WINDOW):
            hour = self._hours[code] = _Hour(now)
        if hour.told < _SINGLY:
            hour.told += 1
            return True
        hour.untold += 1
        return False

    def owed(self, now: datetime) -> dict[str, tuple[int, datetime]]:
        """Return the refusals not told by themselves in an hour that is over: how many since when, by code."""
        return {
            code: (hour.untold, hour.begun)
            for code, hour in self._hours.items()
            if hour.untold and abs(now - hour.begun) >= _WINDOW
        }

    def settle(self, code: str) -> None:
        """Note that what was owed of ``code`` has been told."""
        del self._hours[code]
