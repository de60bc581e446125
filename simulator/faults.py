"""Every fault a simulated device can show, by name, and the pure functions that spoil a reply's bytes.

Invariant: a fault that cannot be read is refused with one line that lists the known ones; nothing changes.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OVERSIZE_BYTES = 400_000

TRANSPORT = ("dead", "black_holed", "no_accept", "slow_drip", "hang_up", "reset", "split_chunks")
TERMINATORS = {"nul": b"\x00", "newline": b"\n", "no_terminator": b""}
BEHAVIOUR = (
    "ack_without_effect",
    "reports_idle",
    "reports_idle_now",
    "overheated",
    "clock_unset",
    "session_busy",
    "token_exhausted",
    "access_denied",
    "self_waking",
    "delayed",
    "wrong_identity",
    "bad_password",
    "server_error",
    "stuck_session",
    "expired_token",
    "half_effect",
    "forgets_sleep",
    "keeps_sleep",
    "slow_reply",
    "forgets_limit",
    "trailing_snapshot",
    "trailing_average",
)
_LONGEST_S = 86_400.0
_DEFAULT_SECONDS = {
    "self_waking": 20.0,
    "delayed": 10.0,
    "expired_token": 5.0,
    "slow_reply": 1.5,
    "trailing_snapshot": 10.0,
    "trailing_average": 10.0,
}


class BadFault(ValueError):
    """The fault asked for does not exist or lacks something."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. ``detail`` is the kind of garbage or, for ``wrong_identity``, the identity shown instead."""

    kind: str
    detail: str = ""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Return the fault as an operator writes it."""
        return f"{self.kind}:{self.detail}" if self.kind == "garbage" else self.kind


def parse_fault(text: str, seconds: float | None = None, detail: str = "") -> Fault:
    """Return the fault that ``text`` names: ``dead``, ``garbage:truncated``, ``self_waking:20``.

    Raises:
        BadFault: the fault does not exist or its argument makes no sense.
    """
    kind, _, argument = text.partition(":")
    if kind == "garbage":
        if argument not in GARBAGE:
            raise BadFault(f"unknown garbage {argument!r}; write garbage: and one of {', '.join(GARBAGE)}")
        return Fault(kind, argument)
    if kind not in (*TRANSPORT, *TERMINATORS, *BEHAVIOUR):
        raise BadFault(f"unknown fault {kind!r}; write one of {', '.join(fault_names())}")
    if kind == "wrong_identity":
        return Fault(kind, detail or argument)
    return Fault(kind, "", _seconds_of(kind, argument, seconds))


def fault_names() -> tuple[str, ...]:
    """Return every fault's name."""
    return (*TRANSPORT, *TERMINATORS, *BEHAVIOUR, *(f"garbage:{kind}" for kind in GARBAGE))


def _seconds_of(kind: str, argument: str, seconds: float | None) -> float:
    if argument:
        try:
            seconds = float(argument)
        except ValueError:
            raise BadFault(f"fault {kind}: {argument!r} is not a number of seconds; write {kind}:20") from None
    if seconds is None:
        return _DEFAULT_SECONDS.get(kind, 0.0)
    if not 0 <= seconds <= _LONGEST_S:
        raise BadFault(f"fault {kind}: {seconds} s is out of range; write 0 to {_LONGEST_S:g} seconds")
    return float(seconds)


def spoil(kind: str, document: bytes) -> bytes:
    """Return ``document`` spoiled by one kind of garbage; the terminator is added later."""
    return GARBAGE[kind](document)


def _between_rows(document: bytes) -> bytes:
    """``}{`` without comma between the entries of a list (S9, L3, Z11, Hiveon)."""
    if b"},{" in document:
        return document.replace(b"},{", b"}{", 1)
    return re.sub(rb'\],"(?=[A-Z])', b'{}{}],"', document, count=1)


def _in_first_string(document: bytes, inserted: bytes) -> bytes:
    """Put ``inserted`` into the first string that stands as a value."""
    return re.sub(rb'(":"[^"]{0,2})', lambda match: match.group(1) + inserted, document, count=1)


def _first_number(document: bytes, replacement: bytes) -> bytes:
    """Replace the first floating point figure, which is a hash rate or a temperature in every dialect."""
    return re.sub(rb'(":)-?\d+\.\d+', lambda match: match.group(1) + replacement, document, count=1)


def _before_last(document: bytes, mark: bytes, replacement: bytes) -> bytes:
    head, found, tail = document.rpartition(mark)
    return head + replacement + tail if found else document + replacement


def _map_shaped_list(document: bytes) -> bytes:
    """``"error_code":[..:..]``: a list shaped like a map (btminer 2.0.4)."""
    return _before_last(document, b"}", b',"error_code":["218":"2024-06-15 10:30:00","110":"2024-06-15 09:15:00"]}')


def _duplicate_keys(document: bytes) -> bytes:
    return re.sub(rb'("(?:Elapsed|When|Msg)":[^,}]+)', rb"\1,\1", document, count=1)


def _missing_comma(document: bytes) -> bytes:
    """``""temp0``: the comma between two members is missing (btminer 2023-01-06)."""
    return re.sub(rb'("[^"]*":"[^"]*"),"', rb'\1"', document, count=1)


def _numbers_as_strings(document: bytes) -> bytes:
    return re.sub(rb'(":)(-?\d+(?:\.\d+)?)(?=[,}\]])', rb'\1"\2"', document)


def _power_minus_one(document: bytes) -> bytes:
    return re.sub(rb'("(?:Power|Power_RT|Watts|ApproximateMinerPowerConsumption)":)-?[\d.]+', rb"\1-1", document)


def _negative_temps(document: bytes) -> bytes:
    """Dash-joined sensors below zero: ``2--1-20-22`` (S19 in the cold)."""
    return re.sub(rb'("temp_(?:chip|pcb|pic)[1-3]":")[^"]*', rb"\g<1>2--1-20-22", document)


def _error_overflow(document: bytes) -> bytes:
    """A document cut inside a long list of errors (btminer)."""
    codes = ",".join(f'"{110 + number}":"2024-06-15 10:30:{number % 60:02d}"' for number in range(200))
    return _before_last(document, b"}", b',"error_code":[{' + codes.encode())


def _message_string(_document: bytes) -> bytes:
    return b'{"STATUS":"E","When":1700000000,"Code":132,"Msg":"btminer process is down err","Description":""}'


def _html(_document: bytes) -> bytes:
    return (
        b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head>\n"
        b"<body><center><h1>502 Bad Gateway</h1></center><hr><center>nginx</center></body></html>\n"
    )


def _oversize(document: bytes) -> bytes:
    padding = json.dumps({"pad": "x" * OVERSIZE_BYTES})[1:-1].encode()
    return _before_last(document, b"}", b"," + padding + b"}")


def _binary(document: bytes) -> bytes:
    return bytes((byte * 167 + place * 31) & 0xFF | 0x80 for place, byte in enumerate(document[:512]))


GARBAGE: dict[str, Callable[[bytes], bytes]] = {
    "missing_comma_between_rows": _between_rows,
    "trailing_quote_brace": lambda document: document + b'"}',
    "control_chars": lambda document: _in_first_string(document, b"\x01\x1f\x7f"),
    "raw_newline": lambda document: _in_first_string(document, b"\n"),
    "illegal_escape": lambda document: _in_first_string(document, b"\\'"),
    "bare_nan": lambda document: _first_number(document, b"nan"),
    "inf_string": lambda document: _first_number(document, b'"inf"'),
    "nan_string": lambda document: _first_number(document, b'"nan"'),
    "empty_number": lambda document: _first_number(document, b'""'),
    "dangling_comma": lambda document: _before_last(document, b"}", b",}"),
    "comma_first_in_list": lambda document: document.replace(b"[{", b"[,{", 1),
    "missing_comma_between_members": _missing_comma,
    "leading_fragment": lambda document: b',"id":1}' + document,
    "map_shaped_list": _map_shaped_list,
    "truncated": lambda document: document[: max(len(document) * 2 // 3, 1)],
    "error_overflow": _error_overflow,
    "html": _html,
    "duplicate_keys": _duplicate_keys,
    "numbers_as_strings": _numbers_as_strings,
    "power_minus_one": _power_minus_one,
    "message_string": _message_string,
    "negative_temps": _negative_temps,
    "oversize": _oversize,
    "binary": _binary,
    "empty": lambda _document: b"",
}
"""Kinds of garbage seen in the field (and two made up: ``binary`` and ``oversize``), name to spoiler of a reply."""


def as_json(value: Any) -> bytes:
    """Return ``value`` in the compact form that firmwares send."""
    return json.dumps(value, separators=(",", ":")).encode()
