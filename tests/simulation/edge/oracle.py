"""What must hold of every history, at three moments: at the device and the cloud at once, every five seconds, at the end.

Invariants judged here: no lost command; no one-shot executed twice; desired state converges; nothing forged or stale
executes; no sample lost; no miner off past its release plus ramp; a plan in force is held; the link shown is the truth;
no open event without an exit. (``cloud`` judges what comes doubled or under a number that is taken.)
"""

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sitelink.orders import read_command, read_plan
from sitelink.types import Ack, BatchKind, ClockTrust, Command, Domain, NoticeCode, Outcome, SitePlan, Verb
from sitelink.verbs import SWITCHING
from tests.simulation.edge.cloud import PLAN_MARGIN_S
from tests.simulation.edge.journalled import judge_journal
from tests.simulation.edge.schedule import Event
from tests.simulation.world import T0

if TYPE_CHECKING:
    from tests.simulation.edge.play import EdgePlay
    from tests.simulation.edge.world import Deed

LOOK_S = 5.0
BACK_S = 20.0
"""How soon a miner must be back after its release and ramp."""
YOUNG_S = 20.0 + 15.0
"""How long a process may take to find its feet."""
HELD_S = 30.0
"""How soon a window that is in force must be held."""
LATE_S = 10.0
"""By how much a miner may be late in carrying out what it was told."""
DRAIN_S = 40.0
"""What was sealed so shortly before the end is not lost."""
BLIND_S = 20.0 + 40.0
"""How long a site may follow nothing but its fallback after a boot without a clock."""
SILENT_S = 3 * 4.0 + 3.0


def seconds(moment: Any) -> float:
    return float((moment - T0).total_seconds())


class Oracle:
    def __init__(self, play: "EdgePlay") -> None:
        self._play = play
        self._world = play.world
        self._judged = 0
        self._highest = (0, 0)
        self._plans: list[tuple[float, SitePlan]] = []
        self._commands: list[tuple[float, Command]] = []
        self.shown_up_at_end = False
        self.open_at_end: tuple[Any, ...] = ()

    def plans(self) -> list[tuple[float, SitePlan]]:
        self._read_orders()
        return self._plans

    def commands(self) -> list[tuple[float, Command]]:
        self._read_orders()
        return self._commands

    def _read_orders(self) -> None:
        for at_s, envelope in self._world.orders[len(self._plans) + len(self._commands) :]:
            if envelope.domain is Domain.PLAN:
                self._plans.append((at_s, read_plan(envelope.payload)))
            else:
                self._commands.append((at_s, read_command(envelope.payload)))

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._judge_deeds()
            self._judge_now()

    # At once, as good as: in the order in which it was done.

    def _judge_deeds(self) -> None:
        fresh, self._judged = self._world.deeds[self._judged :], len(self._world.deeds)
        if not fresh:
            return
        plans, commands = self.plans(), self.commands()
        for deed in fresh:
            if deed.verb == "stop":
                self._judge_stop(deed, plans, commands)
            elif deed.verb == "reboot":
                self._judge_reboot(deed, commands)
            elif deed.verb in ("limit", "blink"):
                self._judge_setting(deed, commands)

    def _judge_stop(self, deed: "Deed", plans: Any, commands: Any) -> None:
        now_s, name = deed.at_s, deed.miner_id
        spans = [
            (seconds(item.interval.start), seconds(item.interval.end))
            for at_s, plan in plans
            for item in plan.curtailments
            if at_s <= now_s and name in item.miner_ids
        ]
        spans += [
            (at_s, seconds(command.expires_at))
            for at_s, command in commands
            if at_s <= now_s and command.verb is Verb.STOP and name in command.miner_ids
        ]
        spans += self._hand_stops(name)
        if self._is_blind(now_s):
            return
        if not any(start - 1 <= now_s <= end + 6 + LATE_S for start, end in spans):
            self._world.violated("nothing forged", f"{name} was stopped at {now_s:.1f} without an order")

    def _hand_stops(self, name: str) -> list[tuple[float, float]]:
        """Return the spans of a technician's stops; one that was refused may rule until its process ends."""
        return [
            (event.at_s, event.at_s + event.what["for_s"] + 2)
            for event in self._play.schedule.of("override")
            if name in event.what["miners"]
        ]

    def _judge_reboot(self, deed: "Deed", commands: Any) -> None:
        ordered = {
            command.command_id
            for at_s, command in commands
            if at_s <= deed.at_s and command.verb is Verb.REBOOT and deed.miner_id in command.miner_ids
        }
        done = [
            d for d in self._world.deeds if (d.miner_id, d.verb) == (deed.miner_id, "reboot") and d.at_s <= deed.at_s
        ]
        if len(done) > len(ordered):
            kind = "never twice" if ordered else "nothing forged"
            self._world.violated(kind, f"{deed.miner_id} rebooted {len(done)} times for {len(ordered)} orders")
        expiries = [
            seconds(command.expires_at)
            for at_s, command in commands
            if command.verb is Verb.REBOOT and deed.miner_id in command.miner_ids
        ]
        if expiries and deed.at_s > max(expiries) + 3 + LATE_S and not self._crashed_after(0.0):
            self._world.violated("nothing stale", f"{deed.miner_id} rebooted at {deed.at_s:.1f}, after every expiry")

    def _judge_setting(self, deed: "Deed", commands: Any) -> None:
        own = [
            (at_s, command)
            for at_s, command in commands
            if command.verb.value == deed.verb
            and deed.miner_id in command.miner_ids
            and command.parameters
            and command.parameters[0][1] == deed.value
        ]
        if not own:
            self._world.violated("nothing forged", f"{deed.miner_id} was set to {deed.verb} {deed.value} by nobody")
            return
        before = [
            d for d in self._world.deeds if (d.miner_id, d.verb, d.value) == (deed.miner_id, deed.verb, deed.value)
        ]
        late_s = max(seconds(command.expires_at) for _, command in own) + 3 + LATE_S + 25
        first = before[0] is deed
        if first and deed.at_s > late_s and not self._crashed_after(min(at_s for at_s, _ in own)):
            self._world.violated("nothing stale", f"{deed.miner_id} was set to {deed.verb} {deed.value} long after")

    def _crashed_after(self, at_s: float) -> bool:
        return any(crash_s >= at_s for crash_s in self._play.crashes)

    def _is_blind(self, now_s: float) -> bool:
        return any(cold_s <= now_s < cold_s + BLIND_S for cold_s in self._play.cold_boots)

    # Every five seconds.

    def _judge_now(self) -> None:
        now_s, up_s = self._world.now_s, self._play.up_since_s
        if up_s is None:
            return
        self._judge_link(up_s)
        self._judge_number()
        if now_s - up_s < YOUNG_S or self._is_blind(now_s):
            return
        for miner in self._world.miners.values():
            miner.settle(now_s)
            if not miner.reachable_for(now_s, YOUNG_S) or miner.is_deaf(now_s) or miner.is_deaf(now_s - BACK_S):
                continue
            self._judge_left_off(miner)
            self._judge_held(miner)

    def _judge_link(self, up_s: float) -> None:
        forwarder = self._play.parts.forwarder
        silent_s = self._world.now_s - self._world.network.heard_down_s
        if forwarder.link_up and silent_s > SILENT_S:
            self._world.violated("link is true", f"shown up although nothing came for {silent_s:.0f} s")

    def _judge_number(self) -> None:
        """The plan in force never goes back."""
        plan = self._play.parts.curtail.journal.plan
        number = (0, 0) if plan is None else (plan.signing_epoch, plan.sequence)
        if number < self._highest:
            self._world.violated("newer stays", f"plan {number} is in force after {self._highest}")
        self._highest = max(self._highest, number)

    def _judge_left_off(self, miner: Any) -> None:
        now_s, name = self._world.now_s, miner.miner_id
        if name in self._play.unkept:
            return
        ends = [
            seconds(item.interval.end) + _ramp_s(item)
            for _, plan in self.plans()
            for item in plan.curtailments
            if name in item.miner_ids
        ]
        ends += [
            seconds(command.expires_at)
            for _, command in self.commands()
            if command.verb is Verb.STOP and name in command.miner_ids
        ]
        ends += [end for _, end in self._hand_stops(name)]
        starting = any(verb == "start" for _, verb in miner.pending)
        late_s = LATE_S if self._world.now_s < self._play.schedule.heal_s + LATE_S else 0.0
        if now_s > max(ends, default=0.0) + BACK_S + late_s and not miner.hashing and not starting:
            self._world.violated("not left off", f"{name} is off past its release")

    def _judge_held(self, miner: Any) -> None:
        """A window that the cloud knows to be in force is held, unless somebody ordered otherwise."""
        now_s, name = self._world.now_s, miner.miner_id
        faults = [e for e in self._play.schedule.of("device") if e.what["miner"] == name]
        full = any(e.at_s - 1 <= now_s < e.what["until_s"] + HELD_S for e in self._play.schedule.of("disk_full"))
        starts = [c for _, c in self.commands() if c.verb is Verb.START and name in c.miner_ids]
        undated = self._play.parts.curtail.site_time.now()[1] is ClockTrust.UNTRUSTED
        if faults or full or starts or undated or miner.booted_s > now_s - HELD_S:
            return
        for span_s in self._in_force(name):
            if span_s[0] + HELD_S <= now_s < span_s[1] - 1 and miner.hashing:
                self._world.violated("held", f"{name} hashes in the middle of its window")
        for ordered_s, event in self._play.overrides:
            until_s = ordered_s + event.what["for_s"]
            if name in event.what["miners"] and ordered_s + HELD_S <= now_s < until_s - 1 and miner.hashing:
                self._world.violated("held", f"{name} hashes although somebody at the site has stopped it")

    def _in_force(self, name: str) -> list[tuple[float, float]]:
        """Return the windows for ``name`` of the plan in force, as far as the cloud was told of it before now."""
        told = {n.subject for n in self._world.cloud.notices() if n.code is NoticeCode.PLAN_ACCEPTED}
        newest = max((plan.sequence for _, plan in self.plans()), default=0)
        if f"plan-{newest}" not in told:
            return []
        accepted_s = min(at_s for at_s, plan in self.plans() if plan.sequence == newest)
        return [
            (max(seconds(item.interval.start), accepted_s), seconds(item.interval.end))
            for _, plan in self.plans()
            if plan.sequence == newest
            for item in plan.curtailments
            if name in item.miner_ids
        ]

    # At the end.

    def look_at_end(self) -> None:
        """Look at the living agent before it is ended with its history."""
        parts = self._play.parts
        self.shown_up_at_end = parts.forwarder.link_up
        self.open_at_end = parts.curtail.status().open_orders

    def judge(self) -> None:
        self._judge_deeds()
        self._judge_samples()
        self._judge_commands()
        self._judge_states()
        judge_journal(self._play)
        if not self.shown_up_at_end:
            self._world.violated("link is true", "the link is not up although all is well")
        for order in self.open_at_end:
            self._world.violated("events end", f"{order.order_id} is still {order.stage.value}")

    def _judge_samples(self) -> None:
        world = self._world
        told = any(notice.code is NoticeCode.BUFFER_GAP for notice in world.cloud.notices())
        if world.dropped and not told:
            world.violated("gaps are told", f"{world.dropped} batches were dropped and nobody was told")
        missing: defaultdict[str, list[int]] = defaultdict(list)
        for key, batch in world.promised.items():
            if key in world.cloud.stored or world.promised_s[key] > self._play.schedule.end_s - DRAIN_S:
                continue
            if batch.kind is BatchKind.TELEMETRY and told:
                continue  # thinned or dropped on a full buffer, and said so
            missing[batch.epoch].append(batch.first_seq)
        for epoch, numbers in missing.items():
            world.violated("no sample lost", f"promised and never stored: {numbers} of {epoch}")

    def _judge_commands(self) -> None:
        """Each command that was taken has an end for each of its miners, and each that stood long was answered."""
        world, heal_s = self._world, self._play.schedule.heal_s
        notices, acks = world.cloud.notices(), world.cloud.acks()
        accepted = {n.subject for n in notices if n.code is NoticeCode.COMMAND_ACCEPTED}
        ended = {(ack.order_id, ack.miner_id) for ack in acks}
        by_id: dict[str, Command] = {command.command_id: command for _, command in self.commands()}
        hostile = self._play.schedule.of("hostile")
        stale = {event.what["order"]["what"]["id"] for event in hostile if event.what["how"] == "stale"}
        for command_id in sorted(accepted):
            command = by_id.get(command_id)
            if command is None and command_id in stale:
                continue  # taken while nobody knew the time, and never followed: that is what its expiry is for
            if command is None:
                world.violated("nothing forged", f"{command_id} was accepted though nobody gave it")
            elif command.verb not in SWITCHING:
                for name in command.miner_ids:
                    if (command_id, name) not in ended:
                        world.violated("no lost command", f"{command_id} was accepted and never ended for {name}")
        for plan_id in sorted({n.subject for n in notices if n.code is NoticeCode.PLAN_ACCEPTED}):
            if all(plan.plan_id != plan_id for _, plan in self.plans()):
                world.violated("nothing forged", f"{plan_id} was accepted though nobody made it")
        for event in self._play.schedule.of("command"):
            if event.what["expires_s"] > heal_s + 12 and event.what["id"] not in world.cloud.settled:
                world.violated("no lost command", f"{event.what['id']} was never answered")
        self._judge_acks(acks, by_id)
        self._judge_events(notices)

    def _judge_acks(self, acks: list[Ack], by_id: dict[str, Command]) -> None:
        """What is said to be complete was done by the miner."""
        done = {(deed.miner_id, deed.verb, deed.value) for deed in self._world.deeds}
        reboots: defaultdict[str, set[str]] = defaultdict(set)
        for ack in acks:
            if ack.outcome is not Outcome.COMPLETE:
                continue
            command = by_id.get(ack.order_id)
            if ack.verb is Verb.REBOOT:
                reboots[ack.miner_id].add(ack.order_id)
            elif ack.verb is Verb.LIMIT and command is not None:
                if (ack.miner_id, "limit", command.parameters[0][1]) not in done:
                    self._world.violated("acks are true", f"{ack.order_id} is said to be done at {ack.miner_id}")
            elif ack.verb is Verb.STOP and (ack.miner_id, "stop", "") not in done:
                self._world.violated("acks are true", f"{ack.miner_id} is said to be off and was never stopped")
        for name, orders in reboots.items():
            times = sum((deed.miner_id, deed.verb) == (name, "reboot") for deed in self._world.deeds)
            if len(orders) > times:
                self._world.violated("acks are true", f"{name} is said to have rebooted {len(orders)} times of {times}")

    def _judge_events(self, notices: Any) -> None:
        started = {n.subject for n in notices if n.code is NoticeCode.CURTAILMENT_STARTED}
        restored = {n.subject for n in notices if n.code is NoticeCode.CURTAILMENT_RESTORED}
        for order in sorted(started - restored):
            self._world.violated("events end", f"{order} was started and never restored")

    def _judge_states(self) -> None:
        """Every miner runs, under the last limit that was ordered of it and said to be in force."""
        world = self._world
        complete = {(a.order_id, a.miner_id) for a in world.cloud.acks() if a.outcome is Outcome.COMPLETE}
        accepted = {n.subject for n in world.cloud.notices() if n.code is NoticeCode.COMMAND_ACCEPTED}
        faulty = self._play.schedule.of("device")
        for miner in world.miners.values():
            miner.settle(world.now_s)
            if not miner.hashing and miner.miner_id not in self._play.unkept:
                world.violated("converges", f"{miner.miner_id} does not hash at the end")
            limits = [
                command
                for _, command in self.commands()
                if command.verb is Verb.LIMIT and miner.miner_id in command.miner_ids and command.command_id in accepted
            ]
            if any(e.what["miner"] == miner.miner_id and e.what["fault"] == "late" for e in faulty):
                continue  # it may carry an older limit out after the newer one was seen in force
            # What a restored cloud signs anew is refused where it was taken before: which number counts, it cannot tell.
            if limits and not self._play.schedule.of("restore"):
                last = max(limits, key=lambda command: (command.signing_epoch, command.sequence))
                wanted_w = float(last.parameters[0][1])
                if (last.command_id, miner.miner_id) in complete and miner.limit_w != wanted_w:
                    words = (
                        f"{miner.miner_id} keeps {miner.limit_w} W, {last.command_id} was the last to order {wanted_w}"
                    )
                    world.violated("converges", words)


def _ramp_s(item: Any) -> float:
    if not item.ramp_up.step_w:
        return 0.0
    return float(-(-len(item.miner_ids) // max(1, int(item.ramp_up.step_w // 3500))) * item.ramp_up.step_s)


__all__ = ["PLAN_MARGIN_S", "Event", "Oracle"]
