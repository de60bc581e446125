"""Price curves: a synthetic day with one spike, or the hours of an ERCOT file. Pure but for reading the file.

Invariants: a curve answers every whole step, before and after its start; a file is taken whole or refused with the
line that breaks it.
"""

import csv
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol

from simulator import noise
from simulator.errors import BadInput
from sitelink.units import UsdPerMegawattHour

MIN_SPIKE_USD_PER_MWH = 500.0
MAX_SPIKE_USD_PER_MWH = 100_000.0
_MOST_USD = 100_000
_DEAR_USD_PER_MWH = 200.0
_STEPS_A_DAY = 96
_NEEDED = ("delivery_date", "hour_ending", "rtm_lmp")
_SPIKE_SHAPE = (0.72, 1.0, 0.86, 0.66)


class Curve(Protocol):
    """A price for each step; step 0 is the market's first interval."""

    @property
    def source(self) -> str:
        """Return what the prices are and how time is compressed."""
        ...

    def price(self, step: int) -> UsdPerMegawattHour:
        """Return the price of ``step``."""
        ...

    def day_ahead(self, step: int) -> UsdPerMegawattHour | None:
        """Return the day-ahead price of ``step``, when there is one."""
        ...


@dataclass(frozen=True, slots=True)
class SyntheticDay:
    """30 to 60 USD/MWh in a day's rhythm of 96 steps, and one spike of 500 or more.

    ``spike_steps`` 0 leaves the spike out.
    """

    seed: int
    interval_s: int
    spike_after: int
    spike_steps: int
    spike_usd_per_mwh: float

    @property
    def source(self) -> str:
        """Return what the prices are."""
        market_minutes = 24 * 60 // _STEPS_A_DAY
        return f"synthetic day, seed {self.seed}; each {market_minutes} min of market time last {self.interval_s} s"

    def price(self, step: int) -> UsdPerMegawattHour:
        """Return the price of ``step``."""
        if 0 <= step - self.spike_after < self.spike_steps:
            place = (step - self.spike_after) * len(_SPIKE_SHAPE) // self.spike_steps
            return UsdPerMegawattHour(
                round(max(self.spike_usd_per_mwh * _SPIKE_SHAPE[place], MIN_SPIKE_USD_PER_MWH), 2)
            )
        return self._calm(step)

    def day_ahead(self, step: int) -> UsdPerMegawattHour | None:
        """Return the calm price: day-ahead saw no spike."""
        return self._calm(step)

    def _calm(self, step: int) -> UsdPerMegawattHour:
        rhythm = math.sin((step / _STEPS_A_DAY - 0.15) * 2 * math.pi)
        wobble = noise.at(noise.key("price", self.seed), step)
        return UsdPerMegawattHour(round(45.0 + 11.0 * rhythm + 3.5 * wobble, 2))


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour of a file, with the line it stands on. A blank price is None."""

    day: date
    ending: int
    rtm_usd_per_mwh: float | None
    dam_usd_per_mwh: float | None


class RecordedHours:
    """The hours of an ERCOT file, one a step, starting ``lead`` hours before the spike of the chosen day.

    Hours that the file leaves out, or whose price is blank, are left out here too. After the last hour comes the first.
    """

    def __init__(self, name: str, hours: tuple[Hour, ...], day: date | None, lead: int, interval_s: int) -> None:
        self._hours = tuple(hour for hour in hours if _value(hour) is not None)
        first = _spike_start(name, self._hours, day)
        self._start = (first - lead) % len(self._hours)
        chosen = self._hours[first]
        self.source = (
            f"{name}, {chosen.day} (day of the spike) from hour ending {self._hours[self._start].ending} Central time, "
            f"real-time price, blanks left out; compressed: each hour of the file lasts {interval_s} s"
        )

    def price(self, step: int) -> UsdPerMegawattHour:
        """Return the real-time price, day-ahead where that is blank."""
        value = _value(self._at(step))
        assert value is not None
        return UsdPerMegawattHour(round(value, 2))

    def day_ahead(self, step: int) -> UsdPerMegawattHour | None:
        """Return the day-ahead price."""
        value = self._at(step).dam_usd_per_mwh
        return None if value is None else UsdPerMegawattHour(round(value, 2))

    def _at(self, step: int) -> Hour:
        return self._hours[(self._start + step) % len(self._hours)]


def _value(hour: Hour) -> float | None:
    return hour.dam_usd_per_mwh if hour.rtm_usd_per_mwh is None else hour.rtm_usd_per_mwh


def _spike_start(name: str, hours: tuple[Hour, ...], day: date | None) -> int:
    """Return the index at which the spike of ``day`` begins: the first of the dear hours around its highest price."""
    candidates = [index for index, hour in enumerate(hours) if day is None or hour.day == day]
    if not candidates:
        raise BadInput(f"{name}: no hour of {day} in it; give a --day that the file covers")
    peak = max(candidates, key=lambda index: _value(hours[index]) or 0.0)
    near = [_value(hours[index]) or 0.0 for index in range(max(peak - 24, 0), min(peak + 24, len(hours)))]
    dear = max(_DEAR_USD_PER_MWH, 2 * statistics.median(near))
    first = peak
    while first > 0 and (_value(hours[first - 1]) or 0.0) >= dear:
        first -= 1
    return first


def read_hours(path: Path) -> tuple[Hour, ...]:
    """Return the hours of the ERCOT file at ``path`` (delivery_date, hour_ending 1..24, rtm_lmp, and dam_lmp if any).

    Raises:
        BadInput: names the file, the line, the column, the cause and what belongs there.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            hours = tuple(_hours(path.name, file))
    except OSError as error:
        raise BadInput(f"--prices: cannot read {path}: {error.strerror}; give the path of a CSV file") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"--prices: {path.name} is not a CSV text file: {error}; give an ERCOT hourly file") from None
    if sum(_value(hour) is not None for hour in hours) < 24:
        raise BadInput(f"{path.name}: {len(hours)} hours are too few; give a file of at least one day")
    return hours


def _hours(name: str, lines: Iterator[str]) -> Iterator[Hour]:
    reader = csv.reader(lines)
    header = [column.strip() for column in next(reader, [])]
    if not any(header):
        raise BadInput(f"{name} line 1: is empty; give an ERCOT hourly file with the header {','.join(_NEEDED)}")
    missing = [column for column in _NEEDED if column not in header]
    if missing:
        raise BadInput(f"{name} line 1: no column {missing[0]}; the header needs {','.join(_NEEDED)}")
    before: tuple[date, int] | None = None
    for row in reader:
        if not row:
            continue
        place = f"{name} line {reader.line_num}"
        if len(row) != len(header):
            raise BadInput(f"{place}: {len(row)} columns where the header has {len(header)}; complete the row")
        hour = _hour(place, dict(zip(header, row, strict=True)))
        if before is not None and (hour.day, hour.ending) < before:
            raise BadInput(f"{place}: {hour.day} hour {hour.ending} comes after a later hour; sort the rows by time")
        before = (hour.day, hour.ending)
        yield hour


def _hour(place: str, fields: dict[str, str]) -> Hour:
    try:
        day = date.fromisoformat(fields["delivery_date"].strip())
    except ValueError:
        raise BadInput(
            f"{place}: delivery_date: {fields['delivery_date']!r} is not a date; write it as 2024-05-08"
        ) from None
    ending = fields["hour_ending"].strip()
    if not ending.isdecimal() or len(ending) > 2 or not 1 <= int(ending) <= 24:
        raise BadInput(f"{place}: hour_ending: {fields['hour_ending']!r} is not an hour; write 1 to 24")
    return Hour(day, int(ending), _price(place, "rtm_lmp", fields), _price(place, "dam_lmp", fields))


def _price(place: str, column: str, fields: dict[str, str]) -> float | None:
    text = fields.get(column, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadInput(f"{place}: {column}: {text!r} is not a price; write USD/MWh such as 25.31, or leave it blank")
    if abs(value) > _MOST_USD:
        raise BadInput(f"{place}: {column}: {text!r} is out of range; write USD/MWh from -{_MOST_USD} to {_MOST_USD}")
    return value
