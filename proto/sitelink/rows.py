"""The rows of a CSV file that a person wrote: each line's fields by name, and what is wrong with one. Pure.

    bytes --read_rows--> Row, Row, ... --text, name, whole ...--> checked values, or BadList

Spreadsheets write commas, semicolons or tabs between the fields, some a first line ``sep=;``, some empty columns at the
end, and where commas do not separate fields, decimal commas.

Invariant: each complaint names the file, the line, the field, the cause and what to write instead.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from sitelink.miner_ids import MAX_MINER_ID_BYTES

_BETWEEN: Final = (",", ";", "\t")
_TOLD_BETWEEN: Final = re.compile(r"\s*\"?sep=([,;\t])\"?[,;\s]*", re.IGNORECASE)
"""The first line by which a spreadsheet is told what stands between the fields."""
_DECIMAL_COMMA: Final = re.compile(r"([0-9]+),([0-9]+)")
_THOUSANDS: Final = 3
"""So many digits behind a comma may be a fraction, or thousands."""
_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:@-]{{0,{MAX_MINER_ID_BYTES - 1}}}")


class BadList(ValueError):
    """A list cannot be taken; each of ``complaints`` names file, line, field, cause and what to write."""

    def __init__(self, *complaints: str) -> None:
        more = f" (and {len(complaints) - 1} more such complaints)" if len(complaints) > 1 else ""
        super().__init__(complaints[0] + more)
        self.complaints = complaints


class Row:
    """One line of a list; every complaint names the file, the line and the field."""

    def __init__(self, file: str, line: int, values: Mapping[str, str], *, decimal_commas: bool = False) -> None:
        """``decimal_commas``: a comma in a number stands before its fraction."""
        self.line = line
        self._decimal_commas = decimal_commas
        self._place = f"{file} line {line}"
        self._values = values
        self.broken: BadList | None = None
        """Why the line is no row at all; whoever takes the row raises it."""

    def wrong(self, field: str, cause: str, fix: str) -> BadList:
        """Return the complaint about a field: the cause, and what to write instead."""
        return BadList(f"{self._place}: {field}: {cause}; {fix}")

    def has(self, field: str) -> bool:
        """Return whether the field says anything."""
        return bool(self._values.get(field, "").strip())

    def text(self, field: str) -> str:
        """Return the field without the blanks around it."""
        return self._values[field].strip()

    def name(self, field: str, fix: str, pattern: re.Pattern[str] = _NAME) -> str:
        """Return a field that must be a name. Raises BadList."""
        text = self.text(field)
        if not text:
            raise self.wrong(field, "it is empty", fix)
        if not pattern.fullmatch(text):
            raise self.wrong(field, f"{text!r} has characters that do not belong there", fix)
        return text

    def label(self, field: str) -> str:
        """Return a field of free text, empty where it says nothing. Raises BadList."""
        text = self.text(field)
        if not "".join(text.split()).isprintable():
            raise self.wrong(field, f"{text!r} has characters that cannot be printed", "write letters that can be read")
        return text

    def one_of(self, field: str, choices: tuple[str, ...]) -> str:
        """Return which of ``choices`` the field names, in whatever case. Raises BadList."""
        text = self.text(field).lower()
        if text not in choices:
            raise self.wrong(field, f"{text!r} is not known", f"write one of {', '.join(choices)}")
        return text

    def whole(self, field: str, low: int, high: int, fix: str) -> int:
        """Return a whole number from ``low`` to ``high``. Raises BadList."""
        text = self.text(field)
        if not re.fullmatch(r"-?[0-9]{1,12}", text):
            raise self.wrong(field, f"{text!r} is not a number", fix)
        if not low <= int(text) <= high:
            raise self.wrong(field, f"{text} is not between {low} and {high}", fix)
        return int(text)

    def positive(self, field: str, unit: str) -> float | None:
        """Return a figure in ``unit``, None where the field is empty. Raises BadList."""
        text = self.text(field)
        if not text:
            return None
        fix = f"write the nameplate figure in {unit}, or leave it empty"
        comma = _DECIMAL_COMMA.fullmatch(text) if self._decimal_commas else None
        if comma is not None and comma[1] != "0" and len(comma[2]) == _THOUSANDS:
            raise self.wrong(
                field, f"{text!r} can be read in two ways", f"write {comma[1]}{comma[2]}, or its fraction with a dot"
            )
        try:
            number = float(text if comma is None else f"{comma[1]}.{comma[2]}")
        except ValueError:
            raise self.wrong(field, f"{text!r} is not a number", fix) from None
        if not 0 < number < 1e9:
            raise self.wrong(field, f"{text} is out of range", fix)
        return number


class Unique:
    """Names that may stand once; two that differ in case alone are one name."""

    def __init__(self, field: str, fix: str) -> None:
        self._field, self._fix = field, fix
        self._seen: set[str] = set()

    def add(self, row: Row, value: str) -> None:
        """Note what the row says. Raises BadList when it stood there before."""
        if value.lower() in self._seen:
            raise row.wrong(self._field, f"{value!r} stands twice", self._fix)
        self._seen.add(value.lower())


def read_rows(file: str, data: bytes, fields: tuple[str, ...], optional: tuple[str, ...] = ()) -> Iterator[Row]:
    """Return the rows of ``data``, the CSV file called ``file``: the columns ``fields`` and, at will, ``optional``.

    A line with too many or too few values is a row that is ``broken``; blank lines are none.

    Raises:
        BadList: it is not UTF-8, its header is wrong, or its quotes are: nothing behind that can be told apart.
    """
    expected = ",".join(fields)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadList(f"{file}: it is not UTF-8 text; save it as CSV with the header {expected}") from None
    first, _, rest = text.partition("\n")
    told = _TOLD_BETWEEN.fullmatch(first)
    between = told[1] if told is not None else _between(first, fields)
    body, skipped = (rest, 1) if told is not None else (text, 0)
    lines = _numbered(file, csv.reader(io.StringIO(body, newline=""), strict=True, delimiter=between), skipped)
    head, header = next(lines, (1 + skipped, []))
    names = _without_end([name.strip() for name in header], 0)
    _check_header(f"{file} line {head}", names, fields, optional)
    for line, found in lines:
        values = _without_end(found, len(names))
        row = Row(file, line, dict(zip(names, values, strict=False)), decimal_commas=between != ",")
        if len(values) != len(names):
            row.broken = BadList(
                f"{file} line {line}: {names[min(len(values), len(names) - 1)]}: the row has {len(values)} fields "
                f"instead of {len(names)}; write one value, or nothing, for each of {expected}"
            )
        yield row


def _check_header(place: str, names: list[str], fields: tuple[str, ...], optional: tuple[str, ...]) -> None:
    expected = ",".join(fields)
    for name in fields:
        if name not in names:
            raise BadList(f"{place}: {name}: the column is missing; the header is {expected}")
    for name in names:
        if name not in (*fields, *optional) or names.count(name) > 1:
            told = name or "a column without a name"
            raise BadList(f"{place}: {told}: the column is unknown or doubled; the header is {expected}")


def _between(header: str, fields: tuple[str, ...]) -> str:
    """Return what stands between the fields: by it the header falls into most of the names wanted."""
    return max(_BETWEEN, key=lambda mark: len({name.strip(' \r"') for name in header.split(mark)} & set(fields)))


def _without_end(values: list[str], least: int) -> list[str]:
    """Return the values without the empty ones at the end, as spreadsheets leave them, but at least so many."""
    count = len(values)
    while count > least and not values[count - 1].strip():
        count -= 1
    return values[:count]


def _numbered(file: str, reader: Iterator[list[str]], skipped: int) -> Iterator[tuple[int, list[str]]]:
    line: Callable[[], int] = lambda: skipped + int(getattr(reader, "line_num", 0))  # noqa: E731
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise BadList(f"{file} line {line()}: row: {error}; put double quotes around the whole field") from None
        if any(value.strip() for value in values):
            yield line(), values
