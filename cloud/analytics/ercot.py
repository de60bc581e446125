"""Reads ERCOT price files: hourly (``delivery_date,hour_ending``) or by quarter (``interval_start``), Central time.

Invariants: a broken row stops the import with file, line, column and what to do, and nothing is imported; an empty
price is unknown and leaves its interval out; local hours map to UTC so that a 23- or 25-hour day covers its timeline
once (the second of two equal hours is the later one).
"""

import csv
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from cloud.analytics.model import Publication
from cloud.core.errors import BadInput
from sitelink.types import Interval
from sitelink.units import UsdPerMegawattHour

CENTRAL: Final = ZoneInfo("America/Chicago")
_HOUR: Final = timedelta(hours=1)
_QUARTER: Final = timedelta(minutes=15)


def read_ercot(path: Path, market: str, column: str, published_at: datetime) -> Publication:
    """Return the prices in ``column`` (``rtm_lmp``, ``dam_lmp``, ``HB_SOUTH_RTM``, ...) of an ERCOT file.

    Raises:
        BadInput: the file cannot be read, has another header, or holds a broken row; named by line.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or ()
            hourly = {"delivery_date", "hour_ending"} <= set(header)
            if not hourly and "interval_start" not in header:
                raise BadInput(
                    f"{path}: line 1: has no column interval_start, nor delivery_date and hour_ending;"
                    f" it has {', '.join(header)}"
                )
            if column not in header:
                raise BadInput(f"{path}: line 1: no column {column}; it has {', '.join(header)}")
            prices = tuple(_rows(path, reader, column, hourly=hourly))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: {error}; give a readable CSV file") from None
    return Publication(market, f"{path.name} {column}", published_at, prices)


def _rows(
    path: Path, reader: "csv.DictReader[str]", column: str, *, hourly: bool
) -> Iterator[tuple[Interval, UsdPerMegawattHour]]:
    before: datetime | None = None
    for row in reader:
        where = f"{path}: line {reader.line_num}"
        if row.get(column) == "":  # unknown, such as the hour that spring skips: an absent price, not a broken row
            continue
        local = _hour(row, where) if hourly else _quarter(row, where)
        start = local.replace(tzinfo=CENTRAL).astimezone(UTC)
        if before is not None and start <= before:  # the hour that comes twice in autumn: its second pass
            start = local.replace(tzinfo=CENTRAL, fold=1).astimezone(UTC)
        if before is not None and start <= before:
            raise BadInput(f"{where}: {local} stands before or again after the row above; sort the file by time")
        before = start
        yield Interval(start, start + (_HOUR if hourly else _QUARTER)), _price(row, column, where)


def _hour(row: Mapping[str, str], where: str) -> datetime:
    date, hour = row.get("delivery_date") or "", row.get("hour_ending") or ""
    try:
        day = datetime.strptime(date, "%Y-%m-%d")  # noqa: DTZ007 - local, its zone is given by the caller
    except ValueError:
        raise BadInput(f"{where}: delivery_date: {date!r} is not a date; write YYYY-MM-DD") from None
    if not hour.isdigit() or not 1 <= int(hour) <= 24:
        raise BadInput(f"{where}: hour_ending: {hour!r} is not an hour; write 1 to 24")
    return day + timedelta(hours=int(hour) - 1)


def _quarter(row: Mapping[str, str], where: str) -> datetime:
    text = row.get("interval_start") or ""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{where}: interval_start: {text!r} is not a time; write YYYY-MM-DD HH:MM:SS") from None
    return moment.replace(tzinfo=None)


def _price(row: Mapping[str, str], column: str, where: str) -> UsdPerMegawattHour:
    text = row.get(column)
    if text is None:
        raise BadInput(f"{where}: the row ends before {column}; complete it, or remove it")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadInput(f"{where}: {column}: {text!r} is not a number; write USD/MWh, or remove the row")
    return UsdPerMegawattHour(value)
