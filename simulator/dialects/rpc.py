"""The CGMiner RPC that every firmware shares: requests in JSON or plain text, status heads, ``a+b`` requests.

Invariant: a dialect answers every request with some document; it never raises and never stays silent.

      {"command":"summary"}  ->  {"STATUS":[{..}],"SUMMARY":[{..}],"id":1}
      summary                ->  STATUS=S,When=..,Code=11,Msg=..|SUMMARY,Elapsed=..|
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from simulator.faults import as_json
from simulator.kept import Pool
from simulator.miner import Miner, Snapshot

Row = dict[str, Any]
_SHARE_DIFFICULTY = 262144.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came in. ``fields`` is the whole JSON object, empty for plain text."""

    command: str
    parameter: str = ""
    is_json: bool = True
    fields: Mapping[str, Any] = field(default_factory=dict)
    client: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Section:
    """One command's answer: status code and message, the name of its list, and the list."""

    code: int
    message: str
    name: str = ""
    rows: tuple[Any, ...] = ()
    letter: str = "S"
    more: Mapping[str, Any] = field(default_factory=dict)


class Malformed(ValueError):
    """A request that is JSON and yet not a request; carries code and message of the refusal."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def parse_request(data: bytes, client: str) -> Request:
    """Return the request in ``data`` (one whole request, terminators allowed).

    Raises:
        Malformed: invalid JSON (code 23) or no command in it (code 24).
    """
    text = data.decode("utf-8", "replace").strip("\x00\r\n\t ")
    if not text.startswith("{"):
        command, _, parameter = text.partition("|")
        return Request(command.strip(), parameter, is_json=False, client=client)
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise Malformed(23, "Invalid JSON") from None
    command = fields.get("command", fields.get("cmd"))
    if fields.get("enc"):
        command = "enc"
    if not isinstance(command, str):
        raise Malformed(24, "Missing JSON 'command'")
    parameter = fields.get("parameter", fields.get("param", ""))
    return Request(command, parameter if isinstance(parameter, str) else json.dumps(parameter), True, fields, client)


class Dialect:
    """What the firmwares have in common. A subclass fills ``tables`` and overrides ``control``.

    ``privileged`` commands exist and are refused with code 45. ``joins`` are the commands that may stand in ``a+b``.
    """

    name = ""
    description = "cgminer 4.11.1"
    terminator = b"\x00"
    joins: frozenset[str] = frozenset()
    privileged: frozenset[str] = frozenset({"restart", "quit", "addpool", "switchpool", "save"})
    tables: Mapping[str, Callable[[Miner, Snapshot], Section]] = {}

    def answer(self, miner: Miner, data: bytes, client: str) -> bytes:
        """Return the whole reply to the request in ``data``, without terminator."""
        try:
            request = parse_request(data, client)
        except Malformed as fault:
            return as_json(self.document(miner, Section(fault.code, fault.message, letter="E")))
        if "+" in request.command and request.is_json:
            return as_json(self.joined(miner, request))
        section = self.section(miner, request)
        if isinstance(section, Section):
            return as_json(self.document(miner, section)) if request.is_json else self.text(miner, section)
        return as_json(section)

    def image(self, miner: Miner, image: bytes) -> bytes:  # noqa: ARG002 - for subclasses
        """Return the answer to a firmware image; one that nobody announced is no request."""
        return as_json(self.document(miner, Section(23, "Invalid JSON", letter="E")))

    def section(self, miner: Miner, request: Request) -> Section | Row:
        """Return the answer to one command: a section, or a whole document where the firmware has its own form."""
        controlled = self.control(miner, request)
        if controlled is not None:
            return controlled
        table = self.tables.get(request.command)
        if table is not None:
            return table(miner, miner.snapshot())
        if request.command in self.privileged:
            return Section(45, f"Access denied to '{request.command}' command", letter="E")
        return Section(14, "Invalid command", letter="E")

    def control(self, miner: Miner, request: Request) -> Section | Row | None:  # noqa: ARG002 - for subclasses
        """Return the answer to a command that changes something; None when it is no such command."""
        return None

    def joined(self, miner: Miner, request: Request) -> Row:
        """Return the answer to ``a+b+c``: each command's document in a list of one, under the command's name."""
        names = request.command.split("+")
        if any(name not in self.joins for name in names):
            return self.document(miner, Section(14, "Invalid command", letter="E"))
        snapshot = miner.snapshot()
        documents: Row = {name: [self.document(miner, self.tables[name](miner, snapshot))] for name in names}
        return {**documents, "id": 1}

    def document(self, miner: Miner, section: Section) -> Row:
        """Return ``section`` with its status head."""
        body: Row = {section.name: list(section.rows)} if section.name else {}
        return {"STATUS": [self.status(miner, section)], **body, **section.more, "id": 1}

    def status(self, miner: Miner, section: Section) -> Row:
        """Return the status head of ``section``."""
        return {
            "STATUS": section.letter,
            "When": miner.device_time(),
            "Code": section.code,
            "Msg": section.message,
            "Description": self.description,
        }

    def text(self, miner: Miner, section: Section) -> bytes:
        """Return ``section`` in CGMiner's plain text form."""
        parts = [",".join(f"{name}={value}" for name, value in self.status(miner, section).items())]
        for number, row in enumerate(section.rows):
            fields = row.items() if isinstance(row, dict) else ((section.name, row),)
            head = section.name if section.name in {"SUMMARY", "VERSION", "CONFIG"} else f"{section.name}={number}"
            parts.append(",".join([head, *(f"{name}={value}" for name, value in fields)]))
        return ("|".join(parts) + "|").encode()


def work_counts(
    now: Snapshot, *, hardware_errors: int, network_blocks: int = 68, getworks: str = "Getworks", local_works: int = 31
) -> Row:
    """Return what a SUMMARY counts of work and shares, in the order of CGMiner's own.

    ``getworks`` is the name that the firmware gives that count: stock Antminers write ``Getwork`` in their SUMMARY, and
    ``Getworks`` in POOLS as everybody does. ``local_works`` are counted a share. Source: replies of real devices.
    """
    return {
        "Found Blocks": 0,
        getworks: now.accepted // 3,
        "Accepted": now.accepted,
        "Rejected": now.rejected,
        "Hardware Errors": hardware_errors,
        "Utility": round(now.accepted / max(now.elapsed_s, 1) * 60, 2),
        "Discarded": 0,
        "Stale": 0,
        "Get Failures": 0,
        "Local Work": now.accepted * local_works,
        "Remote Failures": 0,
        "Network Blocks": network_blocks,
    }


def difficulties(now: Snapshot) -> Row:
    """Return the shares' summed difficulty, as a SUMMARY tells it."""
    return {
        "Difficulty Accepted": now.accepted * _SHARE_DIFFICULTY,
        "Difficulty Rejected": now.rejected * _SHARE_DIFFICULTY,
        "Difficulty Stale": 0.0,
    }


def pool_rows(miner: Miner, snapshot: Snapshot) -> tuple[Row, ...]:
    """Return the pools that ``miner`` keeps, the first in use, in the form that CGMiner 4.x firmwares share."""
    active = miner.kept.active_pool
    return tuple(
        _pool(snapshot, pool, number, active=number == active, priority=0 if number == active else number + 1)
        for number, pool in enumerate(miner.kept.pools)
    )


def _pool(snapshot: Snapshot, pool: Pool, number: int, *, active: bool, priority: int) -> Row:
    accepted, rejected = (snapshot.accepted, snapshot.rejected) if active else (0, 0)
    host = pool.url.rpartition("://")[2].rpartition(":")[0]
    return {
        "POOL": number,
        "URL": pool.url,
        "Status": "Alive",
        "Priority": priority,
        "Quota": 1,
        "Long Poll": "N",
        "Getworks": accepted // 3,
        "Accepted": accepted,
        "Rejected": rejected,
        "Discarded": 0,
        "Stale": 0,
        "Get Failures": 0,
        "Remote Failures": 0,
        "User": pool.user,
        "Last Share Time": snapshot.when - 4 if active else 0,
        "Diff1 Shares": 0,
        "Proxy Type": "",
        "Proxy": "",
        "Difficulty Accepted": accepted * _SHARE_DIFFICULTY,
        "Difficulty Rejected": rejected * _SHARE_DIFFICULTY,
        "Difficulty Stale": 0.0,
        "Last Share Difficulty": _SHARE_DIFFICULTY if active else 0.0,
        "Has Stratum": True,
        "Stratum Active": active,
        "Stratum URL": host if active else "",
        "Has GBT": False,
        "Best Share": accepted * 7919 % 2**31,
        "Pool Rejected%": round(100 * rejected / max(accepted + rejected, 1), 4),
        "Pool Stale%": 0.0,
    }
