"""Planted bugs: each is a way the agent could be wrong, patched from outside, that some history must find.

    with mutant.planted(): play(generate(seed))  ->  a violation of one of ``mutant.breaks``

Invariants: no flag in the agent serves these; a patch names a function of the agent, and fails loudly when it is gone;
what is patched is put back. A bug that only some histories can meet names the family it needs (``wants``).
"""

import asyncio
import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.buffer import Buffer
from agent.errors import Permanent, Transient
from agent.forwarder import Forwarder
from agent.local_curtail import admission, books, journal, overrides, policy, site_time, stopping, tasks
from agent.local_curtail.evidence import Verdict
from agent.local_curtail.journal import Journal
from agent.local_curtail.orders import Orders
from agent.local_curtail.overrides import Overrides
from agent.local_curtail.site import LocalCurtail
from agent.storage import StorageLost
from sitelink import codec
from sitelink.orders import read_time
from sitelink.signing import KeyRing
from sitelink.types import BatchKind, ClockTrust, Evidence, NoticeCode, Outcome, Receipt, Verb
from tests.simulation.edge import disk
from tests.simulation.edge.devices import course
from tests.simulation.edge.schedule import Schedule

FAR = datetime(2100, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Mutant:
    name: str
    breaks: frozenset[str]
    patches: Callable[[], list[tuple[Any, str, Any]]]
    wants: Callable[[Schedule], bool]

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Plant the bug for as long as the block runs."""
        undone = []
        try:
            for owner, name, value in self.patches():
                undone.append((owner, name, vars(owner)[name] if isinstance(owner, type) else getattr(owner, name)))
                setattr(owner, name, value)
            yield
        finally:
            for owner, name, value in reversed(undone):
                setattr(owner, name, value)


MUTANTS: dict[str, Mutant] = {}


def has(*kinds: str) -> Callable[[Schedule], bool]:
    """Return whether a schedule has events of all these kinds."""
    return lambda schedule: all(schedule.of(kind) for kind in kinds)


ANY = has()


def orders(verb: str, *kinds: str) -> Callable[[Schedule], bool]:
    """Return whether a schedule orders ``verb`` by command, and has events of all these kinds."""
    return lambda schedule: any(e.what["verb"] == verb for e in schedule.of("command")) and has(*kinds)(schedule)


def attacks(*ways: str) -> Callable[[Schedule], bool]:
    return lambda schedule: any(event.what["how"] in ways for event in schedule.of("hostile"))


def faults(kind: str) -> Callable[[Schedule], bool]:
    return lambda schedule: any(event.what["fault"] == kind for event in schedule.of("device"))


def mutant(*breaks: str, wants: Callable[[Schedule], bool] = ANY) -> Any:
    def register(patches: Callable[[], list[tuple[Any, str, Any]]]) -> Any:
        name = patches.__name__
        MUTANTS[name] = Mutant(name, frozenset(breaks), patches, wants)
        return patches

    return register


def instead(owner: Any, name: str, make: Callable[[Any], Any]) -> tuple[Any, str, Any]:
    """Return the patch of ``owner.name`` by what ``make`` makes of the original."""
    return owner, name, make(getattr(owner, name))


# Orders


@mutant("no lost command", wants=has("crash", "command"))
def acceptance_told_before_it_is_stored():
    def early(real: Any) -> Any:
        async def _take_command(self: Journal, command: Any, payload: bytes) -> None:
            code = NoticeCode.COMMAND_ACCEPTED
            await self._writer.run(lambda connection: self._notify(connection, code, command.command_id, "soon"))
            await asyncio.sleep(4.0)
            await real(self, command, payload)

        return _take_command

    return [instead(Journal, "_take_command", early)]


@mutant("never twice", wants=orders("reboot", "crash"))
def one_shot_journalled_after_sending():
    def late(real: Any) -> Any:
        async def carry_out(*arguments: Any, keep: Any, **more: Any) -> Any:
            kept: list[str] = []

            async def later(former: str) -> None:
                kept.append(former)

            result = await real(*arguments, keep=later, **more)
            for former in kept:
                await keep(former)
            return result

        return carry_out

    return [instead(course, "carry_out", late)]


@mutant("never twice", wants=orders("reboot", "device"))
def one_shot_sent_again_on_timeout():
    return [(course, "ONCE", frozenset({Verb.FIRMWARE, Verb.LOGS}))]


@mutant("never twice", wants=orders("reboot", "crash"))
def one_shot_taken_up_anew_after_a_crash():
    def forget(real: Any) -> Any:
        async def load(self: Orders) -> None:
            await real(self)
            self._tasks = {key: replace(task, begun=False, kept="") for key, task in self._tasks.items()}

        return load

    return [instead(Orders, "load", forget)]


@mutant("never twice", wants=orders("reboot"))
def two_executors_without_a_claim():
    async def run_orders(self: LocalCurtail) -> None:
        twin = copy.copy(self._orders)
        twin._tasks, twin._in_flight, twin._waits = {}, set(), {}
        for executor in (self._orders, twin):
            await executor.load()
        async with asyncio.TaskGroup() as group:
            for executor in (self._orders, twin):
                group.create_task(executor.run(lambda: self.journal.commands))

    return [(LocalCurtail, "run_orders", run_orders)]


@mutant("no lost command", wants=has("crash", "command"))
def begun_orders_forgotten_by_a_crash():
    def forget(real: Any) -> Any:
        async def load(self: Orders) -> None:
            await real(self)
            self._tasks = {
                key: replace(task, outcome=Outcome.EXPIRED) if task.begun else task for key, task in self._tasks.items()
            }

        return load

    return [instead(Orders, "load", forget)]


@mutant("converges", wants=orders("limit"))
def an_older_limit_wins():
    return [(Orders, "_superseded", lambda self, commands: frozenset())]


@mutant("acks are true", wants=faults("deaf"))
def a_yes_is_trusted():
    async def run(self: Any, *arguments: Any) -> Any:
        refusal = await self._send()
        return refusal if refusal is not None else self.ended(Outcome.COMPLETE)

    return [(course._Attempt, "run", run)]


@mutant("acks are true", wants=faults("deaf"))
def a_stop_that_was_taken_is_done():
    def judge(real: Any) -> Any:
        def judge_stop(facts: Any) -> Verdict:
            if facts.acked:
                return Verdict(Outcome.COMPLETE, Evidence.DEVICE_STATE, "acked")
            return real(facts)

        return judge_stop

    return [instead(stopping, "judge_stop", judge)]


# Signatures, addresses, numbers, time


@mutant("nothing forged", wants=attacks("forged", "mutated"))
def signature_unchecked():
    return [(KeyRing, "open", lambda self, envelope, domain: envelope.payload)]


@mutant("nothing forged", wants=attacks("forged"))
def key_known_by_its_name_alone():
    def lax(real: Any) -> Any:
        def open_(self: KeyRing, envelope: Any, domain: Any) -> bytes:
            return bytes(envelope.payload) if envelope.key_id in self.key_ids else real(self, envelope, domain)

        return open_

    return [instead(KeyRing, "open", lax)]


@mutant("nothing forged", wants=attacks("other_site"))
def cross_site_replay_taken():
    def anywhere(real: Any) -> Any:
        return lambda site_id, agent_id, rules: real(rules.site_id, agent_id, rules)

    return [instead(admission, "_check_addressee", anywhere)]


@mutant("nothing forged", wants=attacks("other_agent"))
def another_enrolments_orders_taken():
    def anybody(real: Any) -> Any:
        return lambda site_id, agent_id, rules: real(site_id, rules.agent_id, rules)

    return [instead(admission, "_check_addressee", anybody)]


@mutant("nothing forged", "nothing stale", wants=attacks("stale"))
def expiry_ignored():
    def timeless(real: Any) -> Any:
        def admit_command(command: Any, *arguments: Any) -> None:
            real(replace(command, expires_at=FAR), *arguments)

        return admit_command

    def endless(real: Any) -> Any:
        return lambda command: real(replace(command, expires_at=FAR))

    return [instead(journal, "admit_command", timeless), instead(tasks, "tasks_of", endless)]


@mutant("not left off", "converges", "events end", wants=orders("stop"))
def stops_outlive_their_expiry():
    def endless(real: Any) -> Any:
        def _latest_commands(situation: Any) -> Any:
            commands = tuple(replace(command, expires_at=FAR) for command in situation.commands)
            return real(replace(situation, commands=commands))

        return _latest_commands

    return [instead(policy, "_latest_commands", endless)]


@mutant("newer stays", wants=lambda schedule: len(schedule.of("plan")) > 1 and attacks("replay")(schedule))
def older_plan_overwrites_newer():
    def admit(real: Any) -> Any:
        return lambda plan, payload, held, *more, **named: real(plan, payload, None, *more, **named)

    return [instead(journal, "admit_plan", admit)]


@mutant("nothing forged", "newer stays", wants=attacks("old_epoch"))
def an_old_signing_epoch_is_open():
    def open_(real: Any) -> Any:
        return lambda command, rules, miners, newest_epoch, *more: real(command, rules, miners, 0, *more)

    return [
        (journal.numbers, "check_epoch", lambda number, so_far: None),
        instead(journal, "admit_command", open_),
    ]


@mutant("nothing forged", "held", wants=attacks("no_release"))
def a_plan_that_ends_mid_hold_is_taken():
    return [(admission, "_check_release", lambda *arguments: None)]


@mutant("held", "not left off", "nothing forged", "events end", "converges", "no lost command", wants=attacks("time"))
def an_old_answer_sets_the_clock():
    async def _learn(self: Forwarder, envelope: Any) -> None:
        read_time(envelope.payload)
        now_mono = self._clock.monotonic()
        if await self._time_sink.learn(envelope, now_mono - 0.01, now_mono):
            self._hear()

    return [(Forwarder, "_learn", _learn)]


@mutant("held", "nothing forged", "not left off", "events end", "converges", "no lost command", wants=has("step"))
def the_wall_clock_is_the_sites_time():
    return [(site_time, "held_time", lambda anchor, clock: (clock.now(), ClockTrust.SYNCED))]


# Curtailment


@mutant("not left off", "events end", "converges", wants=has("crash"))
def what_was_stopped_is_kept_in_memory():
    def forget(real: Any) -> Any:
        def read(connection: Any) -> Any:
            _, *others = real(connection)
            return ({}, *others)

        return read

    return [instead(books, "_read", forget)]


@mutant("held", "process ended", wants=has("denied"))
def an_expired_certificate_ends_the_process():
    class Ended(BaseException):
        pass

    def end(real: Any) -> Any:
        def _after_failure(self: Forwarder, error: Any) -> float:
            if isinstance(error, Permanent):
                raise Ended
            return float(real(self, error))

        return _after_failure

    return [instead(Forwarder, "_after_failure", end)]


@mutant("held", wants=has("override"))
def what_is_ordered_at_the_site_is_forgotten():
    async def set_(self: Overrides, override_id: str, verb: Any, miner_ids: Any, duration: timedelta) -> None:
        named = None if miner_ids is None else frozenset(miner_ids)
        item = overrides.Override(override_id, verb, named, 1)
        until = self._clock.now() + duration
        memory.setdefault(id(self), []).append(
            overrides.StoredOverride(item, until, False, self._clock.monotonic() + duration.total_seconds())
        )

    memory: dict[int, list[Any]] = {}

    def remembered(real: Any) -> Any:
        async def active(self: Overrides) -> Any:
            held = [item for item in memory.get(id(self), []) if item.holds(self._clock)]
            return (*await real(self), *held)

        return active

    return [(Overrides, "set", set_), instead(Overrides, "active", remembered)]


# Buffer and link


@mutant("no sample lost")
def settled_on_send():
    def early(real: Any) -> Any:
        async def _send(self: Forwarder, batch: Any) -> None:
            await real(self, batch)
            await self._buffer.settle(Receipt(batch.site_id, batch.epoch, batch.first_seq, batch.last_seq, -1))

        return _send

    return [instead(Forwarder, "_send", early)]


@mutant("no sample lost")
def a_receipt_settles_all_before_it():
    def wide(real: Any) -> Any:
        async def settle(self: Buffer, *receipts: Receipt) -> None:
            await real(self, *(replace(receipt, through_seq=receipt.last_seq) for receipt in receipts))

        return settle

    return [instead(Buffer, "settle", wide)]


@mutant("no sample lost", wants=has("restore"))
def a_restored_cloud_is_not_listened_to():
    async def settle_through(self: Buffer, *arguments: Any, **more: Any) -> None:
        return None

    return [(Buffer, "settle_through", settle_through)]


@mutant("numbers twice", "doubled")
def a_batch_is_cut_anew_when_it_is_sent_again():
    def cut(real: Any) -> Any:
        async def take(self: Buffer, *arguments: Any, **more: Any) -> Any:
            batches = await real(self, *arguments, **more)
            taken[0] += 1
            return [recut(batch) if taken[0] % 2 else batch for batch in batches]

        return take

    def recut(batch: Any) -> Any:
        body = codec.unpack(batch.payload)
        return replace(batch, payload=codec.pack(replace(body, readings=body.readings[::-1])))

    taken = [0]
    return [instead(Buffer, "take", cut)]


@mutant("no sample lost", wants=has("cut"))
def a_backlog_drops_acks():
    def drop(real: Any) -> Any:
        def append_in(self: Buffer, connection: Any, body: Any) -> Any:
            batch = real(self, connection, body)
            waits = connection.execute("SELECT waiting_bytes FROM buffer_totals").fetchone()[0]
            if waits > 800 and batch.kind is BatchKind.CONTROL:
                connection.execute("DELETE FROM buffer_batches WHERE first_seq = ?", (batch.first_seq,))
            return batch

        return append_in

    return [instead(Buffer, "append_in", drop)]


@mutant("doubled", wants=has("io_error"))
def a_failed_commit_is_tried_again():
    def hopeful(real: Any) -> Any:
        def in_transaction(connection: Any, work: Any) -> Any:
            try:
                return real(connection, work)
            except StorageLost as error:
                if connection.in_transaction:
                    connection.rollback()
                raise Transient(str(error)) from error

        return in_transaction

    return [instead(disk, "in_transaction", hopeful)]


@mutant("link is true", wants=has("cut"))
def an_open_stream_is_shown_as_up():
    return [(Forwarder, "link_up", property(lambda self: self._heard_mono is not None))]
