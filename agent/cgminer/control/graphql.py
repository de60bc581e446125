"""Braiins' GraphQL over HTTP: a query or a mutation asked, its errors sorted, an ended session renewed once.

    query --> {"data": {..}} | {"data": null, "errors": [{"message": "Unauthorized"}]} --> fresh login --> once more

Invariants: who we are is shown by the cookie that ``wires`` fetches; the firmware says 200 whatever happens, so that a
session which has ended shows only in ``errors``. What is answered with ``errors`` was not carried out, so it may be
asked again; what was not answered is never repeated here.

Source: the schema that the firmware publishes at /graphql (21.09 to 25.05): Auth, AuthResult, the *Result unions.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from agent.cgminer.client import Deadlines
from agent.cgminer.control.web_answers import credentials_of, raise_unless_taken
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.cgminer.dialects.braiins import login_of
from agent.cgminer.sections import dig
from agent.cgminer.web import CORRECT_EITHER, WebReply
from agent.errors import AccessDenied, Garbled, UnsupportedDevice

_TARGET: Final = "/graphql"
_SHOWN: Final = 120
_DENIED: Final = re.compile(r"auth|log(ged)? ?in|permi|denied|forbid|session", re.IGNORECASE)


class _SessionEnded(AccessDenied):
    """The firmware no longer knows our session, or allows its user nothing."""


async def ask(
    device: Device, query: str, variables: Mapping[str, Any] | None = None, deadlines: Deadlines | None = None
) -> Mapping[str, Any]:
    """Send one query or mutation as us and return its data.

    Raises:
        Transient: no answer. AccessDenied: we are refused, also after a fresh login. UnsupportedDevice: the query is.
    """
    credentials_of(device)
    told: dict[str, Any] = {"query": query} if variables is None else {"query": query, "variables": variables}
    try:
        return _data(device, await device.call("POST", _TARGET, json=told, deadlines=deadlines))
    except _SessionEnded:
        device.credentials = credentials_of(device)  # drops the session; the next request opens another
    return _data(device, await device.call("POST", _TARGET, json=told, deadlines=deadlines))


async def opens(device: Device, found: Credentials) -> bool:
    """Return whether a login opens the device for ``found``, who we then are. Raises as ``ask`` does."""
    try:
        data = _data(device, await device.tried(found, "POST", _TARGET, login_of(found)))
    except AccessDenied:
        return False
    if refusal_in(data, "auth", "login") is not None:
        return False
    device.credentials = found
    return True


def refusal_in(data: Mapping[str, Any], *path: str) -> str | None:
    """Return the message of the error that a mutation's result at ``path`` is; None when it is none."""
    message = dig(data, (*path, "message"))
    return (_line(message) or "no text") if isinstance(message, str) else None


def _data(device: Device, reply: WebReply) -> Mapping[str, Any]:
    raise_unless_taken(device, reply, "a GraphQL query")
    try:
        document = reply.document()
    except Garbled:
        raise Garbled(f"{device.address}: answers GraphQL with no object; check that Braiins OS runs there") from None
    errors = document.get("errors")
    if errors:
        message = _line(dig(errors, ("0", "message")) or dig(errors, ("message",)) or errors)
        if _DENIED.search(message):
            raise _SessionEnded(f"{device.address}: {_TARGET} says {message!r}; {CORRECT_EITHER}")
        raise UnsupportedDevice(f"{device.address}: refuses a query ({message}); update its firmware")
    data = document.get("data")
    if not isinstance(data, dict):
        raise Garbled(f"{device.address}: answers GraphQL with no data; check that Braiins OS runs there")
    return data


def _line(text: object) -> str:
    return " ".join(str(text).split())[:_SHOWN]
