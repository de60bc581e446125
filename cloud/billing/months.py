"""Calendar months of a time zone. Pure."""

import re
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from cloud.core.errors import BadInput
from sitelink.types import Interval

_MONTH: Final = re.compile(r"(19[7-9][0-9]|2[01][0-9]{2})-(0[1-9]|1[0-2])")


def month(text: str, timezone: str) -> Interval:
    """Return the calendar month ``YYYY-MM`` of a time zone in UTC; clock changes make it an hour shorter or longer.

    Raises:
        BadInput: the text is no month.
    """
    found = _MONTH.fullmatch(text)
    if found is None:
        raise BadInput(f"month: {text!r} is not a month; write such as 2026-03")
    year, number = int(found[1]), int(found[2])
    zone = ZoneInfo(timezone)
    start = datetime(year, number, 1, tzinfo=zone)
    end = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=zone)
    return Interval(start.astimezone(UTC), end.astimezone(UTC))
