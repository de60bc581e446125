"""A stub of the cloud: stores, receipts, pushes orders until it hears of them, and is restored from a backup.

Invariants it checks at once: a batch never comes with other bytes under its number, and no reading comes under two
numbers. What it once stored and lost with a restore it may be sent again; that is no double.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sitelink import codec
from sitelink.orders import write_command, write_plan, write_time
from sitelink.types import (
    Ack,
    Batch,
    Command,
    Cursor,
    Curtailment,
    CurtailmentCause,
    Domain,
    Envelope,
    Fallback,
    Heartbeat,
    Hello,
    Interval,
    Notice,
    NoticeCode,
    Ramp,
    Receipt,
    SignedTime,
    SitePlan,
    UpFrame,
    Verb,
    Welcome,
)
from sitelink.units import Watts
from tests.simulation.edge.network import Session
from tests.simulation.edge.schedule import Event
from tests.simulation.keys import ORDER_KEY
from tests.simulation.world import T0
from tests.unit.agent.uplink_fakes import is_cut

if TYPE_CHECKING:
    from tests.simulation.edge.world import EdgeWorld

PUSH_S = 4.0
PUSH_AGAIN_S = 10.0
RESTORING_S = 3.0
PLAN_MARGIN_S = 5.0
SETTLED_BY = {NoticeCode.COMMAND_ACCEPTED, NoticeCode.COMMAND_REFUSED}


def at(seconds: float) -> Any:
    return T0 + timedelta(seconds=seconds)


@dataclass
class Stored:
    batch: Batch
    stored_s: float
    acks: tuple[Ack, ...]
    notices: tuple[Notice, ...]


def ramp_s(window: dict[str, Any]) -> float:
    """Return how long the miners of ``window`` take to come back."""
    step_w, step_s = window.get("up", (0.0, 0.0))
    if not step_w:
        return 0.0
    return -(-len(window["miners"]) // max(1, int(step_w // 3500))) * step_s


def plan_of(event: Event, epoch: int, *, site: str = "site-1", agent: str = "agent-1") -> SitePlan:
    windows = event.what["windows"]
    ends_s = max([window["end_s"] + ramp_s(window) for window in windows], default=event.at_s)
    valid = Interval(at(0), at(max(ends_s, event.at_s) + event.what.get("margin_s", PLAN_MARGIN_S)))
    items = tuple(
        Curtailment(
            window["id"], CurtailmentCause.PRICE, Interval(at(window["start_s"]), at(window["end_s"])),
            tuple(window["miners"]), Ramp(Watts(0.0), 0.0), Ramp(Watts(window.get("up", (0, 0))[0]), window.get("up", (0, 0))[1]),
        )
        for window in windows
    )  # fmt: skip
    number = event.what["sequence"]
    return SitePlan(f"plan-{number}", site, agent, epoch, number, number, at(0), valid, Fallback.RUN, items)


def command_of(event: Event, epoch: int, *, site: str = "site-1", agent: str = "agent-1") -> Command:
    what = event.what
    parameters = tuple((name, value) for name, value in what.get("parameters", {}).items())
    return Command(
        what["id"], site, agent, epoch, what["sequence"], at(what.get("not_before_s", 0.0)), at(what["expires_s"]),
        Verb(what["verb"]), tuple(what["miners"]), "drill", parameters,
    )  # fmt: skip


class SimCloud:
    def __init__(self, world: "EdgeWorld") -> None:
        self._world = world
        self.epoch = 1
        self.stored: dict[tuple[str, int], Stored] = {}
        self.settled: set[str] = set()
        """Commands whose acceptance or refusal it knows of."""
        self._ever: dict[tuple[str, int], bytes] = {}
        self._spans: dict[str, set[int]] = {}
        self._places: dict[tuple[str, Any], tuple[str, int]] = {}
        self.genuine: dict[bytes, Envelope] = {}
        """Every order ever signed, by its payload."""
        self.nonces: list[str] = []
        self._down_until_s = 0.0

    def is_down(self) -> bool:
        return self._world.now_s < self._down_until_s

    def hear(self, session: Session, frame: UpFrame) -> None:
        if self.is_down():
            return
        match frame:
            case Hello():
                session.greeted, session.revision = True, frame.plan_revision
                self._answer(session, Welcome(self.stored_of(frame.epoch)))
                self.push(session)
            case Heartbeat():
                self.nonces.append(frame.nonce)
                session.revision = frame.plan_revision
                signed = SignedTime("site-1", frame.nonce, self._world.true_time())
                self._answer(session, self._world.time_key.sign(Domain.TIME, write_time(signed)))
                self.push(session)
            case Batch():
                self._store(frame)
                last = frame.last_seq
                receipt = Receipt(frame.site_id, frame.epoch, frame.first_seq, last, self.cursor(frame.epoch))
                self._answer(session, receipt)

    def cursor(self, epoch: str) -> int:
        """Return how far the epoch is stored without a gap."""
        ends = {number: item.batch.last_seq for (name, number), item in self.stored.items() if name == epoch}
        through = -1
        while through + 1 in ends:
            through = ends[through + 1]
        return through

    def stored_of(self, epoch: str) -> Cursor:
        through = self.cursor(epoch)
        later = sorted((number, item.batch.last_seq) for (name, number), item in self.stored.items() if name == epoch)
        return Cursor("site-1", epoch, through, tuple(span for span in later if span[0] > through))

    def _store(self, batch: Batch) -> None:
        key = (batch.epoch, batch.first_seq)
        before = self._ever.setdefault(key, batch.payload)
        if before != batch.payload and not is_cut(before, batch.payload):
            self._world.violated("numbers twice", f"item {batch.first_seq} of {batch.epoch} came with other bytes")
        if key in self.stored:
            self._world.cover("batch stored twice")
            return
        taken = self._spans.setdefault(batch.epoch, set())
        numbers = set(range(batch.first_seq, batch.last_seq + 1))
        if before is batch.payload and not taken.isdisjoint(numbers):
            self._world.violated("numbers twice", f"items {batch.first_seq}..{batch.last_seq} overlap others")
        taken |= numbers
        body = codec.unpack(batch.payload)
        self.stored[key] = Stored(batch, self._world.now_s, body.acks, body.notices)
        self._world.note("stored", batch.epoch, batch.first_seq, batch.count)
        self._check_double(key, [("reading", (r.miner_id, r.read_at)) for r in body.readings])
        self._check_double(key, [("ack", ack.ack_id) for ack in body.acks])
        self._check_double(key, [("notice", notice.notice_id) for notice in body.notices])
        self.settled |= {notice.subject for notice in body.notices if notice.code in SETTLED_BY}

    def _check_double(self, key: tuple[str, int], items: list[tuple[str, Any]]) -> None:
        for item in items:
            if self._places.setdefault(item, key) != key:
                self._world.violated("doubled", f"{item} came as {self._places[item]} and as {key}")

    def _answer(self, session: Session, frame: Any) -> None:
        self._world.network.down(session, frame)

    def push(self, session: Session) -> None:
        """Send what the site has not acknowledged: the newest plan while it lags, each command until it is settled."""
        if not session.greeted or session.closed or self.is_down():
            return
        now_s = self._world.now_s
        plans = [event for event in self._world.schedule.of("plan") if event.at_s <= now_s]
        if plans:
            newest = max(plans, key=lambda event: event.what["sequence"])
            if session.revision < newest.what["sequence"] or self.epoch > 1:
                self._push_one(session, self.sealed_plan(newest))
        for event in self._world.schedule.of("command"):
            due = event.at_s <= now_s < event.what["expires_s"]
            if due and event.what["id"] not in self.settled:
                self._push_one(session, self.sealed_command(event))

    def _push_one(self, session: Session, envelope: Envelope) -> None:
        sent_s = session.sent_s.get(envelope.payload)
        if sent_s is None or self._world.now_s - sent_s >= PUSH_AGAIN_S:
            session.sent_s[envelope.payload] = self._world.now_s
            self._world.ordered(envelope)
            self._answer(session, envelope)

    def sealed_plan(self, event: Event) -> Envelope:
        return self._sealed(Domain.PLAN, write_plan(plan_of(event, self.epoch)))

    def sealed_command(self, event: Event) -> Envelope:
        return self._sealed(Domain.COMMAND, write_command(command_of(event, self.epoch)))

    def _sealed(self, domain: Domain, payload: bytes) -> Envelope:
        if payload not in self.genuine:
            self.genuine[payload] = ORDER_KEY.sign(domain, payload)
        return self.genuine[payload]

    def restore(self, back_s: float) -> None:
        """Go back to the backup of ``back_s`` ago, as every conversation ends; a new signing epoch begins."""
        world = self._world
        kept_s = world.now_s - back_s
        lost = [key for key, item in self.stored.items() if item.stored_s > kept_s]
        for key in lost:
            self._spans[key[0]] -= set(range(key[1], self.stored[key].batch.last_seq + 1))
            del self.stored[key]
        self.settled = {
            notice.subject for item in self.stored.values() for notice in item.notices if notice.code in SETTLED_BY
        }
        self.epoch += 1
        self._down_until_s = world.now_s + RESTORING_S
        if world.network.current is not None:
            world.network.current.end()
        world.cover("cloud restored" if lost else "cloud restored whole")

    def acks(self) -> list[Ack]:
        return [ack for item in self.stored.values() for ack in item.acks]

    def notices(self) -> list[Notice]:
        return [notice for item in self.stored.values() for notice in item.notices]


def hostile(world: "EdgeWorld", event: Event) -> Envelope | None:
    """Return the envelope of a hostile event; None while there is nothing to misuse yet."""
    kind, order = event.what["how"], event.what.get("order")
    cloud = world.cloud
    if kind == "replay":
        past = [envelope for envelope in cloud.genuine.values() if envelope.domain == event.what["domain"]]
        return past[event.what["nth"] % len(past)] if past else None
    if kind == "time":
        if len(cloud.nonces) < 4:
            return None
        nonce = cloud.nonces[0 if event.what["used"] else -1]
        wrong = SignedTime(event.what["site"], nonce, at(event.what["says_s"]))
        return world.forged_time(write_time(wrong), known=event.what["known"])
    if kind == "old_epoch" and not any(notice.code is NoticeCode.PLAN_ACCEPTED for notice in cloud.notices()):
        return None
    evil = Event(order["kind"], event.at_s, order["what"])
    epoch = event.what.get("epoch", cloud.epoch)
    address = {"site": event.what.get("site", "site-1"), "agent": event.what.get("agent", "agent-1")}
    if evil.kind == "plan":
        domain, payload = Domain.PLAN, write_plan(plan_of(evil, epoch, **address))
    else:
        domain, payload = Domain.COMMAND, write_command(command_of(evil, epoch, **address))
    signed = ORDER_KEY.sign(domain, payload)
    if kind == "forged":
        return replace(world.forger.sign(domain, payload), key_id=event.what.get("key_id") or world.forger.key_id)
    if kind == "mutated":
        return replace(signed, payload=payload.replace(b'"sequence":', b'"sequence":9', 1))
    if kind == "other_domain":
        other = Domain.COMMAND if domain is Domain.PLAN else Domain.PLAN
        return replace(signed, domain=other)
    return signed
