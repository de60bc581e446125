"""The durable inbox of signed orders. Nothing is acted on before it is stored here.

    Envelope --> signature (KeyRing) --> form --> admission (site, agent, number, expiry, release, miners)
       --> one transaction: order + PLAN_ACCEPTED notice          --> the policy sees it
       --> or: refusal counted + PLAN_REFUSED notice; the plan in force stays

Invariants: an accepted order and its notice commit together; the same order twice is taken once and silently; a
refused one is answered once, however often it comes to one process, and a flood of them in one line an hour.
Acceptance is decided inside the transaction, so two orders arriving together are judged one after the other.
"""

import logging
import sqlite3
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from agent.errors import Refused
from agent.local_curtail import inbox, numbers
from agent.local_curtail.admission import Arrival, admit_command, admit_plan
from agent.local_curtail.ports import Outbox
from agent.local_curtail.refusals import Telling
from agent.local_curtail.rules import SiteMiner, SiteRules
from agent.local_curtail.secrets import Secrets
from agent.local_curtail.site_time import SiteTime
from agent.storage import Writer, uninterrupted
from sitelink.orders import MalformedOrder, read_command, read_plan
from sitelink.signing import BadSignature, KeyRing
from sitelink.types import BatchBody, ClockTrust, Command, Domain, Envelope, Notice, NoticeCode, OrderNumber, SitePlan

_LOG: Final = logging.getLogger(__name__)
_LINGER: Final = timedelta(minutes=10)


class Journal:
    """The orders this site has accepted. ``accept`` is the forwarder's OrderInbox."""

    def __init__(
        self,
        writer: Writer,
        outbox: Outbox,
        site_time: SiteTime,
        ids: Callable[[], str],
        rules: SiteRules,
        miners: Mapping[str, SiteMiner],
        keys: KeyRing,
        on_change: Callable[[], None],
        secrets: Secrets,
    ) -> None:
        self._writer = writer
        self._outbox = outbox
        self._site_time = site_time
        self._ids = ids
        self._rules = rules
        self._miners = miners
        self._keys = keys
        self._on_change = on_change
        self._secrets = secrets
        self._plan: SitePlan | None = None
        self._commands: tuple[Command, ...] = ()
        self._taken = numbers.Taken()
        self._telling = Telling()

    @property
    def plan(self) -> SitePlan | None:
        """Return the plan in force."""
        return self._plan

    @property
    def plan_revision(self) -> int:
        """Return the revision of the plan in force, 0 without one."""
        return 0 if self._plan is None else self._plan.revision

    @property
    def taken(self) -> numbers.Taken:
        """Return the highest number of any order taken, as it is on disk."""
        return self._taken

    @property
    def commands(self) -> tuple[Command, ...]:
        """Return the commands kept, oldest first; some may not be valid yet, or no longer."""
        return self._commands

    async def load(self) -> None:
        """Take up what an earlier process accepted."""
        held, commands, self._taken = await self._writer.run(
            lambda db: (inbox.held_plan(db), self._kept(db), numbers.taken(db))
        )
        self._plan = None if held is None else read_plan(held.payload)
        self._commands = commands

    def _kept(self, connection: sqlite3.Connection) -> tuple[Command, ...]:
        payloads = inbox.commands(connection, self._secrets)
        found = tuple(read_command(payload) for payload in payloads)
        inbox.seal_commands(connection, zip(found, payloads, strict=True), self._secrets)
        return found

    async def accept(self, envelope: Envelope) -> None:
        """Take a PLAN or COMMAND envelope, durably, or refuse it with a notice. The same one may come many times.

        A caller cancelled meanwhile, as by a link that breaks, still leaves it taken whole or not at all.

        Raises:
            Transient: the journal cannot be written now; nothing was taken.
        """
        await uninterrupted(self._accept(envelope))

    async def _accept(self, envelope: Envelope) -> None:
        try:
            payload = self._keys.open(envelope, Domain(envelope.domain))
            if envelope.domain is Domain.PLAN:
                await self._accept_plan(envelope, payload)
            elif envelope.domain is Domain.COMMAND:
                await self._accept_command(envelope, payload)
        except BadSignature as error:
            await self._refuse(envelope, "", Refused("bad_signature", str(error)))
        except MalformedOrder as error:
            await self._refuse(envelope, "", Refused("malformed", str(error)))

    async def refusals(self) -> dict[str, int]:
        """Return how often each refusal code was given."""
        return await self._writer.run(inbox.refusals)

    async def drop_expired_commands(self) -> None:
        """Forget commands whose time has long passed; those done once are judged until then."""
        now, trust = self._site_time.now()
        await self._tell_owed(now)
        expired = [command for command in self._commands if now - command.expires_at >= _LINGER]
        if not expired or trust is ClockTrust.UNTRUSTED:
            return

        def work(connection: sqlite3.Connection) -> numbers.Taken:
            for command in expired:
                inbox.drop_command(connection, command.command_id)
            return numbers.forget(connection, [numbers.number_of(command) for command in expired])

        self._taken = await self._writer.run(work)
        self._commands = tuple(command for command in self._commands if command not in expired)

    async def _accept_plan(self, envelope: Envelope, payload: bytes) -> None:
        plan = read_plan(payload)
        try:
            await self._take_plan(plan, payload)
        except Refused as refusal:
            await self._refuse(envelope, plan.plan_id, refusal)

    async def _accept_command(self, envelope: Envelope, payload: bytes) -> None:
        command = read_command(payload)
        try:
            await self._take_command(command, payload)
        except Refused as refusal:
            await self._refuse(envelope, command.command_id, refusal)

    async def _take_plan(self, plan: SitePlan, payload: bytes) -> None:
        now, trust = self._site_time.now()

        number = OrderNumber(plan.signing_epoch, plan.sequence)

        def work(connection: sqlite3.Connection) -> numbers.Taken | None:
            held = inbox.held_plan(connection)
            known = None if held is None else held.key
            if admit_plan(plan, payload, known, self._rules, self._miners, now, trust) is Arrival.DUPLICATE:
                return None
            numbers.check_epoch(number, numbers.taken(connection))
            inbox.hold_plan(connection, inbox.HeldPlan(plan.signing_epoch, plan.sequence, payload), now)
            detail = f"revision {plan.revision}, curtailments: {len(plan.curtailments)}, valid until {plan.valid.end}"
            self._notify(connection, NoticeCode.PLAN_ACCEPTED, plan.plan_id, detail)
            return numbers.raise_to(connection, number, plan.plan_id)

        so_far = await self._writer.run(work)
        if so_far is not None:
            self._plan, self._taken = plan, so_far
            self._on_change()

    async def _take_command(self, command: Command, payload: bytes) -> None:
        now, trust = self._site_time.now()

        number = numbers.number_of(command)

        def work(connection: sqlite3.Connection) -> tuple[numbers.Taken, bool]:
            known = inbox.command_payload(connection, *number, command.command_id, self._secrets)
            if known in (payload, b""):  # empty: taken before, and its passwords could not be kept
                return numbers.taken(connection), False
            if known is not None and numbers.is_renumbered(command, known):
                return numbers.raise_to(connection, number, command.command_id), False
            if known is not None:
                raise Refused("sequence_reused", f"command {tuple(number)} has been taken with other content")
            so_far = numbers.taken(connection)
            admit_command(command, self._rules, self._miners, so_far.highest.signing_epoch, now, trust)
            numbers.check_floor(number, so_far)
            inbox.hold_command(connection, command, payload, now, self._secrets)
            detail = f"{command.verb.value} of {len(command.miner_ids)} miners: {command.reason}"
            self._notify(connection, NoticeCode.COMMAND_ACCEPTED, command.command_id, detail)
            return numbers.raise_to(connection, number, command.command_id), True

        self._taken, is_new = await self._writer.run(work)
        if is_new:
            self._commands = (*self._commands, command)
            self._on_change()

    async def _refuse(self, envelope: Envelope, subject: str, refusal: Refused) -> None:
        is_news = self._telling.is_news(envelope, refusal.code, self._site_time.now()[0])
        code = NoticeCode.COMMAND_REFUSED if envelope.domain is Domain.COMMAND else NoticeCode.PLAN_REFUSED
        if is_news:
            _LOG.warning("%s: %s: %s", code.value, refusal.code, refusal)

        def work(connection: sqlite3.Connection) -> None:
            inbox.count_refusal(connection, refusal.code)
            if is_news:
                self._notify(connection, code, subject, f"{refusal.code}: {refusal}")

        await self._writer.run(work)

    async def _tell_owed(self, now: datetime) -> None:
        for code, (count, since) in self._telling.owed(now).items():
            detail = f"{code}: {count} more orders refused since {since:%H:%M} UTC; ballast-agent doctor counts them"

            def work(connection: sqlite3.Connection, said: str = detail) -> None:
                self._notify(connection, NoticeCode.PLAN_REFUSED, "", said)

            await self._writer.run(work)
            self._telling.settle(code)

    def _notify(self, connection: sqlite3.Connection, code: NoticeCode, subject: str, detail: str) -> None:
        now, _ = self._site_time.now()
        notice = Notice(self._ids(), now, code, subject, detail)
        self._outbox.append_in(connection, BatchBody(notices=(notice,)))
