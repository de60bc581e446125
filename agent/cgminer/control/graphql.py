"""Braiins' GraphQL over HTTP: log in once, ask, and log in again once when the session has ended.

    mutation login --> cookie session_id --> query or mutation --> {"data": {..}, "errors": [..]}

Invariants: the session belongs to one miner's driver; an order that the device answers with ``errors`` was not carried
out, so it may be asked again under a fresh login; one that may have been carried out is never repeated here.

Source: the schema that the firmware publishes at /graphql (21.09 to 25.05): Auth, AuthResult, the *Result unions.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from agent.cgminer.client import Deadlines
from agent.cgminer.control.web_answers import credentials_of, raise_unless_taken, wrong_credentials
from agent.cgminer.device import Device
from agent.cgminer.web import WebReply
from agent.errors import AccessDenied, Garbled, UnsupportedDevice

_TARGET: Final = "/graphql"
_SESSION: Final = re.compile(r"\bsession_id=([^;,\s]+)")
_SHOWN: Final = 120
_DENIED: Final = re.compile(r"auth|log(ged)? ?in|permi|denied|session", re.IGNORECASE)
_LOGIN: Final = """mutation ($username: String!, $password: String!) {
  auth { login(username: $username, password: $password) {
    __typename ... on VoidResult { void } ... on AuthError { message } } } }"""


class GraphQl:
    """One miner's GraphQL, logged in with the device's credentials."""

    def __init__(self) -> None:
        self._cookie = ""

    async def ask(
        self,
        device: Device,
        query: str,
        variables: Mapping[str, Any] | None = None,
        deadlines: Deadlines | None = None,
    ) -> Mapping[str, Any]:
        """Send one query or mutation and return its data.

        Raises:
            Transient: no answer. AccessDenied: the login is refused. UnsupportedDevice: the query is refused.
        """
        kept = bool(self._cookie)
        while True:
            try:
                return await self._asked(device, query, variables, deadlines)
            except AccessDenied:
                self._cookie = ""
                if not kept:
                    raise
                kept = False

    async def opens(self, device: Device, secret: str) -> bool:
        """Return whether the device grants a login for ``secret``. Raises as ``ask`` does."""
        try:
            await _logged_in(device, credentials_of(device).user, secret)
        except AccessDenied:
            return False
        return True

    def forget(self) -> None:
        """Drop the session: its password has changed."""
        self._cookie = ""

    async def _asked(
        self, device: Device, query: str, variables: Mapping[str, Any] | None, deadlines: Deadlines | None
    ) -> Mapping[str, Any]:
        if not self._cookie:
            self._cookie = await _logged_in(device, *credentials_of(device))
        told: dict[str, Any] = {"query": query} if variables is None else {"query": query, "variables": variables}
        reply = await device.call("POST", _TARGET, json=told, headers={"cookie": self._cookie}, deadlines=deadlines)
        return _data(device, reply)


async def _logged_in(device: Device, user: str, password: str) -> str:
    told = {"query": _LOGIN, "variables": {"username": user, "password": password}}
    reply = await device.call("POST", _TARGET, json=told)
    data = _data(device, reply)
    if refusal_in(data, "auth", "login") is not None:
        raise wrong_credentials(device)
    session = _SESSION.search(reply.headers.get("set-cookie", ""))
    if session is None:
        raise Garbled(f"{device.address}: its login gives no session; check that Braiins OS runs there")
    return f"session_id={session[1]}"


def _data(device: Device, reply: WebReply) -> Mapping[str, Any]:
    raise_unless_taken(device, reply, "a GraphQL query")
    try:
        document = reply.document()
    except Garbled:
        raise Garbled(f"{device.address}: answers GraphQL with no object; check that Braiins OS runs there") from None
    errors = document.get("errors")
    if errors:
        message = _message(errors)
        if _DENIED.search(message):
            raise AccessDenied(f"{device.address}: refuses a query ({message}); {_CORRECT}")
        raise UnsupportedDevice(f"{device.address}: refuses a query ({message}); update its firmware")
    data = document.get("data")
    if not isinstance(data, dict):
        raise Garbled(f"{device.address}: answers GraphQL with no data; check that Braiins OS runs there")
    return data


def refusal_in(data: Mapping[str, Any], *path: str) -> str | None:
    """Return the message of the error that a mutation's result at ``path`` is; None when it is none."""
    found: Any = data
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(found.get("message"), str):
        return None
    return " ".join(found["message"].split())[:_SHOWN] or "no text"


_CORRECT: Final = "correct the user and password of its credentials group"


def _message(errors: Any) -> str:
    first = errors[0] if isinstance(errors, list) else errors
    told = first.get("message") if isinstance(first, dict) else first
    return " ".join(str(told).split())[:_SHOWN]
