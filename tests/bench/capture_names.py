"""Which dialect a captured case is read by, and which of its table's commands each captured reply answers.

The sources name replies in their own ways (``web_get_system_info``, ``gql_boards``, ``miner_hw_hashboards``,
``/cgi-bin/get_miner_conf.cgi``, ``get_miner_status_summary``). A reply is matched with the command of the same words
over the same wire, prefixes of paths aside. One that the table never asks keeps its own name.
"""

import re
from collections.abc import Collection, Iterable

from agent.cgminer.dialects import table_of
from agent.cgminer.dialects.table import Table

RPC, WEB, FRAMED = "rpc4028", "http", "tcp4433-v3"

DIALECTS = {
    "antminer-stock": "antminer",
    "auradine": "auradine",
    "avalon-cgminer": "avalon",
    "bitaxe": "bitaxe",
    "blackminer": "blackminer",
    "braiins": "braiins",
    "braiins-bosplus": "braiins",
    "elphapex": "elphapex",
    "epic": "epic",
    "goldshell": "goldshell",
    "hammer": "hammer",
    "hiveon": "hiveon",
    "innosilicon-cgminer": "innosilicon",
    "luxos": "luxos",
    "mskminer": "mskminer",
    "obelisk": "obelisk",
    "vnish": "vnish",
    "whatsminer-btminer": "whatsminer",
}
"""What an operator would write into the inventory; ``auto`` for the others."""

BY_REPLY = {
    ("antminer-stock", "get_miner_status"): "antminer-web",
    ("blackminer", "/cgi-bin/get_miner_status.cgi"): "antminer-web",
    ("braiins", "miner_stats"): "braiins-rest",
}
"""Another dialect where a case has this reply: the version or the wire differs within one family."""

_PATH_PREFIX = re.compile(r"^/(?:api/v1/|cgi-bin/|api/)?")
_SOURCE_PREFIX = re.compile(r"^(?:rpc|web|gql|avalon_a)[_-]")
_DAMAGED = "_with_errors"


def dialect_of(firmware: str, commands: Collection[str], transports: Collection[str]) -> str:
    """Return the dialect for a case of ``firmware`` that has these replies."""
    if FRAMED in transports:
        return "whatsminer-v3"
    for (family, command), dialect in BY_REPLY.items():
        if family == firmware and command in commands:
            return dialect
    return DIALECTS.get(firmware, "auto")


def asked_by(table: Table) -> tuple[str, ...]:
    """Return every command that a table asks."""
    return table.commands.every


def command_of(dialect: str, transport: str, captured: str) -> str:
    """Return the command of the dialect's table that a captured reply answers, else a name of the same wire for it."""
    said = captured.removesuffix(_DAMAGED)
    words = _words(_SOURCE_PREFIX.sub("", said))
    candidates = [command for command in asked_by(table_of(dialect)) if _wire(command) == transport]
    named = (words, f"get{words}")
    found = next((command for command in _in_kind(candidates, captured) if _words(command) in named), None)
    return found or _own_name(transport, said)


def _in_kind(candidates: Iterable[str], captured: str) -> list[str]:
    """Return the candidates, of HTTP only the queries or only the pages, as the captured name says."""
    queries = captured.startswith("gql_")
    return [command for command in candidates if command.startswith("gql:") == queries or not command.startswith("/")]


def _wire(command: str) -> str:
    if command.startswith("v3:"):
        return FRAMED
    return WEB if command.startswith(("/", "gql:")) else RPC


def _words(command: str) -> str:
    """Return the letters and digits of a command that tell it from others, without where pages lie and their queries."""
    bare = _PATH_PREFIX.sub("", command).partition("?")[0]
    return re.sub(r"[^a-z0-9]", "", re.sub(r"^(?:gql|v3):|\.cgi$", "", bare).lower())


def _own_name(transport: str, said: str) -> str:
    if transport == RPC:
        return said
    if transport == FRAMED:
        return f"v3:{said}"
    return said if said.startswith("/") else f"/{said}"
