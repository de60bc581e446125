"""The ways one miner is asked: CGMiner RPC, HTTP, GraphQL over HTTP, and Whatsminer's framed API.

    "summary"      RPC                    "/api/v1/summary"             GET on the web port
    "new:stats"    RPC with new_api       "v3:get.miner.status:pools"   framed: command and parameter
    "gql:system"   a query the table names

Invariants: nothing here takes turns; the device does, so that one request is in flight. A token is fetched when the web
page refuses us without one, and again when it has expired, once a call. RPC is asked in JSON; a device that shows that
it does not understand it is asked once in plain text, and then only so, until ``try_json_again``. An order is said
again in text only to who has refused it as not understood.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

from agent.cgminer.client import Address, Deadlines, exchange, request_of
from agent.cgminer.credentials import Credentials
from agent.cgminer.dialects.table import Login, Table
from agent.cgminer.framed import FRAMED_PORT, converse
from agent.cgminer.repair import decode
from agent.cgminer.sections import NEW_API, dig, is_rpc
from agent.cgminer.status import Status
from agent.cgminer.web import CORRECT_EITHER, GREETING, WebClient, WebReply, check_status
from agent.errors import AccessDenied, Garbled, SessionBusy, Transient, UnsupportedDevice
from sitelink.miners import RPC_PORT, WEB_PORT

RPC, FRAMED, WEB = "rpc", "framed", "web"
_REDIRECTS: Final = 300
_SERVER_FAILS: Final = 500
_START: Final = 200
_IN_TEXT: Final = b"STATUS="
_OTHERS: Final = (b"<", b"SSH-", GREETING)
"""How those begin who are no CGMiner in any form."""
_NO_COMMAND: Final = (14, 23)
"""CGMiner's codes for a command that it does not know, and for JSON that is none."""
_NO_JSON: Final = re.compile(rb'"Code"\s*:\s*"?23\b')


class Failing(Garbled):
    """A page says that it cannot answer now: nothing is known of the miner by it, but the next try may do.

    ``busy``: because it is busy with something else.
    """

    def __init__(self, message: str, *, busy: bool) -> None:
        super().__init__(message)
        self.busy = busy


def wire_of(command: str) -> str:
    """Return the name of the wire that a command goes over: ``rpc``, ``web`` or ``framed``."""
    if is_rpc(command):
        return RPC
    return FRAMED if command.startswith("v3:") else WEB


def is_telling(command: str, table: Table) -> bool:
    """Return whether silence at ``command`` is the miner's: on the wire that the poll uses."""
    return wire_of(command) == wire_of(table.commands.poll[0])


class Wires:
    """One miner's ways in. ``web_port`` 80 means the firmware's own default, which its table names."""

    def __init__(self, address: Address, deadlines: Deadlines, web_port: int, credentials: Credentials | None) -> None:
        self._address = address
        self._deadlines = deadlines
        self._web_port = web_port
        self._credentials = credentials
        self._web: WebClient | None = None
        self._opened: dict[str, Mapping[str, str]] = {}
        self._speaks_text = self._form_known = False

    @property
    def address(self) -> Address:
        """Return where the miner's API listens."""
        return self._address

    @address.setter
    def address(self, address: Address) -> None:
        self._address = address
        self.forget()

    @property
    def web_port(self) -> int:
        """Return the port of the web page as it was given; 80 means the firmware's own."""
        return self._web_port

    @property
    def framed_address(self) -> Address:
        """Return where Whatsminer's framed API listens: its own port, unless the inventory names another."""
        port = FRAMED_PORT if self._address.port == RPC_PORT else self._address.port
        return Address(self._address.host, port)

    @property
    def credentials(self) -> Credentials | None:
        """Return who we are to the miner, None when we have nothing to show."""
        return self._credentials

    @credentials.setter
    def credentials(self, credentials: Credentials | None) -> None:
        self._credentials = credentials
        self.forget()

    def forget(self) -> None:
        """Drop connection, token and what the web page asked for: another device may answer next."""
        if self._web is not None:
            self._web.close()
            self._web = None
        self._opened.clear()
        self.try_json_again()

    def try_json_again(self) -> None:
        """Ask RPC in JSON from now on, until the answer shows that it is not understood."""
        self._speaks_text = self._form_known = False

    def asks_once(self, command: str) -> bool:
        """Return whether a command is one exchange, whatever comes of it: neither a login nor another form follows."""
        return self._form_known if is_rpc(command) else command.startswith("v3:")

    async def reply(self, command: str, table: Table) -> bytes:
        """Ask one command of a table, whichever way it goes, and return the reply.

        Raises:
            Transient: no answer. AccessDenied: it is closed to us. UnsupportedDevice: the firmware has no such page.
            TooLarge, Garbled: the answer is none.
        """
        if is_rpc(command):
            return await self.rpc(command)
        if command[0] == "/":
            return self._content(command, await self._read(table, "GET", command))
        kind, _, rest = command.partition(":")
        if kind == "gql":
            query = {"query": table.queries[rest]}
            return self._content(command, await self._read(table, "POST", "/graphql", query))
        name, _, parameter = rest.partition(":")
        return await self.framed({"cmd": name, "param": parameter} if parameter else {"cmd": name})

    async def rpc(self, command: str, parameter: str | None = None, *, order: bool = False) -> bytes:
        """Ask one command, or several joined with ``+``, of CGMiner's RPC, in JSON or plain text as it is understood.

        ``order``: it may change something, so it is not said twice to who may have understood it. Raises as ``query``.
        """
        if self._speaks_text:
            return await exchange(self._address, _in_text(command, parameter), self._deadlines)
        request = _request(command) if parameter is None else request_of(command, {"parameter": parameter})
        reply = await exchange(self._address, request, self._deadlines)
        if self._form_known or command.startswith(NEW_API):
            return reply  # what is refused with ``new_api`` is asked without it first
        self._form_known = True
        if not is_misunderstood(reply, order=order):
            return reply
        one, joint, _ = command.partition("+")
        told = await exchange(self._address, _in_text(one, parameter), self._deadlines)
        self._speaks_text = not is_misunderstood(told, order=False)
        # Joined commands are JSON's alone: they are then asked one by one.
        return reply if joint or not self._speaks_text else told

    async def _read(self, table: Table, method: str, target: str, json: object = None) -> WebReply:
        """Send a table's own request, once more under a fresh login where the one before has ended unsaid."""
        login = _login_of(table, target)
        kept = login is not None and login.first and login.target in self._opened
        reply = await self.call(table, method, target, json=json)
        if login is not None and kept and _is_logged_out(reply):
            self._opened.pop(login.target, None)
            reply = await self.call(table, method, target, json=json)
        return reply

    async def call(
        self,
        table: Table,
        method: str,
        target: str,
        *,
        json: object = None,
        form: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        deadlines: Deadlines | None = None,
    ) -> WebReply:
        """Send one HTTP request, logged in as the firmware wants it. Raises as ``WebClient.request`` does."""
        web = self._client(table)
        own = {name.lower(): value for name, value in (headers or {}).items()}
        login = _login_of(table, target)

        async def sent(opened: Mapping[str, str]) -> WebReply:
            told = {**opened, **own}
            return await web.request(method, target, json=json, form=form, body=body, headers=told, deadlines=deadlines)

        if login is None or self._credentials is None or login.header in own:
            return await sent({})
        kept = login.target in self._opened
        if kept or not login.first:
            try:
                return await sent(self._opened.get(login.target, login.headers))
            except AccessDenied:
                self._opened.pop(login.target, None)
        self._opened[login.target] = opened = await _log_in(web, login, self._credentials)
        return await sent(opened)

    async def tried(
        self, table: Table, as_whom: Credentials, method: str, target: str, json: object = None
    ) -> WebReply:
        """Send one request as somebody else, without our login. Raises as ``WebClient.request`` does."""
        web = WebClient(Address(self._address.host, self._port(table)), self._deadlines, as_whom)
        try:
            return await web.request(method, target, json=json)
        finally:
            web.close()

    async def framed(self, document: Mapping[str, Any]) -> bytes:
        """Send one document to Whatsminer's framed API and return the reply. Raises as ``converse`` does."""
        return await converse(self.framed_address, document, self._deadlines)

    def _content(self, command: str, reply: WebReply) -> bytes:
        try:
            check_status(self._address, reply, command)
        except Transient as error:
            raise Failing(str(error), busy=isinstance(error, SessionBusy)) from None
        except UnsupportedDevice:
            if reply.is_absent:
                raise
            told = f"answers {command} with {reply.status} ({reply.spoken})"
            raise Garbled(f"{self._address}: {told}; check what runs there") from None
        return reply.body

    def _port(self, table: Table) -> int:
        return table.web_port if self._web_port == WEB_PORT else self._web_port

    def _client(self, table: Table) -> WebClient:
        port = self._port(table)
        if self._web is None or self._web.address.port != port:
            self.forget()
            self._web = WebClient(Address(self._address.host, port), self._deadlines, self._credentials)
        return self._web


def _login_of(table: Table, target: str) -> Login | None:
    return next((login for login in table.logins if target.startswith(login.pages)), None)


def _is_logged_out(reply: WebReply) -> bool:
    """Return whether a page that does not refuse answers as to a stranger: it redirects, asks in HTML, or errs."""
    if reply.status >= _SERVER_FAILS:
        return False
    if reply.status >= _REDIRECTS or reply.body.lstrip().startswith(b"<"):
        return True
    try:
        document = decode(reply.body).document
    except Garbled:
        return False
    return isinstance(document, dict) and bool(document.get("errors")) and not document.get("data")


async def _log_in(web: WebClient, login: Login, credentials: Credentials) -> Mapping[str, str]:
    """Return the headers that show we are logged in."""
    told = login.body(credentials)
    form, json = (told, None) if login.form else (None, told)
    try:
        reply = await web.request("POST", login.target, json=json, form=form, headers=login.headers)
    except AccessDenied:
        raise AccessDenied(f"{web.address}: {login.target} lets us not in; {CORRECT_EITHER}") from None
    if login.header == "cookie":
        shown = _cookie(reply.headers.get("set-cookie", ""), login.token)
    else:
        token = dig(reply.document(), login.token.split(".")) if reply.status < 400 else None
        shown = f"{login.prefix}{token}" if isinstance(token, str) and token else None
    if shown is None:
        with suppress(UnsupportedDevice):
            check_status(web.address, reply, "a login")
        raise AccessDenied(f"{web.address}: {login.target} lets us not in ({reply.status}); {CORRECT_EITHER}")
    return {**login.headers, login.header: shown}


def _cookie(given: str, name: str) -> str | None:
    """Return the cookie ``name``, or the first one under whatever name: LuCI's is ``sysauth`` as a rule."""
    named = re.search(rf"(?:^|[,;\s])({re.escape(name)}=[^;,\s]+)", given)
    found = named or re.match(r"\s*([^=;,\s]+=[^;,\s]+)", given)
    return found.group(1) if found else None


def is_misunderstood(reply: bytes, *, order: bool) -> bool:
    """Return whether ``reply`` shows that its sender knows no JSON; to an ``order``, only where it says so."""
    start = reply[:_START].lstrip()
    if start.startswith(b"{"):
        return _NO_JSON.search(start) is not None
    if start.startswith(_OTHERS):
        return False
    try:
        document = decode(reply).document
    except Garbled:
        return not order
    return start.startswith(_IN_TEXT) and Status.of(document).code in _NO_COMMAND


@lru_cache(maxsize=256)
def _in_text(command: str, parameter: str | None) -> bytes:
    command = command.removeprefix(NEW_API)
    return (command if parameter is None else f"{command}|{parameter}").encode()


@lru_cache(maxsize=256)
def _request(command: str) -> bytes:
    if command.startswith(NEW_API):
        return request_of(command.removeprefix(NEW_API), {"new_api": True})
    return request_of(command)
