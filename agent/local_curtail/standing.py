"""How the orders of a site stand, as one plain document: for ``plan show``, from the daemon's memory or from its file.

Invariant: the time and its trust are those of the site; what applies now is what the books say was last wanted of each
miner, so it is as old as the daemon's last decision.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from agent.local_curtail.held import held_of
from agent.local_curtail.overrides import StoredOverride
from agent.local_curtail.records import MinerRecord
from sitelink.types import ClockTrust, Curtailment, SitePlan

_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Standing:
    """What is held and in force.

    ``fallback`` is why the site follows its fallback, empty when it does not; ``heat`` marks who is held for it.
    """

    now: datetime
    trust: ClockTrust
    plan: SitePlan | None
    overrides: tuple[StoredOverride, ...]
    records: tuple[MinerRecord, ...]
    fallback: str
    heat: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "now": self.now.isoformat(),
            "trust": self.trust.value,
            "plan": None if self.plan is None else _plan(self.plan, self.now),
            "overrides": [item.document() for item in self.overrides],
            "applies": _applies(self.records),
            "fallback": self.fallback,
            "too_hot": [sorted(names) for names in held_of(self.heat)],
        }


def lines(document: dict[str, Any]) -> list[str]:
    """Return a standing's document as lines for a terminal."""
    found = [f"clock       {document['now'][:19]} UTC, {document['trust']}"]
    plan = document["plan"]
    if plan is None:
        found.append("plan        none held: miners run unless something below says otherwise")
    else:
        ending = "EXPIRED" if plan["expired"] else "valid until"
        found.append(
            f"plan        {plan['plan_id']}, revision {plan['revision']}, {ending} {plan['valid_until'][:19]} UTC, "
            f"then {plan['fallback']}"
        )
        found += [
            f"window      {item['start'][:19]} to {item['end'][:19]} UTC  {item['miners']} miners, {item['cause']}, "
            f"{item['curtailment_id']}{'  NOW' if item['now'] else ''}"
            for item in plan["windows"]
        ]
    if document["fallback"]:
        found.append(f"fallback    {document['fallback']}")
    miners, racks = document.get("too_hot", ((), ()))
    if miners or racks:
        named = [*miners[:_NAMED], *(f"rack {rack}" for rack in racks)]
        more = f" and {len(miners) - _NAMED} more" if len(miners) > _NAMED else ""
        found.append(f"too hot     {', '.join(named)}{more}: stopped until cooled, whatever the plan says")
    found += [
        f"override    {item['verb']} of {item['miners'] if item['miners'] is not None else 'all'} miners until "
        f"{item['until'][:19]} UTC, {item['override_id']}"
        for item in document["overrides"]
    ]
    found += [f"applies     {item['miners']} miners: {item['verb']}, {item['cause']}" for item in document["applies"]]
    return found


def _plan(plan: SitePlan, now: datetime) -> dict[str, Any]:
    return {
        "plan_id": plan.plan_id,
        "revision": plan.revision,
        "issued_at": plan.issued_at.isoformat(),
        "valid_until": plan.valid.end.isoformat(),
        "expired": now >= plan.valid.end,
        "fallback": plan.fallback.value,
        "windows": [_window(item, now) for item in sorted(plan.curtailments, key=lambda one: one.interval.start)],
    }


def _window(item: Curtailment, now: datetime) -> dict[str, Any]:
    return {
        "curtailment_id": item.curtailment_id,
        "cause": item.cause.value,
        "start": item.interval.start.isoformat(),
        "end": item.interval.end.isoformat(),
        "miners": len(item.miner_ids),
        "now": item.interval.contains(now),
    }


def _applies(records: Iterable[MinerRecord]) -> list[dict[str, Any]]:
    counts = Counter((record.verb.value, record.cause) for record in records)
    return [{"verb": verb, "cause": cause, "miners": count} for (verb, cause), count in sorted(counts.items())]
