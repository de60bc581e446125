"""What one device says, for a person: every figure with where it stands in which reply, and what had to be repaired."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from agent.cgminer.client import Address, Deadlines
from agent.cgminer.conversation import Conversation
from agent.cgminer.credentials import Credentials
from agent.cgminer.dialects import table_of
from agent.cgminer.identification import find_dialect
from agent.cgminer.observation import Observation
from agent.cgminer.repair import decode
from agent.cgminer.replies import interpret
from agent.cgminer.sections import Row, Sections
from agent.cgminer.wires import Wires
from agent.errors import AgentError, Garbled, TimedOut, Transient
from sitelink.miners import AUTO, WEB_PORT

_QUOTED_BYTES: Final = 40
_UNITS: Final = {
    "_ths": "TH/s",
    "_w": "W",
    "_temps_c": "C",
    "_temp_c": "C",
    "_rpm": "rpm",
    "_percent": "%",
    "_s": "s",
}


@dataclass(frozen=True, slots=True)
class Probe:
    """One device: what it said, what that means, where each figure stands, and what failed.

    ``stranger`` says what answers there when it is no miner, None when it is one.
    """

    address: Address
    observation: Observation
    replies: dict[str, bytes]
    sources: dict[str, str]
    failures: dict[str, str]
    stranger: str | None = None


async def probe(
    address: Address,
    dialect: str,
    deadlines: Deadlines,
    *,
    web_port: int = WEB_PORT,
    credentials: Credentials | None = None,
) -> Probe:
    """Ask one device everything its dialect knows, one command at a time, whichever wire each takes.

    Who it is shows within one exchange's whole deadline, over all wires together; what it knows may take longer.

    Raises:
        AgentError: it does not answer at all, or not in time.
    """
    asked = _Asked(Wires(address, deadlines, web_port, credentials))
    try:
        async with asyncio.timeout(deadlines.total_s) as patience:
            if dialect == AUTO:
                dialect = (await find_dialect(asked.tell)).dialect
            commands = table_of(dialect).commands
            for command in (*commands.poll, *commands.every):
                await asked.ask(command, table_of(dialect))
                if asked.silence is not None:
                    raise asked.silence
                if asked.replies:
                    patience.reschedule(None)  # it answers: what else it knows may take its time
    except TimeoutError:
        lacks = "no firmware showed itself" if asked.replies else "no whole reply"
        raise TimedOut(f"{address}: {lacks} within {deadlines.total_s:g} s; check what runs there") from None
    except Transient as error:
        raise type(error)(_once(error)) from None
    finally:
        asked.wires.forget()
    sections = _Watched()
    sections.denied = asked.is_closed(table_of(dialect))
    failures = {command: _once(error) for command, error in asked.errors.items()}
    for command, reply in asked.replies.items():
        sections.take(command, reply)
    sources = _sources(dialect, sections)
    stranger = None if sections.statuses or sources else _stranger(address, asked.replies, failures)
    return Probe(address, interpret(dialect, sections), asked.replies, sources, failures, stranger)


class _Asked(Conversation):
    """What was asked of one device, and whether it said anything at all."""

    @property
    def silence(self) -> AgentError | None:
        """Return the first error when nothing but silence came."""
        if self.replies or not all(isinstance(error, Transient) for error in self.errors.values()):
            return None
        return next(iter(self.errors.values()), None)


def as_table(found: Probe) -> str:
    """Return the probe as lines for a terminal."""
    rows = [("field", "value", "source")]
    for field in fields(found.observation):
        value = _text(field.name, getattr(found.observation, field.name))
        if value and field.name != "repaired":
            rows.append((field.name, value, found.sources.get(field.name, "")))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"{found.address} answers as {found.observation.dialect}"]
    lines += [f"  {name:<{widths[0]}}  {value:<{widths[1]}}  {source}".rstrip() for name, value, source in rows]
    lines.append(f"  repaired: {', '.join(found.observation.repaired) or 'nothing, every reply was valid JSON'}")
    lines += [f"  {command}: no reply: {error}" for command, error in found.failures.items()]
    return "\n".join(lines)


def as_json(found: Probe, *, raw: bool) -> str:
    """Return the probe as one JSON object; unknown figures are null."""
    document: dict[str, Any] = {
        "address": str(found.address),
        "observation": {field.name: getattr(found.observation, field.name) for field in fields(found.observation)},
        "sources": found.sources,
        "failures": found.failures,
    }
    if raw:
        document["replies"] = {command: reply.decode("utf-8", "replace") for command, reply in found.replies.items()}
    return json.dumps(document, default=datetime.isoformat, indent=1)


def raw_replies(found: Probe) -> str:
    """Return the replies as they came, each under its command."""
    return "\n".join(f"--- {name}\n{reply.decode('utf-8', 'replace')}" for name, reply in found.replies.items())


def _stranger(address: Address, replies: dict[str, bytes], failures: dict[str, str]) -> str:
    """Return what answers at ``address`` when no reply has a status, as every miner's has, nor any figure."""
    if not replies:
        return next(iter(failures.values()))
    start = next(iter(replies.values()))[:_QUOTED_BYTES]
    return f"{address}: no miner's API answers there but {repr(start)[1:]}; check the address and port"


def _once(error: AgentError) -> str:
    """Return the error's words for a probe: what the poller tries again, a person has to."""
    return str(error).replace("it is tried again", "try again")


class _Watched(Sections):
    """Sections that remember where was looked first, and which command answered each."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_at: list[str] = []
        self._answered_by: dict[str, str] = {}

    def take(self, command: str, reply: bytes) -> None:
        try:
            decoded = decode(reply)
        except Garbled:
            self.garbled = True
            return
        before = set(self._rows)
        self.add(decoded, command)
        for section in set(self._rows) - before:
            self._answered_by[section] = command

    def find(self, section: str, key: str) -> Any:
        value = super().find(section, key)
        if value is not None:
            self.looked_at.append(f"{self._where(section)} {key!r}")
        return value

    def at(self, section: str, path: Sequence[str]) -> Any:
        value = super().at(section, path)
        if value is not None:
            self.looked_at[-1:] = [f"{self._where(section)} {'.'.join(path)!r}"]  # more exactly than its rows
        return value

    def rows(self, section: str) -> list[Row]:
        rows = super().rows(section)
        if rows:
            self.looked_at.append(self._where(section))
        return rows

    def _where(self, section: str) -> str:
        command = self._answered_by.get(section, section)
        return command if command == section else f"{command}: {section}"


def _sources(dialect: str, sections: _Watched) -> dict[str, str]:
    table = table_of(dialect)
    found: dict[str, str] = {}
    for name, readers in table.fields.items():
        for reader in readers:
            sections.looked_at.clear()
            if reader(sections) is not None:
                found[name] = sections.looked_at[0] if sections.looked_at else ""
                break
    sections.looked_at.clear()
    sensors = table.sensors(sections)
    seen = ", ".join(dict.fromkeys(place for place in sections.looked_at if "'" not in place))
    found |= {name: seen for name, value in sensors._asdict().items() if value}
    if "power_w" in found:
        found["power_source"] = f"how {dialect} firmware comes by its power figure"
    return found


def _text(name: str, value: object) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple):
        value = ", ".join(_text("", item) for item in value)
    elif isinstance(value, float):
        value = f"{value:,.2f}".rstrip("0").rstrip(".")
    unit = next((unit for ending, unit in _UNITS.items() if name.endswith(ending)), "")
    return f"{value} {unit}".rstrip()
