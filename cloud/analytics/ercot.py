"""Reads ERCOT price files: hourly (``delivery_date,hour_ending``) or by shorter intervals (``interval_start``).

Invariants: a broken row stops the import with file, line, column and what to do, and nothing is imported; an empty
price is unknown and leaves its interval out. Times without a zone are Central, and local hours map to UTC so that a 23-
or 25-hour day covers its timeline once (the second of two equal hours is the later one); a zone that is written counts.
An interval is as long as rows are apart, which is the same throughout a file but for rows that are missing.
"""

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from cloud.analytics.model import MOST_USD_PER_MWH, Publication
from cloud.core.errors import BadInput
from cloud.core.times import kept_moment
from sitelink.types import Interval
from sitelink.units import UsdPerMegawattHour

CENTRAL: Final = ZoneInfo("America/Chicago")
_HOUR: Final = timedelta(hours=1)
_QUARTER: Final = timedelta(minutes=15)
_LENGTHS: Final = tuple(timedelta(minutes=minutes) for minutes in (5, 15, 30, 60))


@dataclass(frozen=True, slots=True)
class _Row:
    """One row; ``moment`` is as written, with its zone or without one, and no price is an unknown one."""

    where: str
    moment: datetime
    price: UsdPerMegawattHour | None


def read_ercot(path: Path, market: str, column: str, published_at: datetime) -> Publication:
    """Return the prices in ``column`` (``rtm_lmp``, ``dam_lmp``, ``HB_SOUTH_RTM``, ...) of an ERCOT file.

    Raises:
        BadInput: the file cannot be read, has another header or no price, or holds a broken row; named by line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            hourly = _check_header(path, reader.fieldnames or (), column)
            rows = [_row(row, column, f"{path}: line {reader.line_num}", hourly=hourly) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: {error}; give a readable CSV file") from None
    length = _HOUR if hourly else _length(path, rows)
    prices = tuple((Interval(start, start + length), price) for start, price in _starts(rows) if price is not None)
    if not prices:
        raise BadInput(f"{path}: no row has a price in {column}; name another column, or give the whole file")
    return Publication(market, f"{path.name} {column}", published_at, prices)


def _check_header(path: Path, header: Sequence[str], column: str) -> bool:
    """Return whether the file is hourly."""
    if not any(name.strip() for name in header):
        raise BadInput(f"{path}: line 1: is empty; give an ERCOT price file, its header in the first line")
    hourly = {"delivery_date", "hour_ending"} <= set(header)
    if not hourly and "interval_start" not in header:
        raise BadInput(
            f"{path}: line 1: has no column interval_start, nor delivery_date and hour_ending;"
            f" it has {', '.join(header)}"
        )
    if column not in header:
        raise BadInput(f"{path}: line 1: no column {column}; it has {', '.join(header)}")
    for name in ("delivery_date", "hour_ending", "interval_start", column):
        if header.count(name) > 1:
            raise BadInput(f"{path}: line 1: column {name} stands twice; remove or rename one")
    return hourly


def _row(row: Mapping[str | None, str], column: str, where: str, *, hourly: bool) -> _Row:
    if None in row:
        raise BadInput(f"{where}: the row has more fields than the header; put numbers with commas in quotes")
    return _Row(where, _hour(row, where) if hourly else _interval_start(row, where), _price(row, column, where))


def _length(path: Path, rows: Sequence[_Row]) -> timedelta:
    """Return how long an interval is; a quarter hour where a single row does not tell."""
    for before, after in pairwise(rows):
        if (before.moment.tzinfo is None) is not (after.moment.tzinfo is None):
            raise BadInput(f"{after.where}: interval_start: some rows have a zone and some have none; write all alike")
    apart = Counter(after.moment - before.moment for before, after in pairwise(rows) if after.moment > before.moment)
    if not apart:
        return _QUARTER
    length, _ = apart.most_common(1)[0]
    if length not in _LENGTHS or any(gap % length for gap in apart):
        told = ", ".join(f"{gap / timedelta(minutes=1):g}" for gap in sorted(apart)[:4])
        raise BadInput(f"{path}: rows are {told} minutes apart; give a file of one interval of 5, 15, 30 or 60 minutes")
    return length


def _starts(rows: Sequence[_Row]) -> Iterator[tuple[datetime, UsdPerMegawattHour | None]]:
    """Yield when each row with a price begins, in UTC: an unknown price may stand at an hour that spring skips."""
    before: datetime | None = None
    for row in rows:
        if row.price is None:
            continue
        start = _utc(row, fold=0)
        if before is not None and start <= before:  # the hour that comes twice in autumn: its second pass
            start = _utc(row, fold=1)
        if before is not None and start <= before:
            raise BadInput(
                f"{row.where}: {row.moment} stands before or again after the row above; sort the file by time"
            )
        before = start
        yield start, row.price


def _utc(row: _Row, fold: int) -> datetime:
    known = row.moment.tzinfo is not None
    moment = row.moment if known else row.moment.replace(tzinfo=CENTRAL, fold=fold)
    return kept_moment(moment, f"{row.where}: time").astimezone(UTC)


def _hour(row: Mapping[str | None, str], where: str) -> datetime:
    date, hour = row.get("delivery_date") or "", row.get("hour_ending") or ""
    try:
        day = datetime.strptime(date, "%Y-%m-%d")  # noqa: DTZ007 - local, its zone is given by the caller
    except ValueError:
        raise BadInput(f"{where}: delivery_date: {date!r} is not a date; write YYYY-MM-DD") from None
    if not re.fullmatch(r"[0-9]{1,2}", hour) or not 1 <= int(hour) <= 24:
        raise BadInput(f"{where}: hour_ending: {hour!r} is not an hour; write 1 to 24")
    return day + timedelta(hours=int(hour) - 1)


def _interval_start(row: Mapping[str | None, str], where: str) -> datetime:
    text = row.get("interval_start") or ""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{where}: interval_start: {text!r} is not a time; write YYYY-MM-DD HH:MM:SS") from None


def _price(row: Mapping[str | None, str], column: str, where: str) -> UsdPerMegawattHour | None:
    text = row.get(column)
    if text is None:
        raise BadInput(f"{where}: the row ends before {column}; complete it, or remove it")
    if text == "":  # unknown, such as the hour that spring skips: an absent price, not a broken row
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadInput(f"{where}: {column}: {text!r} is not a number; write USD/MWh, or remove the row")
    if abs(value) > MOST_USD_PER_MWH:
        raise BadInput(
            f"{where}: {column}: {text!r} is out of range; write USD/MWh from -{MOST_USD_PER_MWH} to {MOST_USD_PER_MWH}"
        )
    return UsdPerMegawattHour(value)
