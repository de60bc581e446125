"""Commands beside the policy: limit, pools, blink, password, reboot, firmware, logs.

    command --> a task a miner, stored --> its turn --> control.carry_out --keep--> begun, stored --> sent, read back
                                                              '--> result --> one ack, task ended (one transaction)

Invariants:

* A task is on disk before anything is sent, and marked begun right before: one that a kill cut short is taken up where
  it stands, and what is done once is looked at, never sent again. Each task ends with one ack.
* Of two commands that set the same thing on one miner the later signed one wins, in whatever order they arrive: what is
  left of the earlier is ended, and sent no more.
* Nothing begins after its command has expired, or while the clock is not to be trusted; what has begun is seen to its
  end.
* What takes load off (a reboot, new firmware) waits while a curtailment holds its miner off, takes at most the site's
  step off at once, and new firmware goes rack by rack: over all commands of it that are in force, one after another.
* A curtailment waits for none of this: at most ``_AT_ONCE`` tasks run, as a part of the agent of its own.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, NamedTuple, Protocol

from agent.cgminer.control.driver import Wanted
from agent.errors import AccessDenied, AgentError, Permanent, Refused, UnsupportedDevice
from agent.local_curtail import tasks
from agent.local_curtail.books import Books, Entry
from agent.local_curtail.chain import Chain, Kind, Note
from agent.local_curtail.evidence import SUPERSEDED, Verdict
from agent.local_curtail.ports import Orderable
from agent.local_curtail.ramp import SitePace
from agent.local_curtail.reach import Reach
from agent.local_curtail.records import MinerRecord, Phase
from agent.local_curtail.rules import SiteMiner, SiteRules
from agent.local_curtail.secrets import Secrets
from agent.local_curtail.site_time import SiteTime
from agent.local_curtail.staging import staged
from agent.local_curtail.tasks import Task
from agent.reasons import reason_of
from agent.storage import Writer
from sitelink.clock import Clock
from sitelink.types import ClockTrust, Command, Evidence, Outcome, Verb
from sitelink.verbs import DROPPING, SWITCHING

_LOG: Final = logging.getLogger(__name__)
_ROUND_S: Final = 2.0
_AT_ONCE: Final = 16
_RETRY_S: Final = (4.0, 60.0)
_EXPIRED: Final = Verdict(Outcome.EXPIRED, Evidence.NONE, "expired")
_HELD_BACK: Final = Verdict(Outcome.REFUSED, Evidence.NONE, "rack_before_failed")
_GONE: Final = Verdict(Outcome.REFUSED, Evidence.NONE, "not_in_inventory")
_NOT_ALLOWED: Final = Verdict(Outcome.REFUSED, Evidence.NONE, "verb_not_allowed")
_UNSUPPORTED: Final = Verdict(Outcome.REFUSED, Evidence.NONE, "unsupported")
_SETTINGS: Final = frozenset({Verb.LIMIT, Verb.POOLS, Verb.BLINK})
"""Of these only the last one ordered counts."""


class _Turn(NamedTuple):
    """Whose turn it is in one command of new firmware, and for whom it never comes."""

    now: frozenset[str]
    never: frozenset[str]


class _Wait(NamedTuple):
    """How often a task was tried in vain, and when it is due again."""

    tries: int
    due_s: float


class Files(Protocol):
    """The site's own files: firmware images put there by hand, and where logs go."""

    async def image(self, file: str, sha256: str) -> bytes:
        """Return a firmware image. Raises Refused when it is missing or another one."""
        ...

    async def keep_logs(self, miner_id: str, command_id: str, content: bytes) -> object:
        """Keep a miner's logs. Raises Transient when the disk takes nothing."""
        ...


class Orders:
    """Carries out the commands of every verb but stop and start."""

    def __init__(
        self,
        writer: Writer,
        books: Books,
        reach: Reach,
        files: Files,
        miners: Mapping[str, SiteMiner],
        rules: SiteRules,
        clock: Clock,
        site_time: SiteTime,
        secrets: Secrets,
        pace: SitePace,
        chain: Chain,
    ) -> None:
        """``pace`` is what all that switches load at this site shares."""
        self._pace = pace
        self._writer = writer
        self._chain = chain
        self._secrets = secrets
        self._books = books
        self._reach = reach
        self._files = files
        self._miners = miners
        self._rules = rules
        self._clock = clock
        self._site_time = site_time
        self._tasks: dict[tuple[str, str], Task] = {}
        self._in_flight: set[tuple[str, str]] = set()
        self._waits: dict[tuple[str, str], _Wait] = {}
        self._image: tuple[tuple[str, str], bytes] | None = None
        self._reading = asyncio.Lock()

    async def load(self) -> None:
        """Take up what an earlier process began."""
        self._tasks = await self._writer.run(lambda connection: tasks.take_over(connection, self._secrets))

    async def run(self, commands: Callable[[], tuple[Command, ...]]) -> None:
        """Carry out what ``commands`` gives, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    for task in await self.round(commands()):
                        self._in_flight.add(task.key)
                        group.create_task(self._work_on(task))
                except AgentError as error:
                    _LOG.warning("orders wait: %s", error)
                await asyncio.sleep(_ROUND_S)

    async def round(self, commands: tuple[Command, ...]) -> list[Task]:
        """Take in what is new, end what cannot begin any more, and return what to work on now.

        Raises:
            Transient: the journal cannot be written now.
        """
        await self._take(commands)
        now, trust = self._site_time.now()
        dated = trust is not ClockTrust.UNTRUSTED
        waiting = self._waiting()
        turns = self._turns(waiting)
        past = self._superseded(commands) if dated else frozenset()
        chosen: list[Task] = []
        for task in waiting:
            verdict = self._hopeless(task, turns.get(task.command_id))
            if verdict is None and dated and not task.begun and now >= task.expires_at:
                verdict = _EXPIRED
            if verdict is None and task.key in past:
                verdict = SUPERSEDED
            if verdict is not None:
                await self._end(task, verdict)
            elif (task.begun or (dated and task.not_before <= now)) and self._may_begin(task, chosen, turns):
                chosen.append(task)
                if task.verb in DROPPING:
                    load_w = self._miners[task.miner_id].load_w
                    self._pace.take(Verb.STOP, task.miner_id, load_w, self._clock.monotonic())
        return chosen

    async def _take(self, commands: tuple[Command, ...]) -> None:
        known = {command_id for command_id, _ in self._tasks}
        fresh = [command for command in commands if command.verb not in SWITCHING and command.command_id not in known]
        taken = [task for command in fresh for task in tasks.tasks_of(command)]
        if not taken:
            return
        now, _ = self._site_time.now()

        def work(connection: sqlite3.Connection) -> None:
            tasks.write(connection, taken, self._secrets)
            tasks.forget(connection, now)

        await self._writer.run(work)
        self._tasks = {key: task for key, task in self._tasks.items() if not tasks.is_stale(task, now)}
        self._tasks.update({task.key: task for task in taken})

    def _waiting(self) -> list[Task]:
        return [task for task in self._tasks.values() if task.outcome is None and task.key not in self._in_flight]

    def _superseded(self, commands: tuple[Command, ...]) -> frozenset[tuple[str, str]]:
        """Return the tasks whose setting a later command has given anew, or is about to."""
        now, _ = self._site_time.now()
        last: dict[tuple[str, Verb], tuple[int, int]] = {}
        settings = [command for command in commands if command.verb in _SETTINGS]
        for command in settings:
            number = (command.signing_epoch, command.sequence)
            for miner_id in command.miner_ids:
                task = self._tasks.get((command.command_id, miner_id))
                due = command.not_before <= now < command.expires_at
                if (due or (task is not None and task.begun)) and number > last.get((miner_id, command.verb), (-1, -1)):
                    last[miner_id, command.verb] = number
        return frozenset(
            (command.command_id, miner_id)
            for command in settings
            for miner_id in command.miner_ids
            if (command.signing_epoch, command.sequence) < last.get((miner_id, command.verb), (-1, -1))
        )

    def _turns(self, waiting: list[Task]) -> dict[str, _Turn]:
        """Return, for each command of new firmware with work left, whose turn it is: one command after another."""
        if not any(task.verb is Verb.FIRMWARE for task in waiting):
            return {}
        racks = {miner_id: miner.rack for miner_id, miner in self._miners.items()}
        commands: dict[str, list[Task]] = {}
        for task in sorted(self._tasks.values(), key=lambda one: (one.not_before, one.command_id, one.place)):
            if task.verb is Verb.FIRMWARE:
                commands.setdefault(task.command_id, []).append(task)
        turns: dict[str, _Turn] = {}
        before: list[Task] = []
        for command_id, own in commands.items():
            turns[command_id] = _turn_of(own, before, racks)
            before += own
        return turns

    def _hopeless(self, task: Task, turn: _Turn | None) -> Verdict | None:
        """Return the verdict on a task that can never begin."""
        if task.miner_id not in self._miners or task.miner_id in self._rules.never_touch:
            return _GONE
        if task.verb not in self._rules.allowed_verbs and not task.begun:
            return _NOT_ALLOWED
        if not isinstance(self._reach.control(task.miner_id), Orderable):
            return _UNSUPPORTED
        if turn is not None and task.miner_id in turn.never:
            return _HELD_BACK
        return None

    def _may_begin(self, task: Task, chosen: list[Task], turns: Mapping[str, _Turn]) -> bool:
        wait, turn = self._waits.get(task.key), turns.get(task.command_id)
        if len(self._in_flight) + len(chosen) >= _AT_ONCE:
            return False
        if wait is not None and self._clock.monotonic() < wait.due_s:
            return False
        busy = {miner_id for _, miner_id in self._in_flight} | {other.miner_id for other in chosen}
        if task.miner_id in busy:
            return False
        if task.verb is Verb.LOGS and self._is_being_switched(task.miner_id):
            return False  # a log would give way to it, and hide what it comes to
        if task.verb not in DROPPING:
            return True
        if turn is not None and task.miner_id not in turn.now:
            return False
        return not self._is_curtailed(task.miner_id) and self._step_allows(task, chosen)

    def _step_allows(self, task: Task, chosen: list[Task]) -> bool:
        """Return whether the site's pace has room for one more miner without load."""
        if not self._pace.fits(Verb.STOP, self._miners[task.miner_id].load_w, self._clock.monotonic()):
            return False
        dropping = [self._tasks[key] for key in self._in_flight] + chosen
        off_w = sum(self._miners[other.miner_id].load_w for other in dropping if other.verb in DROPPING)
        load_w = self._miners[task.miner_id].load_w
        return not off_w or all(off_w + load_w <= limit.step_w for limit in self._rules.pace.ramps)

    def _is_curtailed(self, miner_id: str) -> bool:
        record = self._books.miners.get(miner_id)
        return record is not None and record.verb is Verb.STOP

    def _is_being_switched(self, miner_id: str) -> bool:
        record = self._books.miners.get(miner_id)
        return record is not None and record.phase is Phase.SENT and record.outcome is None

    async def _work_on(self, task: Task) -> None:
        try:
            verdict = await self._carried_out(task)
        except AgentError as error:
            _LOG.info("%s of %s waits: %s", task.verb.value, task.miner_id, error)
            self._wait_longer(task)
        except Exception:  # noqa: BLE001 - the supervisor of these tasks: one miner must not end the others
            _LOG.exception("%s of %s failed on a defect of ours; it is tried again", task.verb.value, task.miner_id)
            self._wait_longer(task)
        else:
            await self._ended(task, verdict)
        finally:
            self._in_flight.discard(task.key)

    def _wait_longer(self, task: Task) -> None:
        first_s, slowest_s = _RETRY_S
        before = self._waits.get(task.key)
        tries = 0 if before is None else before.tries
        wait_s = min(slowest_s, first_s * 2.0 ** min(tries, 10))
        self._waits[task.key] = _Wait(tries + 1, self._clock.monotonic() + wait_s)

    async def _carried_out(self, task: Task) -> Verdict:
        """Carry the task out and return how it ended. Raises Transient when it is to be tried again."""
        control = self._reach.control(task.miner_id)
        assert isinstance(control, Orderable)

        async def keep(former: str) -> None:
            await self._begin(replace(self._tasks[task.key], begun=True, kept=former))

        try:
            result = await control.carry_out(await self._wanted(task), keep, kept=task.kept)
        except Refused as refusal:
            return Verdict(Outcome.REFUSED, Evidence.NONE, refusal.code, detail=str(refusal))
        except AccessDenied as error:
            return Verdict(Outcome.REFUSED, Evidence.NONE, "access_denied", detail=str(error))
        except UnsupportedDevice as error:
            return replace(_UNSUPPORTED, detail=str(error))
        except Permanent as error:
            return Verdict(Outcome.REFUSED, Evidence.NONE, reason_of(error).value, detail=str(error))
        if result.content:
            await self._files.keep_logs(task.miner_id, task.command_id, result.content)
        return Verdict(result.outcome, result.evidence, result.reason, detail=result.detail)

    async def _wanted(self, task: Task) -> Wanted:
        """Return what is asked of the miner. Raises Refused when the site has no such firmware image."""
        parameters = dict(task.parameters)
        if task.verb is not Verb.FIRMWARE:
            return Wanted(task.verb, parameters)
        return Wanted(task.verb, parameters, image=await self._image_of(parameters["file"], parameters["sha256"]))

    async def _image_of(self, file: str, sha256: str) -> bytes:
        """Return the image, read once for all who are given it at a time."""
        async with self._reading:
            if self._image is None or self._image[0] != (file, sha256):
                self._image = ((file, sha256), await self._files.image(file, sha256))
            return self._image[1]

    async def _ended(self, task: Task, verdict: Verdict) -> None:
        try:
            await self._end(self._tasks[task.key], verdict)
        except AgentError as error:
            # The ack is owed: the device shows what it shows, so the next round comes to the same end.
            _LOG.warning("the end of %s of %s could not be kept: %s", task.verb.value, task.miner_id, error)
            self._wait_longer(task)

    async def _end(self, task: Task, verdict: Verdict) -> None:
        now, _ = self._site_time.now()
        record = MinerRecord(task.miner_id, task.verb, task.command_id, 0, "command")
        ended = task.ended(verdict.outcome, now)
        await self._books.apply(lambda: Entry(acks=[(record, verdict)], tasks=[ended]))
        self._tasks[task.key] = ended
        self._waits.pop(task.key, None)
        if not any(open_.verb is Verb.FIRMWARE for open_ in self._tasks.values() if open_.outcome is None):
            self._image = None

    async def _begin(self, task: Task) -> None:
        now, trust = self._site_time.now()
        intent = Note(now, trust, Kind.TASK_INTENT, task.miner_id, f"{task.verb.value} under {task.command_id}")

        def work(connection: sqlite3.Connection) -> None:
            tasks.write(connection, [task], self._secrets)
            self._chain.append(connection, [intent])

        await self._writer.run(work)
        self._tasks[task.key] = task


def _turn_of(own: list[Task], before: list[Task], racks: Mapping[str, str]) -> _Turn:
    """Return whose turn it is in one command of new firmware, given all commands ``before`` it at this site.

    It waits for these, and ends where one of them failed since it came into force: whoever gave it did not know that.
    """
    begun = frozenset(task.miner_id for task in own if task.begun and task.outcome is None)
    if any(task.outcome is None for task in before):
        return _Turn(begun, frozenset())
    since = own[0].not_before
    failed = [task for task in before if task.outcome is not Outcome.COMPLETE]
    if any(task.ended_at is not None and task.ended_at >= since for task in failed):
        return _Turn(begun, frozenset(task.miner_id for task in own if task.outcome is None) - begun)
    ended = {task.miner_id: task.outcome for task in own if task.outcome is not None}
    turn = staged([task.miner_id for task in own], racks, ended)
    return _Turn(frozenset(turn.now) | begun, frozenset(turn.never))
