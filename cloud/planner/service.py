"""Use cases of the planner: gather, plan, activate; signals in and out.

Invariants:

* A new revision is one transaction with its ``PlanActivated`` event; of two replicas that plan at once one writes, the
  other gets ``Conflict`` and reads again.
* A plan that orders the same and is valid long enough is not written again. The first plan of a site, though it may be
  empty, always is.
* A silent site keeps its plan: it cannot be told of another, and must not come back to one that forgot its stops.
* Without known prices no price curtailment is invented or dropped, and the plan says why.
* Services do not commit.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from cloud.core.access import Permission
from cloud.core.errors import BadInput, NotFound
from cloud.core.events import PlanActivated
from cloud.core.times import kept_moment
from cloud.hosting.model import MinerRow
from cloud.infra.db import UnitOfWork
from cloud.infra.sites import require_site
from cloud.planner import store
from cloud.planner.continuity import same_orders
from cloud.planner.fleet import select, select_unrated
from cloud.planner.model import FleetMiner, Limits, Plan, Price, Rules, Signal, SignalKind
from cloud.planner.replan import Situation, next_plan
from cloud.planner.spikes import find_spikes, merge_spikes, strike
from cloud.settings import Settings
from sitelink.types import Interval, Ramp
from sitelink.units import UsdPerPetahashDay, Watts

_STALE_INTERVALS: Final = 3
_LARGEST_CAP_W: Final = Watts(1e12)


@dataclass(frozen=True, slots=True)
class Policy:
    """The planner's part of the settings. ``price_stale`` None: no feed is configured, so prices do not age."""

    market: str
    rules: Rules
    limits: Limits
    horizon: timedelta
    seen_within: timedelta
    price_stale: timedelta | None
    solver_limit_s: float = 10.0


def policy(settings: Settings) -> Policy:
    """Return the planner's part of ``settings``."""
    stale_s = settings.price_stale_s or _STALE_INTERVALS * settings.market_interval_s
    ramp = Ramp(Watts(settings.ramp_step_w), settings.ramp_step_s)
    return Policy(
        market=settings.market,
        rules=Rules(
            hashprice=UsdPerPetahashDay(settings.hashprice_usd_per_ph_day),
            min_up=timedelta(seconds=settings.min_run_s),
            min_down=timedelta(seconds=settings.min_block_s),
            max_off=timedelta(seconds=settings.max_off_s),
            import_limit_w=None if settings.import_limit_w is None else Watts(settings.import_limit_w),
        ),
        limits=Limits(
            lead=timedelta(seconds=settings.lead_s),
            ramp_down=ramp,
            ramp_up=ramp,
            margin=timedelta(seconds=settings.plan_margin_s),
            min_validity=timedelta(seconds=settings.plan_validity_s),
        ),
        horizon=timedelta(seconds=settings.horizon_s),
        seen_within=timedelta(seconds=settings.seen_within_s),
        price_stale=timedelta(seconds=stale_s) if settings.market_url else None,
        solver_limit_s=settings.solver_limit_s,
    )


def gather(uow: UnitOfWork, site_id: str, fleet: Sequence[MinerRow], rules: Policy) -> Situation:
    """Return everything the site's next plan depends on; price spikes are noted as signals on the way."""
    uow.principal.require(Permission.ORDER_MINERS, site_id)
    now = uow.now()
    miners = select(fleet, now, rules.seen_within)
    known = store.known_prices(uow, rules.market, now, now + rules.limits.lead + rules.horizon)
    reason = _price_reason(known, now + rules.limits.lead, now, rules)
    if not reason:
        _note_spikes(uow, site_id, known, miners, rules)
    return Situation(
        site_id=site_id,
        now=now,
        miners=miners,
        unrated=select_unrated(fleet, now, rules.seen_within),
        prices=tuple(item.price for item in known),
        price_reason=reason,
        signals=store.signals(uow, site_id, now),
        current=store.active_plan(uow, site_id),
        rules=rules.rules,
        limits=rules.limits,
        horizon=rules.horizon,
        solver_limit_s=rules.solver_limit_s,
        silent=not any(row.read_at is not None and now - row.read_at <= rules.seen_within for row in fleet),
    )


def propose(situation: Situation) -> Plan:
    """Return the next plan; pure but for new ids, so it runs outside any transaction."""
    return replace(next_plan(situation, _new_id), plan_id=_new_id())


def activate(uow: UnitOfWork, situation: Situation, plan: Plan) -> Plan | None:
    """Make ``plan`` the site's active revision unless it says nothing new.

    Raises:
        Conflict: another replica activated a revision since ``situation`` was gathered; nothing is written.
    """
    uow.principal.require(Permission.ORDER_MINERS, plan.site_id)
    if situation.current is not None and (situation.silent or not _differs(situation.current, plan, situation)):
        return None
    store.put_plan(uow, plan)
    store.put_curtailments(uow, plan, situation.now)
    uow.add_event(PlanActivated(plan.site_id, plan.revision, plan.plan_id))
    return plan


def add_signal(
    uow: UnitOfWork, site_id: str, kind: SignalKind, interval: Interval, cap_w: Watts, signal_id: str | None = None
) -> Signal:
    """Ask a site to stay at or under ``cap_w`` for a window; the next planning round acts on it.

    Raises:
        BadInput: the window is over or out of range, or the cap is not a power.
        NotFound: there is no such site.
    """
    uow.principal.require(Permission.ORDER_MINERS, site_id)
    if kind is SignalKind.PRICE_SPIKE:
        raise BadInput("signal: kind price_spike comes from prices; write must_shed or manual")
    interval = Interval(kept_moment(interval.start, "signal"), kept_moment(interval.end, "signal"))
    if interval.end <= uow.now():
        raise BadInput(f"signal: the window ended at {interval.end.isoformat()}; give one that ends in the future")
    if not 0 <= cap_w <= _LARGEST_CAP_W:  # nor is it NaN
        raise BadInput(f"signal: cap {cap_w:g} W is not a power; write 0 to stop everything that can be stopped")
    require_site(uow, site_id)
    signal = Signal(signal_id or _new_id(), site_id, kind, interval, cap_w, uow.now())
    store.put_signal(uow, signal)
    return signal


def withdraw_signal(uow: UnitOfWork, site_id: str, signal_id: str) -> None:
    """Take a signal back.

    Raises:
        NotFound: no signal of that id is in force.
    """
    uow.principal.require(Permission.ORDER_MINERS, site_id)
    if not store.withdraw_signals(uow, site_id, [signal_id], uow.now()):
        raise NotFound(f"site {site_id} has no signal {signal_id} in force")


def _new_id() -> str:
    return uuid.uuid4().hex


def _price_reason(known: Sequence[store.KnownPrice], start: datetime, now: datetime, rules: Policy) -> str:
    """Return why prices cannot be planned with; empty when they can."""
    if not any(item.price.interval.contains(start) for item in known):
        last = max((item.price.interval.end for item in known), default=None)
        until = "none is known" if last is None else f"the last known ends {last.isoformat()}"
        return (
            f"no price of {rules.market} covers {start.isoformat()} ({until}), so price curtailments stay as they are"
        )
    if rules.price_stale is not None:
        age = now - max(item.collected_at for item in known)
        if age > rules.price_stale:
            return (
                f"prices of {rules.market} are {age.total_seconds():.0f} s old, so price curtailments stay as they are"
            )
    return ""


def _note_spikes(
    uow: UnitOfWork,
    site_id: str,
    known: Sequence[store.KnownPrice],
    miners: Sequence[FleetMiner],
    rules: Policy,
) -> None:
    prices: list[tuple[Price, datetime]] = [(item.price, item.first_seen_at) for item in known]
    found = find_spikes(site_id, prices, strike(miners, rules.rules.hashprice))
    before = [item for item in store.signals(uow, site_id, uow.now()) if item.kind is SignalKind.PRICE_SPIKE]
    write, withdraw = merge_spikes(before, found)
    for spike in write:
        store.put_signal(uow, spike)
    if withdraw:
        store.withdraw_signals(uow, site_id, withdraw, uow.now())


def _differs(current: Plan, plan: Plan, situation: Situation) -> bool:
    """Return whether ``plan`` must replace ``current``: other orders, or a validity that runs out."""
    now = situation.now
    live = [item for item in plan.curtailments if item.curtailment.interval.end > now]
    before = [item for item in current.curtailments if item.curtailment.interval.end > now]
    wearing_out = current.valid.end - now < situation.limits.min_validity / 2
    return wearing_out or not same_orders(live, before)
