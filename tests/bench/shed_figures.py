"""What a shed came to, from the simulator's truth and device log and the agent's acks and notices. Pure.

Device time is the simulator's own: from the stop that took effect at a device to the moment its true power passed the
threshold. What is over it is ours: waiting, sending, looking, proving, writing it down. The quantiles are of those that
were proven; ``unconfirmed`` counts those that were not, and ``p99_with_unconfirmed_s`` counts each of them with the
whole time waited. ``p99_order_s`` is when the stops reached the devices: the shedding itself, whatever can be proven.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sitelink.types import Ack, Evidence, Notice, NoticeCode, Outcome, Verb

TELEMETRY = frozenset({"reports_idle", "reports_idle_now"})
_POWER = frozenset({Evidence.FEEDER_METER, Evidence.DEVICE_POWER})
_SHED = frozenset({Outcome.COMPLETE, Outcome.PARTIAL})


@dataclass(frozen=True, slots=True)
class Shed:
    """One order and all that came of it. ``ordered`` names its miners, ``waited_s`` how long acks were awaited."""

    signal_at: datetime
    waited_s: float
    ordered: Sequence[str]
    truth: Sequence[Mapping[str, Any]]
    orders: Sequence[Mapping[str, Any]]
    acks: Sequence[Ack]
    notices: Sequence[Notice]

    def figures(self) -> dict[str, float]:
        """Return the bench's figures; seconds, counts."""
        ordered = set(self.ordered)
        honest = [row for row in self.truth if row["miner_id"] in ordered and not row["dead"] and not row["liar"]]
        confirmed, device = self._confirmed_s(), self._device_s()
        over = {
            row["miner_id"]: confirmed.get(row["miner_id"], self.waited_s) - device.get(row["miner_id"], 0.0)
            for row in honest
        }
        proven = sorted(seconds for miner_id, seconds in over.items() if miner_id in confirmed)
        missing = [row["miner_id"] for row in honest if row["miner_id"] not in confirmed]
        times = sorted(device[row["miner_id"]] for row in honest if row["miner_id"] in device)
        return {
            "ordered": len(ordered),
            "honest": len(honest),
            "unconfirmed": len(missing),
            "p50_over_device_s": _quantile(proven, 0.5),
            "p99_over_device_s": _quantile(proven, 0.99),
            "p99_with_unconfirmed_s": _quantile(sorted(over.values()), 0.99),
            "device_p50_s": _quantile(times, 0.5),
            "device_p99_s": _quantile(times, 0.99),
            "p99_order_s": _quantile(sorted(self._orders_s().values()), 0.99),
            "last_order_s": round(max(self._orders_s().values(), default=0.0), 3),
            **self._liars(ordered),
        }

    def unconfirmed(self) -> list[str]:
        """Return a line for each honest live miner that was not confirmed: its last word."""
        last = {ack.miner_id: ack for ack in sorted(self._stops(), key=lambda ack: ack.at)}
        confirmed, ordered = self._confirmed_s(), set(self.ordered)
        lines = []
        for row in self.truth:
            miner_id = row["miner_id"]
            if miner_id in ordered and miner_id not in confirmed and not row["dead"] and not row["liar"]:
                ack = last.get(miner_id)
                said = "no ack" if ack is None else f"{ack.outcome.value} {ack.reason}"
                lines.append(f"{miner_id} {row['dialect']} {row['feeder_id']}: {said}")
        return lines

    def _stops(self) -> list[Ack]:
        return [ack for ack in self.acks if ack.verb is Verb.STOP]

    def _since_s(self, moment: datetime) -> float:
        return (moment - self.signal_at).total_seconds()

    def _confirmed_s(self) -> dict[str, float]:
        """Return by miner the seconds from the signal to its first proof by power."""
        found: dict[str, float] = {}
        for ack in self._stops():
            if ack.outcome is Outcome.COMPLETE and ack.evidence in _POWER:
                seconds = self._since_s(ack.at)
                found[ack.miner_id] = min(seconds, found.get(ack.miner_id, seconds))
        return found

    def _device_s(self) -> dict[str, float]:
        """Return by miner the seconds from the stop that took effect to its threshold."""
        found: dict[str, float] = {}
        for order in self.orders:
            if order["verb"] == "stop" and order["effect_at"] is not None:
                received, effect = (datetime.fromisoformat(order[name]) for name in ("received_at", "effect_at"))
                found.setdefault(order["miner_id"], (effect - received).total_seconds())
        return found

    def _orders_s(self) -> dict[str, float]:
        """Return by miner the seconds from the signal to the first stop that reached it."""
        first: dict[str, float] = {}
        for order in self.orders:
            if order["verb"] == "stop":
                first.setdefault(order["miner_id"], self._since_s(datetime.fromisoformat(order["received_at"])))
        return first

    def _liars(self, ordered: set[str]) -> dict[str, float]:
        liars = {row["miner_id"]: row for row in self.truth if row["liar"] and row["miner_id"] in ordered}
        named = self._first(NoticeCode.LIAR_NAMED)
        feeders = self._first(NoticeCode.FEEDER_DISAGREES)
        by_miner = {miner_id: named[miner_id] for miner_id in liars if miner_id in named}
        by_feeder = {
            miner_id: feeders[row["feeder_id"]]
            for miner_id, row in liars.items()
            if row["liar"] in TELEMETRY and row["feeder_id"] in feeders
        }
        either = {
            miner_id: min(found[miner_id] for found in (by_miner, by_feeder) if miner_id in found)
            for miner_id in {*by_miner, *by_feeder}
        }
        shed = {ack.miner_id for ack in self._stops() if ack.outcome in _SHED and ack.miner_id in liars}
        theirs = {row["feeder_id"] for row in liars.values()}
        return {
            "liars": len(liars),
            "liars_named": len(either),
            "liar_named_max_s": round(max(either.values(), default=0.0), 3),
            "liars_counted_as_shed": len(shed),
            "liars_named_by_miner": len(by_miner),
            "honest_named": len(named.keys() - liars.keys()),
            "feeders_named_without_liar": len(feeders.keys() - theirs),
        }

    def _first(self, code: NoticeCode) -> dict[str, float]:
        found: dict[str, float] = {}
        for notice in self.notices:
            if notice.code is code:
                seconds = self._since_s(notice.at)
                found[notice.subject] = min(seconds, found.get(notice.subject, seconds))
        return found


def _quantile(ordered: Iterable[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of the values do not exceed, 0 without any."""
    values = list(ordered)
    if not values:
        return 0.0
    place = max(0, -(-int(share * 1000) * len(values) // 1000) - 1)
    return round(values[min(place, len(values) - 1)], 3)
