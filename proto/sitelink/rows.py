"""The rows of a CSV file that a person wrote: each line's fields by name, and what is wrong with one. Pure.

    bytes --read_rows--> Row, Row, ... --text, name, whole ...--> checked values, or BadList

Invariant: each complaint names the file, the line, the field, the cause and what to write instead.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from sitelink.miner_ids import MAX_MINER_ID_BYTES

_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:@-]{{0,{MAX_MINER_ID_BYTES - 1}}}")


class BadList(ValueError):
    """A list cannot be taken; each of ``complaints`` names file, line, field, cause and what to write."""

    def __init__(self, *complaints: str) -> None:
        more = f" (and {len(complaints) - 1} more such complaints)" if len(complaints) > 1 else ""
        super().__init__(complaints[0] + more)
        self.complaints = complaints


class Row:
    """One line of a list; every complaint names the file, the line and the field."""

    def __init__(self, file: str, line: int, values: Mapping[str, str]) -> None:
        self.line = line
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
        try:
            number = float(text)
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
    first = text.partition("\n")[0]
    between = ";" if ";" in first and "," not in first else ","  # spreadsheets of half of Europe write the former
    lines = _numbered(file, csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=between))
    _, header = next(lines, (0, []))
    names = [name.strip() for name in header]
    for name in fields:
        if name not in names:
            raise BadList(f"{file} line 1: {name}: the column is missing; the header is {expected}")
    for name in names:
        if name not in (*fields, *optional) or names.count(name) > 1:
            raise BadList(f"{file} line 1: {name}: the column is unknown or doubled; the header is {expected}")
    for line, values in lines:
        row = Row(file, line, dict(zip(names, values, strict=False)))
        if len(values) != len(names):
            row.broken = BadList(
                f"{file} line {line}: {names[min(len(values), len(names) - 1)]}: the row has {len(values)} fields "
                f"instead of {len(names)}; write one value, or nothing, for each of {expected}"
            )
        yield row


def _numbered(file: str, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    line: Callable[[], int] = lambda: int(getattr(reader, "line_num", 0))  # noqa: E731
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise BadList(f"{file} line {line()}: row: {error}; put double quotes around the whole field") from None
        if any(value.strip() for value in values):
            yield line(), values
