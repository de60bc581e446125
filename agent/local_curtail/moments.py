"""Times as the journal keeps them: whole microseconds since 1970, UTC. Pure."""

from datetime import UTC, datetime, timedelta
from typing import Final

_ZERO: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def microseconds(moment: datetime) -> int:
    """Return ``moment`` as microseconds since 1970."""
    return (moment - _ZERO) // _MICROSECOND


def moment_of(value: int) -> datetime:
    """Return the moment that ``microseconds`` made ``value`` of."""
    return _ZERO + value * _MICROSECOND
