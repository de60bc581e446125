"""Bytes of a reply to a document: strict JSON first, a tolerant reading only when that fails. Pure.

Invariants:

* A reply that is JSON is never touched.
* The tolerant reading works on tokens, so nothing inside a string is ever changed by a rule meant for outside: a pool
  named ``{,}`` keeps its name. The one rule for strings keeps every character and only drops illegal backslashes.
* Every rule applied is named in ``repaired``, in the order first used; what was lost is unknown, never zero.

Rules: ``invalid_utf8 control_character illegal_escape missing_comma extra_comma missing_opening bare_word
map_in_list missing_colon mismatched_bracket leading_garbage trailing_garbage truncated``.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NoReturn

from agent.errors import Garbled

_MAX_DEPTH: Final = 48
_SPACE: Final = " \t\r\n\ufeff"
_ESCAPES: Final = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_WORDS: Final = {"true": True, "false": False, "null": None}
_PLAIN_RUN: Final = re.compile(r'[^"\\\x00-\x1f]+')
_BARE_RUN: Final = re.compile(r'[^\s,:{}\[\]"]+')
_HEX: Final = re.compile(r"[0-9a-fA-F]{4}")
_LOW_HALF: Final = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,39})(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?")
_TEXT_REPLY: Final = re.compile(r"\s*STATUS=[SIWEF],")
_TEXT_ROWS: Final = {"POOL": "POOLS", "ASC": "DEVS", "GPU": "DEVS", "PGA": "DEVS", "DEV": "DEVS"}


@dataclass(frozen=True, slots=True)
class Decoded:
    """A reply as a document, and the names of the rules that were needed to read it."""

    document: Any
    repaired: tuple[str, ...] = ()


def decode(reply: bytes) -> Decoded:
    """Return the document in ``reply``: JSON, nearly JSON, or CGMiner's plain text form.

    Raises:
        Garbled: it is none of these.
    """
    fast = _fast_loads()
    if fast is not None:
        try:
            # It reads nothing but JSON, and as the strict decoder does; integers beyond 64 bits become floats, as far
            # as they are counts or names of anything, no value either way.
            return Decoded(fast(reply))
        except ValueError:
            pass
    rules: dict[str, None] = {}
    try:
        text = reply.decode("utf-8")
    except UnicodeDecodeError:
        text = reply.decode("utf-8", "replace")
        rules["invalid_utf8"] = None
    text = text.strip(_SPACE + "\0")
    try:
        return Decoded(_STRICT.decode(text), tuple(rules))
    except (ValueError, RecursionError):
        pass
    if _TEXT_REPLY.match(text):
        return Decoded(_plain_text(text), tuple(rules))
    document = _Tolerant(text, rules).document()
    return Decoded(document, tuple(rules))


@cache
def _fast_loads() -> Callable[[bytes], Any] | None:
    """Return orjson's decoder where the extra ``fast`` is installed; loaded at the first reply, not at the start."""
    try:
        import orjson  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    return orjson.loads


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


_STRICT: Final = json.JSONDecoder(parse_constant=_no_constant)
_LOST: Final = object()


class _Tolerant:
    """One pass over nearly-JSON text; each method leaves ``_at`` behind what it took."""

    def __init__(self, text: str, rules: dict[str, None]) -> None:
        self._text = text
        self._end = len(text)
        self._at = 0
        self._rules = rules

    def document(self) -> Any:
        self._open_root()
        value = self._container(1)
        if "missing_opening" in self._rules and self._peek() in ("{", "["):
            # What came first was the tail of an earlier reply (Avalon: ``,"id":1}``); the document stands behind it.
            del self._rules["missing_opening"]
            self._note("leading_garbage")
            value = self._container(1)
        if self._text[self._at :].strip(_SPACE + "\0"):
            self._note("trailing_garbage")
        if not value:
            raise Garbled("the reply holds no value that can be read; check what answers at this address")
        return value

    def _open_root(self) -> None:
        """Stand on the bracket that opens the document, or pretend one where only it was lost."""
        if self._text.startswith(","):
            self._note("missing_opening")
            self._text = "{" + self._text[1:]
            self._end = len(self._text)
            return
        starts = [place for place in (self._text.find("{"), self._text.find("[")) if place >= 0]
        if not starts or self._text.startswith(("<", "HTTP/")):
            shown = self._text[:24].encode("unicode_escape").decode("ascii")
            raise Garbled(f"the reply is not a CGMiner document but {shown!r}; check what answers at this address")
        self._at = min(starts)
        if self._at:
            self._note("leading_garbage")

    def _container(self, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise Garbled(f"the reply is nested deeper than {_MAX_DEPTH}; check what answers at this address")
        opener = self._text[self._at]
        self._at += 1
        return self._object(depth) if opener == "{" else self._list(depth)

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while (mark := self._item_start("}", bool(found))) is not None:
            if mark in "{[":
                # A document without a key inside an object: its members belong to the outer one.
                self._note("missing_colon")
                inner = self._container(depth + 1)
                if isinstance(inner, dict):
                    found.update(inner)
                continue
            key = self._scalar()
            if key is _LOST:
                break
            value = self._after_colon(depth)
            if value is not _LOST:
                found[key if isinstance(key, str) else str(key)] = value
        return found

    def _list(self, depth: int) -> list[Any]:
        found: list[Any] = []
        while (mark := self._item_start("]", bool(found))) is not None:
            value = self._container(depth + 1) if mark in "{[" else self._scalar()
            if value is _LOST:
                break
            if self._peek() == ":" and isinstance(value, str):
                self._note("map_in_list")
                member = self._after_colon(depth)
                value = {value: None if member is _LOST else member}
            found.append(value)
        return found

    def _item_start(self, closer: str, after_item: bool) -> str | None:
        """Go to the next item and return its first character; None when the container has ended."""
        commas = 0
        while (mark := self._peek()) is not None:
            if mark == ",":
                commas += 1
                self._at += 1
            elif mark == ":":
                self._note("missing_colon")
                self._at += 1
            elif mark in "}]":
                if commas:
                    self._note("extra_comma")
                if mark != closer:
                    self._note("mismatched_bracket")
                self._at += 1
                return None
            else:
                if after_item and not commas:
                    self._note("missing_comma")
                elif commas > (1 if after_item else 0):
                    self._note("extra_comma")
                return mark
        self._note("truncated")
        return None

    def _after_colon(self, depth: int) -> Any:
        mark = self._peek()
        if mark != ":":
            self._note("truncated" if mark is None else "missing_colon")
            return _LOST
        self._at += 1
        mark = self._peek()
        if mark is None:
            self._note("truncated")
            return _LOST
        if mark in ",}]":
            self._note("bare_word")
            return None
        return self._container(depth + 1) if mark in "{[" else self._scalar()

    def _scalar(self) -> Any:
        if self._text[self._at] == '"':
            return self._string()
        match = _BARE_RUN.match(self._text, self._at)
        word = match.group() if match else self._text[self._at]
        self._at += len(word)
        if self._at >= self._end:
            # A number or word cut off by the end may be any longer number or word.
            self._note("truncated")
            return _LOST
        if word in _WORDS:
            return _WORDS[word]
        if _NUMBER.fullmatch(word):
            return float(word) if any(mark in word for mark in ".eE") else int(word)
        self._note("bare_word")
        # A word before a colon is a key that lost its quotes; anywhere else (nan, inf, -nan) it is no value.
        return word if self._peek() == ":" else None

    def _string(self) -> Any:
        self._at += 1
        parts: list[str] = []
        while self._at < self._end:
            match = _PLAIN_RUN.match(self._text, self._at)
            if match:
                parts.append(match.group())
                self._at = match.end()
                continue
            mark = self._text[self._at]
            self._at += 1
            if mark == '"':
                return "".join(parts)
            if mark == "\\":
                parts.append(self._escaped())
            else:
                self._note("control_character")
                parts.append(mark)
        self._note("truncated")
        return _LOST

    def _escaped(self) -> str:
        mark = self._text[self._at : self._at + 1]
        self._at += 1
        if mark in _ESCAPES:
            return _ESCAPES[mark]
        if mark == "u" and (match := _HEX.match(self._text, self._at)):
            self._at += 4
            return self._code_point(int(match.group(), 16))
        self._note("illegal_escape")
        return mark

    def _code_point(self, high: int) -> str:
        """Return the character of an escape, taking in the second half of a pair; half a pair is no character."""
        match = _LOW_HALF.match(self._text, self._at)
        if 0xD800 <= high < 0xDC00 and match:
            self._at = match.end()
            return chr(0x10000 + ((high - 0xD800) << 10) + int(match.group(1), 16) - 0xDC00)
        return "\ufffd" if 0xD800 <= high < 0xE000 else chr(high)

    def _peek(self) -> str | None:
        """Return the next character that is no blank; None at the end."""
        while self._at < self._end and (self._text[self._at] in _SPACE or self._text[self._at] == "\0"):
            self._at += 1
        return self._text[self._at] if self._at < self._end else None

    def _note(self, rule: str) -> None:
        self._rules[rule] = None


def _plain_text(text: str) -> dict[str, list[dict[str, str]]]:
    """Return ``STATUS=S,..|SUMMARY,Elapsed=1,..|POOL=0,..|`` in the shape of the JSON form, all values as text."""
    document: dict[str, list[dict[str, str]]] = {}
    for part in text.split("|"):
        fields = part.strip(_SPACE + "\0").split(",")
        name = "" if "=" in fields[0] else fields.pop(0)
        row = {key: ",".join(pieces) for key, pieces in _members(fields).items()}
        name = name or _TEXT_ROWS.get(next(iter(row), ""), next(iter(row), ""))
        if name:
            document.setdefault(name, []).append(row)
    return document


def _members(fields: list[str]) -> dict[str, list[str]]:
    """Return the pieces of each value by key; a field without ``=`` is a piece of the value before it."""
    found: dict[str, list[str]] = {}
    pieces: list[str] = []
    for field in fields:
        key, equals, value = field.partition("=")
        if equals:
            found[key] = pieces = [value]
        else:
            pieces.append(field)
    return found
