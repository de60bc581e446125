"""Orders that are done once: reboots.

    row stored (with the miner's uptime) --> sent once --> uptime fell --> COMPLETE
                                                 '-- not by the deadline --> UNVERIFIED outcome_unknown

Invariants: the row is durable before the reboot is sent; a row that exists is never sent again, whatever became of the
first time: the device's uptime tells. Each (command, miner) ends with one ack.
"""

import sqlite3
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from agent.errors import AgentError, Refused, Transient
from agent.local_curtail.books import Books, Entry
from agent.local_curtail.evidence import UNREACHABLE, Verdict
from agent.local_curtail.moments import microseconds, moment_of
from agent.local_curtail.ports import Rebooter
from agent.local_curtail.reach import Reach
from agent.local_curtail.records import MinerRecord
from agent.local_curtail.site_time import SiteTime
from agent.storage import Writer
from sitelink.types import Command, Evidence, Outcome, Verb

_DEADLINE_S: Final = 300.0
_SLACK_S: Final = 5
_DONE: Final = Verdict(Outcome.COMPLETE, Evidence.DEVICE_STATE, "uptime_reset")
_UNKNOWN: Final = Verdict(Outcome.UNVERIFIED, Evidence.DEVICE_STATE, "outcome_unknown")
_UNSUPPORTED: Final = Verdict(Outcome.REFUSED, Evidence.NONE, "unsupported")
_EXPIRED: Final = Verdict(Outcome.EXPIRED, Evidence.NONE, "expired")


@dataclass(frozen=True, slots=True)
class _Shot:
    command_id: str
    miner_id: str
    sent_at: datetime
    uptime_s: int | None
    done: bool


class OneShots:
    """Carries out reboot commands, each at most once."""

    def __init__(self, writer: Writer, books: Books, reach: Reach, site_time: SiteTime) -> None:
        self._writer = writer
        self._books = books
        self._reach = reach
        self._site_time = site_time
        self._shots: dict[tuple[str, str], _Shot] = {}

    async def load(self) -> None:
        """Take up what an earlier process began."""
        self._shots = await self._writer.run(_read)

    async def round(self, commands: tuple[Command, ...]) -> None:
        """Bring each reboot among ``commands`` one step further.

        Raises:
            Transient: the journal cannot be written now.
        """
        now, _ = self._site_time.now()
        for command in commands:
            if command.verb is Verb.REBOOT and command.not_before <= now:
                for miner_id in command.miner_ids:
                    await self._step(command, miner_id, now)

    async def _step(self, command: Command, miner_id: str, now: datetime) -> None:
        shot = self._shots.get((command.command_id, miner_id))
        if shot is None and now >= command.expires_at:
            await self._finish(_Shot(command.command_id, miner_id, now, None, False), _EXPIRED)
        elif shot is None:
            await self._shoot(command.command_id, miner_id, now)
        elif not shot.done:
            await self._look(shot, now)

    async def _shoot(self, command_id: str, miner_id: str, now: datetime) -> None:
        control = self._reach.control(miner_id)
        shot = _Shot(command_id, miner_id, now, None, False)
        if not isinstance(control, Rebooter):
            await self._finish(shot, _UNSUPPORTED)
            return
        try:
            uptime_s = (await self._reach.observe(miner_id)).uptime_s
        except AgentError:
            return  # nothing is sent to a device that cannot be read; tried until the command expires
        shot = _Shot(command_id, miner_id, now, uptime_s, False)
        await self._store(shot)
        try:
            await control.reboot()
        except Refused as refusal:
            await self._finish(shot, Verdict(Outcome.REFUSED, Evidence.NONE, refusal.code))
        except Transient:
            return  # it may have arrived: the uptime will tell
        except AgentError:
            await self._finish(shot, _UNSUPPORTED)

    async def _look(self, shot: _Shot, now: datetime) -> None:
        passed_s = (now - shot.sent_at).total_seconds()
        try:
            uptime_s = (await self._reach.observe(shot.miner_id)).uptime_s
        except AgentError:
            if passed_s >= _DEADLINE_S:
                await self._finish(shot, UNREACHABLE)
            return
        if uptime_s is not None and uptime_s <= passed_s + _SLACK_S and uptime_s < (shot.uptime_s or uptime_s + 1):
            await self._finish(shot, _DONE)
        elif passed_s >= _DEADLINE_S:
            await self._finish(shot, _UNKNOWN)

    async def _finish(self, shot: _Shot, verdict: Verdict) -> None:
        record = MinerRecord(shot.miner_id, Verb.REBOOT, shot.command_id, 0, "command")
        await self._books.apply(lambda: Entry(acks=[(record, verdict)]))
        await self._store(_Shot(shot.command_id, shot.miner_id, shot.sent_at, shot.uptime_s, True))

    async def _store(self, shot: _Shot) -> None:
        await self._writer.run(lambda connection: _write(connection, shot))
        self._shots[shot.command_id, shot.miner_id] = shot


def _write(connection: sqlite3.Connection, shot: _Shot) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO curtail_one_shots (command_id, miner_id, sent_at_us, uptime_s, done)"
        " VALUES (?, ?, ?, ?, ?)",
        (shot.command_id, shot.miner_id, microseconds(shot.sent_at), shot.uptime_s, int(shot.done)),
    )


def _read(connection: sqlite3.Connection) -> dict[tuple[str, str], _Shot]:
    rows = connection.execute("SELECT command_id, miner_id, sent_at_us, uptime_s, done FROM curtail_one_shots")
    return {(row[0], row[1]): _Shot(row[0], row[1], moment_of(row[2]), row[3], bool(row[4])) for row in rows}
