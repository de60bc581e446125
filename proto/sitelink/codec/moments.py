"""What both halves of the codec need: the error, and times as the wire has them."""

from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class MalformedFrame(Exception):
    """The bytes are not a frame or body of this version; the message says what is wrong."""


def microseconds(moment: datetime) -> int:
    """Return ``moment`` in microseconds since 1970."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def moment_of(microseconds: int) -> datetime:
    """Return the moment that ``microseconds`` made this of. Raises OverflowError."""
    return EPOCH + timedelta(microseconds=microseconds)
