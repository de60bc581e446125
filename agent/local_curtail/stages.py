"""An order as a whole: started, held, released, restored. Pure.

    STARTED --each miner judged once--> HELD --no miner under it any more--> RELEASED --each live miner back--> RESTORED
       ^----------------- wanted again ------------------------------------------'            '

Invariant: a stage is reached once per time the order holds, and is told in one notice; dead miners hold up none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from agent.local_curtail.ramp import NO_RAMP, Pace, capped
from agent.local_curtail.records import MinerRecord, OrderRecord, Stage
from agent.local_curtail.starting import NOT_HASHING
from sitelink.types import NoticeCode, Outcome, SitePlan, Verb
from sitelink.units import Watts

_NOTICES: Final = {
    Stage.STARTED: NoticeCode.CURTAILMENT_STARTED,
    Stage.HELD: NoticeCode.CURTAILMENT_HELD,
    Stage.RELEASED: NoticeCode.CURTAILMENT_RELEASED,
    Stage.RESTORED: NoticeCode.CURTAILMENT_RESTORED,
}


@dataclass(frozen=True, slots=True)
class Step:
    """An order's next stage and the line that tells it."""

    order: OrderRecord
    detail: str

    @property
    def notice(self) -> tuple[NoticeCode, str, str]:
        """Return the notice to give."""
        return (_NOTICES[self.order.stage], self.order.order_id, self.detail)


def opened(
    order_id: str, miner_ids: Iterable[str], plan: SitePlan | None, revision: int, max_step_w: Watts, now: datetime
) -> OrderRecord:
    """Return a new order's record: with the ramps of its curtailment when ``plan`` has it, else as fast as allowed."""
    for item in () if plan is None else plan.curtailments:
        if item.curtailment_id == order_id:
            down, up = capped(item.ramp_down, max_step_w), capped(item.ramp_up, max_step_w)
            return OrderRecord(order_id, revision, Stage.STARTED, item.miner_ids, down, up, now)
    ramp = capped(NO_RAMP, max_step_w)
    return OrderRecord(order_id, revision, Stage.STARTED, tuple(miner_ids), ramp, ramp, now)


def slowed(order_id: str, loads_w: Sequence[Watts], plan: SitePlan | None, pace: Pace) -> str:
    """Return which of the site's limits slows a new order, and to how long, "" when none does.

    ``loads_w`` are those of its miners. The line begins with the limit's code.
    """
    item = next((one for one in (() if plan is None else plan.curtailments) if one.curtailment_id == order_id), None)
    down, up = (NO_RAMP, NO_RAMP) if item is None else (item.ramp_down, item.ramp_up)
    told = [
        f"{code}: {what} its {len(loads_w)} miners takes {pace.longest_s(ramp, loads_w):.0f} s"
        for what, ramp in (("stopping", down), ("starting", up))
        if (code := pace.slowing(ramp, loads_w))
    ]
    return "; ".join(told)


def advance(order: OrderRecord, own: Sequence[MinerRecord], now: datetime) -> Step | None:
    """Return the order's next stage, None while it stays where it is; ``own`` are the records under it."""
    stops = [record for record in own if record.verb is Verb.STOP]
    if stops and order.stage in {Stage.RELEASED, Stage.RESTORED}:
        again = replace(order, stage=Stage.STARTED, started_at=now)
        return Step(again, f"{len(stops)} miners to stop, again")
    if stops:
        waiting = order.stage is Stage.STARTED
        judged = all(record.outcome is not None for record in stops)
        return Step(replace(order, stage=Stage.HELD), _held(order, stops, now)) if waiting and judged else None
    if order.stage in {Stage.STARTED, Stage.HELD}:
        return Step(replace(order, stage=Stage.RELEASED), f"{len(own)} miners to bring back")
    starts = [record for record in own if record.verb is Verb.START]
    if order.stage is Stage.RELEASED and all(_settled(record) for record in starts):
        back = sum(record.complete for record in starts)
        return Step(replace(order, stage=Stage.RESTORED), f"{back} restored, {len(starts) - back} not answering")
    return None


def _held(order: OrderRecord, stops: list[MinerRecord], now: datetime) -> str:
    complete = sum(record.complete for record in stops)
    partial = sum(record.outcome is Outcome.PARTIAL for record in stops)
    seconds = (now - order.started_at).total_seconds()
    rest = len(stops) - complete - partial
    halves = f"{partial} partial, " if partial else ""
    return f"{complete} complete, {halves}{rest} unverified, {seconds:.0f} s"


def _settled(record: MinerRecord) -> bool:
    """Return whether the miner is back, or known not to be able to: dead, faulty, refusing."""
    return record.outcome is not None and record.reason != NOT_HASHING
