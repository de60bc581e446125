"""Which moments may be kept. Pure.

Invariant: a moment that a person writes lies in a range that every database, calendar and time zone can calculate with,
so that one that is out of it is refused where it is written, not wherever it is read.
"""

from datetime import UTC, datetime
from typing import Final

from cloud.core.errors import BadInput

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)


def kept_moment(moment: datetime, name: str) -> datetime:
    """Return ``moment`` in UTC.

    Raises:
        BadInput: it lies before 1970 or after 2199.
    """
    if not EARLIEST <= moment < LATEST:
        raise BadInput(f"{name}: {moment.isoformat()} is out of range; write a time from 1970 to 2199")
    return moment.astimezone(UTC)
