"""What has been ordered of each miner and how far it got. Pure.

    STOP   WAITING --intent stored--> SENT --judged--> DONE (an outcome; tried again unless COMPLETE)
      | order ends
    START  WAITING --intent stored--> SENT --judged--> DONE (tried again until the miner is back)

Invariants: ``touched`` is set with the intent of a stop, before anything is sent, and cleared only when the miner has
been seen running after it: whatever happens between, the miner is started again. A record that leaves an order without
an outcome leaves an EXPIRED acknowledgement behind, so each (order, miner, verb) begun ends with one.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from agent.local_curtail.evidence import SUPERSEDED, Lie, Verdict
from agent.local_curtail.moments import microseconds, moment_of
from agent.local_curtail.policy import Desired
from sitelink.types import Evidence, Outcome, Ramp, Verb
from sitelink.units import Watts


class Phase(StrEnum):
    """How far a record is."""

    WAITING = "waiting"
    SENT = "sent"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class MinerRecord:
    """One miner under one order.

    ``cause`` is the policy's reason. ``baseline_w`` is what the miner drew before the stop; ``feeder_before_w`` and
    ``feeder_spread_w`` its feeder then. ``sent_at`` is the last intent, ``off_since`` the first stop intent since it
    last ran; ``sent_no`` and ``proven_no`` number intents and proofs in the order they happened, whatever the clock
    did between. ``acked`` tells whether the device accepted the order, ``woken`` whether the miner woke by itself
    under it. ``power_w`` is the last power read under it, ``detail`` why it is not proven, in words.
    """

    miner_id: str
    verb: Verb
    order_id: str
    revision: int
    cause: str
    phase: Phase = Phase.WAITING
    touched: bool = False
    woken: bool = False
    acked: bool = False
    baseline_w: Watts | None = None
    feeder_before_w: Watts | None = None
    feeder_spread_w: Watts | None = None
    power_w: Watts | None = None
    sent_at: datetime | None = None
    off_since: datetime | None = None
    sent_no: int = 0
    proven_no: int = 0
    outcome: Outcome | None = None
    evidence: Evidence = Evidence.NONE
    reason: str = ""
    lie: Lie = Lie.NONE
    detail: str = ""

    @property
    def desired(self) -> Desired:
        """Return what the policy last wanted of this miner."""
        return Desired(self.miner_id, self.verb, self.order_id, self.cause)

    @property
    def verdict(self) -> Verdict | None:
        """Return how the order stands, None before the first judgement."""
        return (
            None if self.outcome is None else Verdict(self.outcome, self.evidence, self.reason, self.lie, self.detail)
        )

    @property
    def complete(self) -> bool:
        """Return whether the order is proven done."""
        return self.outcome is Outcome.COMPLETE

    @property
    def holds_off(self) -> bool:
        """Return whether the order keeps the miner off, or its start has not been seen to work yet."""
        return self.verb is Verb.STOP or not self.complete

    def judged(self, verdict: Verdict, power_w: Watts | None) -> "MinerRecord":
        """Return this record with its outcome; a liar stays one until a stop of it is proven."""
        return replace(
            self,
            phase=Phase.DONE,
            outcome=verdict.outcome,
            evidence=verdict.evidence,
            reason=verdict.reason,
            lie=verdict.lie or (Lie.NONE if verdict.outcome is Outcome.COMPLETE else self.lie),
            power_w=power_w,
            detail=verdict.detail,
        )


class Stage(StrEnum):
    """How far an order is as a whole."""

    STARTED = "started"
    HELD = "held"
    RELEASED = "released"
    RESTORED = "restored"


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """One stop order as a whole. ``miner_ids`` is its stop order; the restore order is the reverse."""

    order_id: str
    revision: int
    stage: Stage
    miner_ids: tuple[str, ...]
    ramp_down: Ramp
    ramp_up: Ramp
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """A record's new form, and the verdicts to acknowledge with it: (record it is about, verdict)."""

    record: MinerRecord
    closes: MinerRecord | None = None
    closing: Verdict | None = None
    carries: Verdict | None = None


_NO_OUTCOME: Final[dict[str, Any]] = {
    "outcome": None,
    "evidence": Evidence.NONE,
    "reason": "",
    "detail": "",
    "phase": Phase.WAITING,
}


def again(record: MinerRecord) -> MinerRecord:
    """Return ``record`` as before its order was judged."""
    return replace(record, **_NO_OUTCOME)


def retarget(record: MinerRecord | None, desired: Desired, revision: int) -> Change | None:
    """Return how ``record`` changes when the policy wants ``desired``, None when it does not.

    A miner passed from one stop order to another is not touched again where its stop is proven, or it is a named liar:
    the new order takes that over, and is acknowledged with it. What was not proven is tried anew.
    """
    if record is None:
        if desired.verb is Verb.START and not desired.order_id:
            return None
        return Change(MinerRecord(desired.miner_id, desired.verb, desired.order_id, revision, desired.reason))
    same_order = desired.order_id in {"", record.order_id}
    if record.verb is desired.verb and same_order:
        if desired.reason == record.cause or not desired.order_id:
            return None
        return Change(replace(record, cause=desired.reason))
    if record.verb is Verb.STOP and desired.verb is Verb.STOP:
        moved = replace(record, order_id=desired.order_id, revision=revision, cause=desired.reason)
        if record.outcome is not None and not record.complete and not record.lie:
            return Change(again(moved))
        return Change(moved, *_closing(record), record.verdict)
    order_id = desired.order_id or record.order_id
    turned = replace(
        record,
        verb=desired.verb,
        order_id=order_id,
        revision=revision,
        cause=desired.reason,
        acked=False,
        **_NO_OUTCOME,
    )
    if desired.verb is Verb.STOP:
        turned = replace(
            turned, lie=Lie.NONE, woken=False, baseline_w=None, feeder_before_w=None, feeder_spread_w=None, power_w=None
        )
    return Change(turned, *_closing(record))


def to_json(record: MinerRecord | OrderRecord) -> str:
    """Return ``record`` as one JSON object."""
    return json.dumps(asdict(record), default=microseconds, separators=(",", ":"))


def miner_of(text: str) -> MinerRecord:
    """Return the miner's record that ``to_json`` wrote."""
    fields: dict[str, Any] = json.loads(text)
    return MinerRecord(
        **{
            **fields,
            "verb": Verb(fields["verb"]),
            "phase": Phase(fields["phase"]),
            "outcome": None if fields["outcome"] is None else Outcome(fields["outcome"]),
            "evidence": Evidence(fields["evidence"]),
            "lie": Lie(fields["lie"]),
            "sent_at": _moment(fields, "sent_at"),
            "off_since": _moment(fields, "off_since"),
        }
    )


def order_of(text: str) -> OrderRecord:
    """Return the order's record that ``to_json`` wrote."""
    fields: dict[str, Any] = json.loads(text)
    return OrderRecord(
        fields["order_id"],
        fields["revision"],
        Stage(fields["stage"]),
        tuple(fields["miner_ids"]),
        Ramp(**fields["ramp_down"]),
        Ramp(**fields["ramp_up"]),
        moment_of(fields["started_at"]),
    )


def _closing(record: MinerRecord) -> tuple[MinerRecord | None, Verdict | None]:
    return (record, SUPERSEDED) if record.outcome is None else (None, None)


def _moment(fields: Mapping[str, Any], name: str) -> datetime | None:
    return None if fields[name] is None else moment_of(fields[name])
