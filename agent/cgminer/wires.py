"""The ways one miner is asked: CGMiner RPC, HTTP, GraphQL over HTTP, and Whatsminer's framed API.

    "summary"                        RPC                 "/api/v1/summary"           GET on the web port
    "gql:paused"                     a named query       "v3:get.miner.status:pools" framed: command and parameter

Invariant: nothing here takes turns; the device does, so that one request is in flight. A token is fetched when the web
page refuses us without one, and again when it has expired, once a call.
"""

from collections.abc import Mapping
from typing import Any, Final

from agent.cgminer.client import Address, Deadlines, query
from agent.cgminer.credentials import Credentials
from agent.cgminer.dialects.table import Login, Table
from agent.cgminer.framed import FRAMED_PORT, converse
from agent.cgminer.sections import dig, is_rpc
from agent.cgminer.web import WebClient, WebReply
from agent.errors import AccessDenied, Garbled, UnsupportedDevice

DEFAULT_WEB_PORT: Final = 80
_DEFAULT_RPC_PORT: Final = 4028
_UNKNOWN_PAGE: Final = frozenset({404, 405, 501})


def wire_of(command: str) -> str:
    """Return the name of the wire that a command goes over: ``rpc``, ``web`` or ``framed``."""
    if not command or is_rpc(command):
        return "rpc"
    return "framed" if command.startswith("v3:") else "web"


class Wires:
    """One miner's ways in. ``web_port`` 80 means the firmware's own default, which its table names."""

    def __init__(self, address: Address, deadlines: Deadlines, web_port: int, credentials: Credentials | None) -> None:
        self._address = address
        self._deadlines = deadlines
        self._web_port = web_port
        self._credentials = credentials
        self._web: WebClient | None = None
        self._token: dict[str, str] = {}

    @property
    def address(self) -> Address:
        """Return where the miner's API listens."""
        return self._address

    @address.setter
    def address(self, address: Address) -> None:
        self._address = address
        self.forget()

    @property
    def framed_address(self) -> Address:
        """Return where Whatsminer's framed API listens: its own port, unless the inventory names another."""
        port = FRAMED_PORT if self._address.port == _DEFAULT_RPC_PORT else self._address.port
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
        self._token = {}

    async def reply(self, command: str, table: Table) -> bytes:
        """Ask one command of a table, whichever way it goes, and return the reply.

        Raises:
            Transient: no answer. AccessDenied: it is closed to us. UnsupportedDevice: the firmware has no such page.
            TooLarge, Garbled: the answer is none.
        """
        if is_rpc(command):
            return await query(self._address, command, None, self._deadlines)
        if command[0] == "/":
            return _content(command, await self.call(table, "GET", command))
        kind, _, rest = command.partition(":")
        if kind == "gql":
            return _content(command, await self.call(table, "POST", "/graphql", json={"query": table.queries[rest]}))
        name, _, parameter = rest.partition(":")
        return await self.framed({"cmd": name, "param": parameter} if parameter else {"cmd": name})

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
        login = table.login
        own = headers or {}

        async def asked(shown: Mapping[str, str]) -> WebReply:
            return await web.request(
                method, target, json=json, form=form, body=body, headers={**shown, **own}, deadlines=deadlines
            )

        if login is None or self._credentials is None:
            return await asked({})
        try:
            return await asked(self._token)
        except AccessDenied:
            if login.header in {name.lower() for name in own}:
                raise
            self._token = await _log_in(web, login, self._credentials)
        return await asked(self._token)

    async def framed(self, document: Mapping[str, Any]) -> bytes:
        """Send one document to Whatsminer's framed API and return the reply. Raises as ``converse`` does."""
        return await converse(self.framed_address, document, self._deadlines)

    def _client(self, table: Table) -> WebClient:
        port = table.web_port if self._web_port == DEFAULT_WEB_PORT else self._web_port
        if self._web is None or self._web.address.port != port:
            self.forget()
            self._web = WebClient(Address(self._address.host, port), self._deadlines, self._credentials)
        return self._web


async def _log_in(web: WebClient, login: Login, credentials: Credentials) -> dict[str, str]:
    """Return the header that shows we are logged in."""
    reply = await web.request("POST", login.target, json=login.body(credentials))
    token = dig(reply.document(), login.token.split("."))
    if not isinstance(token, str) or not token:
        raise AccessDenied(
            f"{web.address}: {login.target} gives no token ({reply.status}); correct the password of its group"
        )
    return {login.header: f"{login.prefix}{token}"}


def _content(command: str, reply: WebReply) -> bytes:
    if reply.status in _UNKNOWN_PAGE:
        raise UnsupportedDevice(f"{command}: the firmware has no such page ({reply.status})")
    if not 200 <= reply.status < 300:
        raise Garbled(f"{command}: answered with {reply.status}; check what runs there")
    return reply.body
