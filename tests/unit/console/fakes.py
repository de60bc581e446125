"""A hand-written console source: deterministic sites of any size, and accounts in memory."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from itertools import pairwise
from math import sin
from random import Random
from uuid import UUID

import numpy as np

from cloud.api.source import (
    EvidenceRow,
    FleetRead,
    InvoiceLine,
    InvoiceRead,
    InvoicesRead,
    InvoiceSummary,
    MarketSlot,
    MinerRead,
    PlanFacts,
    PlannedStop,
    PlanSlot,
    SignedIn,
    SiteRead,
    StopCheck,
)
from cloud.core.access import Principal, Role
from cloud.core.errors import NotFound, Refused, Transient
from cloud.core.money import Money
from cloud.hosting import latest
from cloud.hosting.columns import INVENTORY_FIELDS, NO_POWER, Inventory, MinerColumns, PowerColumns
from cloud.hosting.model import Desired, LinkState, MinerRow, SiteSummary
from sitelink.codec import REASONS, STATES
from sitelink.types import (
    Ack,
    CurtailmentCause,
    Evidence,
    Interval,
    MinerState,
    Notice,
    NoticeCode,
    Outcome,
    Reading,
    Reason,
    Verb,
)
from sitelink.units import Celsius, RevolutionsPerMinute, TeraHashPerSecond, Watts

NOW = datetime(2026, 11, 24, 20, 5, 7, tzinfo=UTC)
TENANT = UUID(int=1)
PRINCIPAL = Principal(TENANT, "account:1", Role.OWNER)
EMAIL = "operator@ballast.local"
PASSWORD = "correct horse battery"
WATTS = 3400.0
RATE = 110.0


def _rate(rows) -> TeraHashPerSecond | None:
    known = [row.hashrate_ths for row in rows if row.hashrate_ths is not None]
    return TeraHashPerSecond(sum(known)) if known else None


def columns(*rows: MinerRow) -> MinerColumns:
    """The rows as the store returns them."""
    names = {name: tuple(getattr(row, name) for row in rows) for name in INVENTORY_FIELDS}
    records = latest.take(
        latest.load(None), np.array([row.miner_id.encode() for row in rows], latest.RECORD["miner_id"])
    )
    for place, row in enumerate(rows):
        records["state"][place] = STATES.index(row.state)
        records["reason"][place] = REASONS.index(row.reason)
        records["liar"][place] = row.liar
        if row.read_at is not None:
            records["read_at_ms"][place] = int(row.read_at.timestamp() * 1000)
        for name in ("hashrate_ths", "power_w", "board_temp_c", "chip_temp_c", "fan_rpm", "uptime_s"):
            if getattr(row, name) is not None:
                records[name][place] = getattr(row, name)
    stopped = np.array([row.desired is Desired.STOP for row in rows], dtype=bool)
    return MinerColumns(Inventory(**names), records, stopped)


def miner(place: int, **values) -> MinerRow:
    """A healthy running miner."""
    row = MinerRow(
        miner_id=f"02:00:00:00:{place >> 8:02x}:{place & 255:02x}",
        model="Antminer S19j Pro",
        dialect="luxos",
        feeder_id=f"F{place // 10 + 1}",
        rack=f"C{place // 100 + 1}-R{place // 25 % 4 + 1}",
        position=place % 25 + 1,
        state=MinerState.HASHING,
        reason=Reason.NONE,
        hashrate_ths=TeraHashPerSecond(RATE),
        power_w=Watts(WATTS),
        board_temp_c=Celsius(62.0),
        chip_temp_c=Celsius(74.0),
        fan_rpm=RevolutionsPerMinute(5600),
        uptime_s=86400,
        read_at=NOW - timedelta(seconds=20),
        nameplate_w=Watts(WATTS),
        nameplate_ths=TeraHashPerSecond(RATE),
        controllable=True,
        desired=Desired.RUN,
        liar=False,
        last_ack_verb=None,
        last_ack_outcome=None,
        last_ack_evidence=None,
        last_ack_reason=None,
        last_ack_at=None,
    )
    return replace(row, **values)


def stopped(place: int, **values) -> MinerRow:
    """A miner that its order stopped."""
    base = miner(
        place,
        state=MinerState.IDLE,
        reason=Reason.COMMANDED,
        hashrate_ths=TeraHashPerSecond(0.0),
        power_w=Watts(50.0),
        board_temp_c=Celsius(28.0),
        chip_temp_c=Celsius(30.0),
        desired=Desired.STOP,
    )
    return replace(base, **values)


def silent(place: int, **values) -> MinerRow:
    """A miner that does not answer."""
    nothing = dict.fromkeys(("hashrate_ths", "power_w", "board_temp_c", "chip_temp_c", "fan_rpm", "uptime_s"))
    return miner(place, **(nothing | {"state": MinerState.UNKNOWN, "reason": Reason.UNREACHABLE} | values))


def live_link() -> LinkState:
    """A link that is up, heard of two seconds ago."""
    return LinkState(True, NOW - timedelta(seconds=2), "pecos-1-7f3a", 7, "synced", 0, 0)


def plan(rows: tuple[MinerRow, ...], start: timedelta, end: timedelta, now: datetime) -> PlanFacts:
    """One curtailment of the first quarter of the miners, from ``start`` to ``end`` after now."""
    ids = tuple(row.miner_id for row in rows if row.desired is Desired.STOP) or tuple(
        row.miner_id for row in rows[: len(rows) // 4]
    )
    window = Interval(now + start, now + end)
    whole, shed = Watts(len(rows) * WATTS * 1.03), Watts(len(ids) * WATTS)
    stop = PlannedStop("cur-0001", CurtailmentCause.PRICE, window, ids, Watts(whole - shed), shed)
    edges = [now - timedelta(hours=6), window.start, window.end, now + timedelta(hours=20)]
    slots = tuple(
        PlanSlot(Interval(a, b), Watts(whole - (shed if a == window.start else 0))) for a, b in pairwise(edges)
    )
    valid = Interval(now - timedelta(hours=6), now + timedelta(hours=20))
    return PlanFacts(7, "plan-7", now - timedelta(minutes=3), valid, "solver", "", 612.4, 615.1, 0.0021, (stop,), slots)


def prices(now: datetime, spike: Interval | None = None) -> tuple[MarketSlot, ...]:
    start = now.replace(minute=0, second=0) - timedelta(hours=24)
    slots = []
    for hour in range(60):
        begins = start + timedelta(hours=hour)
        value = 42 + 25 * sin(hour / 4)
        if spike and spike.start < begins + timedelta(hours=1) and begins < spike.end:
            value = 240.0
        slots.append(MarketSlot(Interval(begins, begins + timedelta(hours=1)), value))
    return tuple(slots)


@dataclass
class SiteCase:
    """One site of the fake: its rows, link and plan."""

    site_id: str = "pecos-1"
    name: str = "Pecos 1"
    timezone: str = "America/Chicago"
    rows: tuple[MinerRow, ...] = ()
    link: LinkState = field(default_factory=live_link)
    stop: tuple[timedelta, timedelta] | None = (timedelta(hours=1), timedelta(hours=2))
    power_w: float | None = None
    meter: bool = True
    history: timedelta = timedelta(hours=6)
    notices: tuple[Notice, ...] = ()
    checks: tuple[StopCheck, ...] = ()


@dataclass
class FakeReads:
    """Implements ``ConsoleReads``; ``now`` moves as the test says; ``down`` is a database outage."""

    cases: list[SiteCase] = field(default_factory=list)
    now: datetime = field(default_factory=lambda: NOW)
    down: bool = False
    invoice_reads: list[InvoiceRead] = field(default_factory=list)
    calls: int = 0

    def ready(self) -> None:
        if self.down:
            raise Transient("database: down")

    def fleet(self, principal: Principal) -> FleetRead:
        self.ready()
        sites = tuple(self.site(principal, case.site_id, timedelta(minutes=15)) for case in self.cases)
        return FleetRead(sites, self.now)

    def site(self, principal: Principal, site_id: str, back: timedelta) -> SiteRead:
        self.ready()
        self.calls += 1
        case = next((case for case in self.cases if case.site_id == site_id), None)
        if case is None or not principal.sees(site_id):
            raise NotFound(f"there is no site {site_id}")
        rows = case.rows
        sums = sum(row.power_w or 0 for row in rows)
        power = Watts(case.power_w if case.power_w is not None else sums * 1.03)
        made = plan(rows, *case.stop, now=self.now) if case.stop and rows else None
        spike = made.stops[0].interval if made else None
        series = self._power(case, power, made, min(back, case.history)) if case.meter and rows else NO_POWER
        states = [row.state for row in rows]
        return SiteRead(
            summary=SiteSummary(
                site_id=case.site_id,
                name=case.name,
                timezone=case.timezone,
                miners_total=len(rows),
                hashing=states.count(MinerState.HASHING),
                idle=states.count(MinerState.IDLE),
                unknown=states.count(MinerState.UNKNOWN),
                stopped_by_plan=sum(row.desired is Desired.STOP for row in rows),
                power_w=power if len(series) else None,
                device_power_w=Watts(sums) if rows else None,
                hashrate_ths=_rate(rows),
                link=case.link,
                as_of=max((row.read_at for row in rows if row.read_at), default=None),
            ),
            miners=columns(*rows),
            power=series,
            notices=case.notices,
            plan=made,
            prices=prices(self.now, spike) if rows else (),
            checks=case.checks,
            read_at=self.now,
        )

    def _power(self, case: SiteCase, power: Watts, made: PlanFacts | None, back: timedelta):
        random = Random(7)
        steps = int(back / timedelta(seconds=30))
        points = []
        for step in range(steps, 0, -1):
            at = self.now - timedelta(seconds=30 * step)
            slot = next((s for s in made.slots if s.interval.contains(at)), None) if made else None
            base = slot.planned_w if slot else power
            points.append((at, Watts(base * (1 + random.gauss(0, 0.003)))))
        points.append((self.now, power))
        return PowerColumns(np.array([at.timestamp() for at, _ in points]), np.array([watts for _, watts in points]))

    def miner(self, principal: Principal, site_id: str, miner_id: str, back: timedelta) -> MinerRead:
        read = self.site(principal, site_id, back)
        row = read.miners.find(miner_id)
        if row is None:
            raise NotFound(f"site {site_id} has no miner {miner_id}")
        random = Random(3)
        history = tuple(
            Reading(
                miner_id,
                self.now - timedelta(minutes=minute),
                MinerState.HASHING,
                hashrate_ths=None if 100 < minute < 140 else TeraHashPerSecond(RATE + random.gauss(0, 2)),
                power_w=None if 100 < minute < 140 else Watts(WATTS + random.gauss(0, 30)),
                board_temp_c=None if 100 < minute < 140 else Celsius(62 + 4 * sin(minute / 60)),
            )
            for minute in range(int(back / timedelta(minutes=1)), 0, -1)
        )
        acks = (
            Ack("a2", "cur-0001", 7, miner_id, Verb.START, Outcome.COMPLETE, Evidence.DEVICE_POWER, "power_rose",
                self.now - timedelta(hours=1), Watts(52.0), Watts(3380.0)),
            Ack("a1", "cur-0001", 7, miner_id, Verb.STOP, Outcome.UNVERIFIED, Evidence.FEEDER_METER,
                "feeder_did_not_drop", self.now - timedelta(hours=2), Watts(3400.0), None),
        )  # fmt: skip
        notices = (
            Notice("n9", self.now - timedelta(hours=2), NoticeCode.LIAR_NAMED, miner_id, "feeder F1 did not drop"),
        )
        return MinerRead(read.summary, row, history, acks, notices, read.plan, self.now - back, self.now)

    def invoices(self, principal: Principal) -> InvoicesRead:
        self.ready()
        return InvoicesRead(tuple(read.summary for read in self.invoice_reads), self.now)

    def invoice(self, principal: Principal, invoice_id: str) -> InvoiceRead:
        found = next((read for read in self.invoice_reads if read.summary.invoice_id == invoice_id), None)
        if found is None:
            raise NotFound(f"there is no invoice {invoice_id}")
        return found


def invoice() -> InvoiceRead:
    """A month of energy, one silent interval estimated."""
    period = Interval(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
    total = Money(Decimal("41234.56"))
    summary = InvoiceSummary("inv-1", "2026-10-0001", "pecos-1", period, total, "issued", NOW)
    line = InvoiceLine("Energy, 604.122 MWh at the contract's rate", "604,122.0 kWh", "0.068256 USD/kWh", total)
    evidence = tuple(
        EvidenceRow("site-1", Interval(period.start + n * timedelta(minutes=15), period.start + (n + 1) * timedelta(minutes=15)), "203.25", n == 3)
        for n in range(8)
    )  # fmt: skip
    return InvoiceRead(summary, (line,), evidence, 2976, Money(Decimal("812.40")), total, True, NOW)


@dataclass
class FakeAccounts:
    """Implements ``Accounts`` in memory."""

    password: str = PASSWORD
    must_change: bool = False
    sessions: dict[str, Principal] = field(default_factory=dict)
    principal: Principal = PRINCIPAL
    count: int = 0

    def _open(self) -> str:
        self.count += 1
        token = f"token-{self.count}"
        self.sessions[token] = self.principal
        return token

    def sign_in(self, email: str, password: str) -> str | None:
        return self._open() if (email, password) == (EMAIL, self.password) else None

    def session(self, token: str) -> SignedIn | None:
        principal = self.sessions.get(token)
        return None if principal is None else SignedIn(principal, EMAIL, self.must_change)

    def change_password(self, token: str, old: str, new: str) -> str | None:
        if old != self.password:
            return None
        if len(new) < 12:
            raise Refused("weak_password", "choose at least 12 letters, and not your email address.")
        self.password, self.must_change = new, False
        self.sessions.clear()
        return self._open()

    def sign_out(self, token: str) -> None:
        self.sessions.pop(token, None)


def check(liars: tuple[str, ...] = ()) -> StopCheck:
    window = Interval(NOW - timedelta(hours=3), NOW - timedelta(hours=2))
    return StopCheck(
        "cur-0000", window, "partial" if liars else "verified", "",
        {Evidence.FEEDER_METER: 50, Evidence.DEVICE_POWER: 10 - len(liars)}, 60, 60 - len(liars), 0,
        len(liars), 0.1874, 0.2041, liars, NOW - timedelta(hours=1),
    )  # fmt: skip


def notices(count: int) -> tuple[Notice, ...]:
    codes = (NoticeCode.PLAN_ACCEPTED, NoticeCode.CURTAILMENT_STARTED, NoticeCode.LIAR_NAMED, NoticeCode.LINK_RESTORED)
    return tuple(
        Notice(f"n{n}", NOW - timedelta(minutes=7 * n), codes[n % 4], f"subject-{n}", f"what happened, number {n}, in one plain line")
        for n in range(count)
    )  # fmt: skip


def normal_site() -> SiteCase:
    """250 miners, a few dead, all to plan."""
    rows = tuple(silent(n) if n % 31 == 7 else miner(n, board_temp_c=Celsius(52.0 + n * 7 % 21)) for n in range(250))
    whole = 250 * WATTS * 1.03
    return SiteCase(rows=rows, power_w=whole * 0.992, notices=notices(5), checks=(check(),))


def shedding_site() -> SiteCase:
    """A curtailment runs, with liars, an honest straggler, a hot miner and some off."""
    rows = []
    for n in range(250):
        if n in {20, 40}:
            rows.append(stopped(n, liar=True, last_ack_outcome=Outcome.UNVERIFIED))
        elif n == 33:
            rows.append(miner(n, desired=Desired.STOP))
        elif n < 70:
            rows.append(stopped(n))
        elif n in {100, 180}:
            rows.append(miner(n, board_temp_c=Celsius(88.0)))
        elif n in {120, 121, 122}:
            rows.append(miner(n, board_temp_c=Celsius(78.0)))
        elif n == 200:
            rows.append(stopped(n, desired=Desired.RUN, reason=Reason.FAULT))
        elif n % 31 == 7:
            rows.append(silent(n))
        else:
            rows.append(miner(n, board_temp_c=Celsius(52.0 + n * 7 % 21)))
    shed = 70 * WATTS
    power = 250 * WATTS * 1.03 - shed + 60_000
    return SiteCase(
        "pecos-2", "Pecos 2", rows=tuple(rows), stop=(timedelta(minutes=-25), timedelta(minutes=35)), power_w=power,
        notices=notices(20), checks=(check((rows[20].miner_id, rows[40].miner_id)),),
    )  # fmt: skip


def lost_site() -> SiteCase:
    """The link is cut for an hour; every miner's state has gone stale."""
    link = replace(live_link(), up=False, last_heard=NOW - timedelta(minutes=62))
    rows = tuple(silent(n, reason=Reason.NOT_REPORTED, read_at=NOW - timedelta(minutes=62)) for n in range(250))
    return SiteCase("odessa", "Odessa", rows=rows, link=link, meter=False)


@cache
def _huge_rows() -> tuple[MinerRow, ...]:
    rows = []
    for n in range(5000):
        rack = f"C{n // 500 + 1}-R{n // 50 % 10 + 1}"
        values = {"rack": rack, "position": n % 50 + 1, "model": "M60S++ hydro, batch of the year of the horse"}
        if n % 97 == 5:
            rows.append(silent(n, **values))
        elif n % 211 == 9:
            rows.append(miner(n, board_temp_c=Celsius(86.0), **values))
        elif n % 83 == 11:
            rows.append(miner(n, board_temp_c=Celsius(77.0), **values))
        elif n < 1500 and n % 139 == 3:
            rows.append(miner(n, desired=Desired.STOP, **values))
        elif n < 1500:
            rows.append(stopped(n, **values))
        else:
            rows.append(miner(n, board_temp_c=Celsius(48.0 + n * 13 % 26), **values))
    return tuple(rows)


def huge_site() -> SiteCase:
    """5,000 miners and names of forty characters, some Chinese."""
    return SiteCase(
        "inner-mongolia", "内蒙古鄂尔多斯达拉特旗第三数据中心二期扩建工程变电站北侧一号矿场甲乙丙丁戊己庚", "Asia/Shanghai",
        rows=_huge_rows(), stop=(timedelta(minutes=-40), timedelta(minutes=80)), notices=notices(50),
    )  # fmt: skip


def never_site() -> SiteCase:
    """Created, no inventory, no agent."""
    link = LinkState(False, None, None, 0, None, 0, 0)
    return SiteCase("new-site", "A-site-with-a-name-of-forty-characters-x", rows=(), link=link, stop=None, meter=False)
