"""As much of GraphQL as miners' pages use: fields, aliases, arguments, variables and inline fragments. Pure.

Invariants: a query is read whole before anything happens; what a document does not have is an error that names it, and
then no part of the answer is given.

      {bos{hostname}}  ->  Field("bos", fields=(Field("hostname"),))  ->  {"bos": {"hostname": ".."}}
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_TOKEN = re.compile(r'\s*(?:#[^\n]*\n|,)*\s*(\.\.\.|[{}()\[\]:$!=@]|"(?:\\.|[^"\\])*"|-?\d+(?:\.\d+)?|[A-Za-z_]\w*|$)')
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "/": "/"}
_WORDS = {"true": True, "false": False, "null": None}
_DEEPEST = 20
Resolver = Callable[[Mapping[str, Any]], Any]


class BadQuery(ValueError):
    """The query cannot be read or answered; the text is the error's message."""


@dataclass(frozen=True, slots=True)
class Field:
    """One selected field; ``on`` is the type of an inline fragment, whose ``name`` is empty."""

    name: str
    key: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    fields: tuple["Field", ...] = ()
    on: str = ""


def parse_query(text: str, variables: Mapping[str, Any]) -> tuple[str, tuple[Field, ...]]:
    """Return (``query`` or ``mutation``, its fields).

    Raises:
        BadQuery: ``text`` is no query, or lacks a variable.
    """
    reader = _Reader(_tokens(text), variables)
    kind = "query"
    if reader.peek() in {"query", "mutation"}:
        kind = reader.take()
        if reader.peek() not in {"{", "("}:
            reader.take()
        if reader.peek() == "(":
            reader.skip_brackets()
    fields = reader.selection(0)
    if reader.peek():
        raise BadQuery(f"Syntax Error: unexpected {reader.peek()!r} behind the query")
    return kind, fields


def select(document: Any, fields: tuple[Field, ...]) -> Any:
    """Return of ``document`` what ``fields`` ask for; what can be called is called with the field's arguments.

    Raises:
        BadQuery: a field does not exist, or has no fields where it needs some.
    """
    if isinstance(document, list):
        return [select(row, fields) for row in document]
    if not fields:
        if isinstance(document, dict):
            raise BadQuery("an object needs a selection of its fields")
        return document
    if not isinstance(document, dict):
        return document
    found: dict[str, Any] = {}
    for one in fields:
        if one.on:
            if document.get("__typename", one.on) == one.on:
                found |= select(document, one.fields)
        elif one.name == "__typename":
            found[one.key] = document.get("__typename", "Object")
        elif one.name not in document:
            raise BadQuery(f'Unknown field "{one.name}" on type "{document.get("__typename", "Object")}"')
        else:
            value = document[one.name]
            found[one.key] = select(value(one.arguments) if callable(value) else value, one.fields)
    return found


def _tokens(text: str) -> list[str]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.end() == at:
            raise BadQuery(f"Syntax Error: cannot read {text[at : at + 20]!r}")
        if match[1]:
            found.append(match[1])
        at = match.end()
    return found


class _Reader:
    """Reads tokens one after another."""

    def __init__(self, tokens: list[str], variables: Mapping[str, Any]) -> None:
        self._tokens = tokens
        self._variables = variables
        self._at = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self, wanted: str = "") -> str:
        word = self.peek()
        if not word or (wanted and word != wanted):
            raise BadQuery(f"Syntax Error: expected {wanted or 'more'}, found {word or 'the end'}")
        self._at += 1
        return word

    def skip_brackets(self) -> None:
        depth = 0
        while True:
            word = self.take()
            depth += (word == "(") - (word == ")")
            if depth == 0:
                return

    def selection(self, depth: int) -> tuple[Field, ...]:
        if depth > _DEEPEST:
            raise BadQuery("the query is too deep")
        self.take("{")
        fields = []
        while self.peek() != "}":
            fields.append(self._field(depth))
        self.take("}")
        return tuple(fields)

    def _field(self, depth: int) -> Field:
        name = self.take()
        if name == "...":
            self.take("on")
            return Field("", on=self.take(), fields=self.selection(depth + 1))
        key = name
        if self.peek() == ":":
            self.take()
            name = self.take()
        arguments = self._arguments() if self.peek() == "(" else {}
        fields = self.selection(depth + 1) if self.peek() == "{" else ()
        return Field(name, key, arguments, fields)

    def _arguments(self) -> dict[str, Any]:
        self.take("(")
        found = {}
        while self.peek() != ")":
            name = self.take()
            self.take(":")
            found[name] = self._value(0)
        self.take(")")
        return found

    def _value(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise BadQuery("the query is too deep")
        word = self.take()
        if word == "$":
            name = self.take()
            if name not in self._variables:
                raise BadQuery(f'Variable "${name}" is not defined')
            return self._variables[name]
        if word == "[":
            return self._list(depth + 1)
        if word == "{":
            return self._object(depth + 1)
        if word.startswith('"'):
            return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), word[1:-1])
        if word in _WORDS:
            return _WORDS[word]
        return _number(word)

    def _list(self, depth: int) -> list[Any]:
        found = []
        while self.peek() != "]":
            found.append(self._value(depth))
        self.take("]")
        return found

    def _object(self, depth: int) -> dict[str, Any]:
        found = {}
        while self.peek() != "}":
            name = self.take()
            self.take(":")
            found[name] = self._value(depth)
        self.take("}")
        return found


def _number(word: str) -> Any:
    """Return a number, or the word of an enumeration as text."""
    try:
        return float(word) if "." in word else int(word)
    except ValueError:
        return word
