"""What must hold of every history. Pure: takes logs, knows no loop."""

import itertools
from collections import defaultdict

from sitelink.types import NoticeCode, Outcome, Verb
from tests.simulation.history import GRACE_S, Play
from tests.simulation.journalled import journal_faults
from tests.simulation.world import T0, SimMiner

COUNTED_S = 90.0
"""So long who draws again may still be counted: its neighbours' figures may trail for a minute."""
POWER = frozenset({"late", "stuck", "noisy", "says"})


def violations(play: Play) -> list[str]:
    acks, notices = play.world.outbox()
    found = [f"error: {error!r}" for error in play.errors]
    found += [f"{miner} left off at {now_s:.1f}" for now_s, miner in play.left_off]
    found += _stops_without_order(play)
    found += _lies(play, acks, notices)
    found += _acks(play, acks, notices)
    found += _credit(play, acks)
    found += journal_faults(play.world, acks, notices)
    return found


def _stops_without_order(play: Play) -> list[str]:
    found = []
    for now_s, miner, verb in play.world.device_log:
        if verb != "stop":
            continue
        windows = [
            ((item.interval.start - T0).total_seconds(), (item.interval.end - T0).total_seconds())
            for delivered_s, plan in play.delivered
            for item in plan.curtailments
            if miner in item.miner_ids and delivered_s <= now_s
        ]
        # An order already on its way when the window closes may still arrive.
        blind = any(cold_s <= now_s < cold_s + GRACE_S + 15 for cold_s in play.cold_boots)
        if not blind and not any(start - 1 <= now_s <= end + 6 for start, end in windows):
            found.append(f"{miner} was stopped at {now_s:.1f} without an order")
    return found


def _lies(play: Play, acks, notices) -> list[str]:
    liars = {miner.miner_id: miner for miner in play.schedule.miners if miner.liar}
    found = [
        f"liar {ack.miner_id} counted as complete"
        for ack in acks
        if ack.miner_id in liars and ack.verb is Verb.STOP and ack.outcome in {Outcome.COMPLETE, Outcome.PARTIAL}
    ]
    named = {notice.subject for notice in notices if notice.code is NoticeCode.LIAR_NAMED}
    honest = {m.miner_id for m in play.schedule.miners if not (m.liar or m.wakes or m.relapses) and m.stop_delay_s < 5}
    found += [f"honest {miner} called a liar" for miner in sorted(named & honest)]
    undisturbed = not play.schedule.families & {"crash", "replan", "meter", "late", "stuck", "noisy"}
    disagreeing = {notice.subject for notice in notices if notice.code is NoticeCode.FEEDER_DISAGREES}
    for miner_id, miner in sorted(liars.items()):
        stopped = any(name == miner_id and verb == "stop" for _, name, verb in play.world.device_log)
        long_enough = _hold_s(play) > 120
        # What cannot be told apart on a feeder is told of the feeder; so is who reported idle all along.
        told = miner_id in named or (miner.liar != "ack_without_effect" and miner.feeder_id in disagreeing)
        if undisturbed and stopped and long_enough and not told:
            found.append(f"liar {miner_id} ({miner.liar}) was never named")
    return found


def _hold_s(play: Play) -> float:
    return play.schedule.plans[0][1].curtailments[0].interval.duration.total_seconds()


def _acks(play: Play, acks, notices) -> list[str]:
    found = []
    history = defaultdict(list)
    for ack in acks:
        history[ack.order_id, ack.miner_id, ack.verb].append((ack.outcome, ack.evidence, ack.reason))
    for key, given in history.items():
        found += [f"ack {key} given twice: {one}" for one, two in itertools.pairwise(given) if one == two]
    if len({ack.ack_id for ack in acks}) != len(acks):
        found.append("an ack id was used twice")
    started = {notice.subject for notice in notices if notice.code is NoticeCode.CURTAILMENT_STARTED}
    restored = {notice.subject for notice in notices if notice.code is NoticeCode.CURTAILMENT_RESTORED}
    found += [f"order {order} was never restored" for order in sorted(started - restored)]
    status = play.agent.status()
    for record in status.miners.values():
        if record.outcome is None:
            found.append(f"{record.miner_id} ends without an outcome under {record.order_id}")
    for order in started:
        # A miner's stop under a started order ends with an ack, whichever plan it came from.
        members = {
            m for _, plan in play.delivered for c in plan.curtailments if c.curtailment_id == order for m in c.miner_ids
        }
        acked = {miner for (order_id, miner, verb) in history if order_id == order and verb is Verb.STOP}
        touched = {m for m in members if any(name == m and verb == "stop" for _, name, verb in play.world.device_log)}
        if len(play.delivered) == 1 and not play.cold_boots:
            found += [f"{miner} has no final word under {order}" for miner in sorted((touched & members) - acked)]
    quiet = not play.schedule.families & {"crash", "replan", "meter", "device", "alone", *POWER}
    clouds = {
        m.feeder_id for m in play.schedule.miners if m.liar.startswith("reports_idle") or _is_late(m) or m.relapses
    }
    if quiet and _hold_s(play) > 110:
        for miner in play.schedule.miners:
            given = history.get(("c1", miner.miner_id, Verb.STOP))
            beside = miner.feeder_id in clouds and given and given[-1][2] == "feeder_clouded"
            if given and not miner.liar and given[-1][0] is not Outcome.COMPLETE and not beside:
                found.append(f"honest {miner.miner_id} ended {given[-1]}")
    return found


def _credit(play: Play, acks) -> list[str]:
    """Who draws again is not counted for long, and nobody is taken back on a feeder where nobody did."""
    found = []
    told = defaultdict(list)
    for ack in acks:
        at_s, outcome = (ack.at - T0).total_seconds(), ack.outcome if ack.verb is Verb.STOP else None
        told[ack.order_id, ack.miner_id].append((at_s, outcome, ack.reason))  # a start between two stops ends the first
    feeders = {miner.miner_id: miner.feeder_id for miner in play.schedule.miners}
    drew_again = {m.feeder_id for m in play.schedule.miners if m.relapses or m.wakes}
    undisturbed = not play.schedule.families & {"crash", "replan", "meter", "step", *POWER}
    for (order, miner_id), said in told.items():
        for (_, before, _), (at_s, after, reason) in itertools.pairwise(said):
            back = before is Outcome.COMPLETE and (after, reason) == (Outcome.UNVERIFIED, "feeder_clouded")
            if back and feeders[miner_id] not in drew_again:
                found.append(f"honest {miner_id} was taken back under {order} at {at_s:.0f}")
        for since_s, until_s in play.world.miners[miner_id].relapses if undisturbed else ():
            off_s = min((at_s for at_s, outcome, _ in said if outcome is Outcome.COMPLETE), default=1e9)
            late_s = max(since_s, off_s) + COUNTED_S
            last = [outcome for at_s, outcome, _ in said if at_s <= late_s]
            if late_s < min(until_s, _end_s(play, order)) and last and last[-1] is Outcome.COMPLETE:
                found.append(f"{miner_id} draws again since {since_s:.0f} and counts at {late_s:.0f} under {order}")
    return found


def _end_s(play: Play, order: str) -> float:
    items = [item for _, plan in play.delivered for item in plan.curtailments if item.curtailment_id == order]
    return min((item.interval.end - T0).total_seconds() for item in items)


def _is_late(miner: SimMiner) -> bool:
    """Return whether its figures are late, or show no age."""
    return miner.trails_s > 10 or (bool(miner.trails) and not miner.lively)


def rare_states(play: Play) -> set[str]:
    acks, notices = play.world.outbox()
    states = {f"outcome {ack.verb.value} {ack.outcome.value}" for ack in acks}
    states |= {f"reason {ack.reason}" for ack in acks}
    states |= {f"notice {notice.code.value}" for notice in notices}
    states |= set(play.world.coverage)
    return states | ({"cold boot"} if play.cold_boots else set())
