"""What each verb of a command needs, read alike where it is signed and where it is obeyed. Pure.

    LIMIT     power_w=2500 | mode=low|normal|high
    POOLS     pools=[{"url","user","password"}, ..]   one to three, the first preferred
    BLINK     on=true|false
    FIRMWARE  file, sha256, version                   and two people who stand for it
    the others take nothing; a new password never travels: the site makes it

Invariant: a command that passes can be carried out as it stands; nothing in it is guessed.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sitelink.types import Command, Verb
from sitelink.units import Watts

SWITCHING: Final = frozenset({Verb.STOP, Verb.START})
"""Verbs that the curtailment policy follows; the others are carried out beside it."""
ONCE: Final = frozenset({Verb.REBOOT, Verb.FIRMWARE, Verb.LOGS})
"""Verbs that are sent at most once, whatever becomes of them."""
DROPPING: Final = frozenset({Verb.STOP, Verb.REBOOT, Verb.FIRMWARE})
"""Verbs that take a miner's load off the grid, if only for minutes."""
MODES: Final = ("low", "normal", "high")
"""The modes that a limit may name; a firmware may know fewer."""
MOST_POOLS: Final = 3
_PEOPLE: Final = 2
_SWITCHES: Final = {"true": True, "false": False}
_POWER_W: Final = re.compile(r"[0-9]{2,5}(?:\.[0-9]{1,3})?")
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_VERSION: Final = re.compile(r"[^\x00-\x1f\x7f]{1,128}")
_URL: Final = re.compile(r"[a-z0-9+]{2,20}://[^\s\x00-\x1f\x7f]{1,200}")
_LONGEST_FIELD: Final = 200


class Pool(NamedTuple):
    """One pool a miner works for, first choice first. The password is the pool's, not the miner's."""

    url: str
    user: str
    password: str


class BadCommand(ValueError):
    """The command lacks something or says too much; ``code`` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def check_command(command: Command) -> None:
    """Return when ``command`` says all that its verb needs and nothing else.

    Raises:
        BadCommand: with code bad_parameters or two_people_needed.
    """
    check_parameters(command.verb, dict(command.parameters))
    if (
        command.verb is Verb.FIRMWARE
        and len({name.strip().casefold() for name in command.approved_by} - {""}) < _PEOPLE
    ):
        raise BadCommand("two_people_needed", "firmware is changed only when two people stand for it (approved_by)")


def check_parameters(verb: Verb, parameters: Mapping[str, str]) -> None:
    """Return when ``parameters`` are what ``verb`` needs. Raises BadCommand with code bad_parameters."""
    if verb is Verb.LIMIT:
        limit_of(parameters)
    elif verb is Verb.POOLS:
        pools_of(parameters)
    elif verb is Verb.BLINK:
        blink_of(parameters)
    elif verb is Verb.FIRMWARE:
        _check_firmware(parameters)
    elif parameters:
        raise _bad(verb, f"it takes no {min(parameters)!r}")


def limit_of(parameters: Mapping[str, str]) -> Watts | str:
    """Return the limit of a LIMIT order, or the mode that it names instead. Raises BadCommand."""
    if len(parameters) != 1 or not set(parameters) <= {"power_w", "mode"}:
        raise _bad(Verb.LIMIT, "it takes power_w or mode, one of them")
    if "mode" in parameters:
        if parameters["mode"] not in MODES:
            raise _bad(Verb.LIMIT, f"mode: {parameters['mode']!r} is not one of {', '.join(MODES)}")
        return parameters["mode"]
    if not _POWER_W.fullmatch(parameters["power_w"]) or not float(parameters["power_w"]):
        raise _bad(Verb.LIMIT, f"power_w: {parameters['power_w']!r} is not a miner's power in W")
    return Watts(float(parameters["power_w"]))


def pools_of(parameters: Mapping[str, str]) -> tuple[Pool, ...]:
    """Return the pools of a POOLS order, one to three. Raises BadCommand."""
    _take(parameters, "pools")
    try:
        found: Any = json.loads(parameters["pools"])
    except (ValueError, RecursionError):
        raise _bad(Verb.POOLS, "pools: not JSON") from None
    if not isinstance(found, list) or not 1 <= len(found) <= MOST_POOLS:
        raise _bad(Verb.POOLS, f"pools: expected a list of one to {MOST_POOLS}")
    return tuple(_pool(entry) for entry in found)


def blink_of(parameters: Mapping[str, str]) -> bool:
    """Return whether the lamp of a BLINK order is to blink. Raises BadCommand."""
    _take(parameters, "on")
    if parameters["on"] not in _SWITCHES:
        raise _bad(Verb.BLINK, f"on: {parameters['on']!r} is neither true nor false")
    return _SWITCHES[parameters["on"]]


def _pool(entry: Any) -> Pool:
    if not isinstance(entry, dict) or set(entry) != set(Pool._fields) or not all(map(_fits, entry.values())):
        raise _bad(Verb.POOLS, "pools: each needs url, user and password as texts")
    pool = Pool(**entry)
    if not _URL.fullmatch(pool.url) or not pool.user:
        raise _bad(Verb.POOLS, f"pools: {pool.url!r} is no address, or its user is empty")
    return pool


def _check_firmware(parameters: Mapping[str, str]) -> None:
    _take(parameters, "file", "sha256", "version")
    forms = {"file": _FILE, "sha256": _SHA256, "version": _VERSION}
    for name, form in forms.items():
        if not form.fullmatch(parameters[name]):
            raise _bad(Verb.FIRMWARE, f"{name}: {parameters[name][:80]!r} does not fit")


def _take(parameters: Mapping[str, str], *names: str) -> None:
    if set(parameters) != set(names):
        raise _bad(None, f"it takes {', '.join(names)} and nothing else")


def _fits(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_FIELD and value.isprintable()


def _bad(verb: Verb | None, cause: str) -> BadCommand:
    return BadCommand("bad_parameters", f"{verb.value if verb is not None else 'this verb'}: {cause}")
