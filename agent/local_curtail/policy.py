"""What each miner of a site should be doing now. Pure and total.

    never_touch  >  too hot  >  failsafe override  >  commands  >  plan windows, or the fallback without them  >  run
                                                      '---- less who stays on for the minimum load ----'

Invariants:

* Each miner of the fleet gets exactly one ``Desired``, except a never_touch miner, which gets none, unless an earlier
  order of ours stopped it: then it is started.
* Nothing but an order in force, or heat, stops a miner, so the end of every order is a START.
* A miner too hot is stopped under an order of its own, which no curtailment takes over until it has cooled; one that is
  off already stays under its order, and is not started.
* Where the site has a rule of its own for silence, it goes before the plan's word and the site's mode: once the plan
  has expired or the clock cannot be trusted; and where no plan is held, once the link has been silent for long.
* Holding keeps off what is off and stops nobody new: whether a stop not yet sent is still due, nobody can say.
* A START keeps the id of the order it ends, so that its acknowledgement answers that order.
* A miner off longer than ``max_off_s`` is started and stays started for as long as the same order lasts. A local
  failsafe override is exempt: somebody may be standing in front of that rack, and it expires by itself.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from agent.local_curtail.floor import Loads, kept_on
from agent.local_curtail.ramp import NO_LIMIT
from agent.local_curtail.silence import Sights, SilentRule, silence
from sitelink.types import ClockTrust, Command, Curtailment, Fallback, SitePlan, Verb
from sitelink.units import Watts
from sitelink.verbs import SWITCHING

RUN: Final = "run"
RELEASED: Final = "released"
NEVER_TOUCH: Final = "never_touch"
OVERRIDE: Final = "override"
COMMAND: Final = "command"
MAX_OFF: Final = "max_off"
HOLD_PLAN_EXPIRED: Final = "fallback_hold_plan_expired"
HOLD_CLOCK_UNTRUSTED: Final = "fallback_hold_clock_untrusted"
STOP_PLAN_EXPIRED: Final = "fallback_stop_plan_expired"
STOP_CLOCK_UNTRUSTED: Final = "fallback_stop_clock_untrusted"
RUN_PLAN_EXPIRED: Final = "fallback_run_plan_expired"
RUN_CLOCK_UNTRUSTED: Final = "fallback_run_clock_untrusted"
GRACE: Final = "grace_before_fallback"
FALLBACK_ORDER: Final = "fallback"
MIN_LOAD: Final = "min_load"
TOO_HOT: Final = "too_hot"
HEAT_ORDER: Final = "heat"
"""The order under which miners too hot are stopped: no curtailment, and never counted as one."""


def whom(miner_ids: Collection[str] | None) -> str:
    """Return how many miners an order is for, in words; None means every miner."""
    return "all miners" if miner_ids is None else f"{len(miner_ids)} miners"


@dataclass(frozen=True, slots=True)
class Override:
    """A technician's word at the site, until it expires. ``miner_ids`` None means every miner."""

    override_id: str
    verb: Verb
    miner_ids: frozenset[str] | None
    place: int = 0

    def covers(self, miner_id: str) -> bool:
        """Return whether this override speaks of ``miner_id``."""
        return self.miner_ids is None or miner_id in self.miner_ids


@dataclass(frozen=True, slots=True)
class Limits:
    """What no order may exceed. ``max_step_w`` and ``min_load_w`` 0 mean no limit."""

    max_off_s: float
    max_step_w: Watts
    never_touch: frozenset[str] = frozenset()
    allowed_verbs: frozenset[Verb] = frozenset(Verb)
    min_load_w: Watts = NO_LIMIT


@dataclass(frozen=True, slots=True)
class Desired:
    """What one miner should do, under which order, and the stable code of why."""

    miner_id: str
    verb: Verb
    order_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything a decision rests on.

    ``fallback`` and ``grace_s`` are the site's own; a held plan's fallback goes before them. ``untrusted_s`` is how
    long the clock has been untrusted. ``off_s`` tells how long each miner stopped by us has been off; ``hot`` are too
    hot to run, ``suspect`` may be. ``rule`` is the site's own for silence, by what it ``sights``; ``order`` is the
    order of stopping under it, least efficient first.
    """

    now: datetime
    trust: ClockTrust
    fleet: tuple[str, ...]
    limits: Limits
    plan: SitePlan | None = None
    overrides: tuple[Override, ...] = ()
    commands: tuple[Command, ...] = ()
    fallback: Fallback = Fallback.RUN
    grace_s: float = 0.0
    untrusted_s: float = 0.0
    last_desired: Mapping[str, Desired] = field(default_factory=dict)
    off_s: Mapping[str, float] = field(default_factory=dict)
    hot: frozenset[str] = frozenset()
    suspect: frozenset[str] = frozenset()
    loads: Loads = field(default_factory=Loads)
    rule: SilentRule | None = None
    order: tuple[str, ...] = ()
    sights: Sights = field(default_factory=Sights)


def decide(situation: Situation) -> tuple[Desired, ...]:
    """Return what each miner should do, in the order of ``situation.fleet``."""
    base = _Base.of(situation)
    commands = _latest_commands(situation)
    overrides = _latest_overrides(situation)
    decided: list[Desired] = []
    for miner_id in situation.fleet:
        last = situation.last_desired.get(miner_id)
        if miner_id in situation.limits.never_touch:
            if last is not None and (last.verb is Verb.STOP or last.reason == NEVER_TOUCH):
                decided.append(Desired(miner_id, Verb.START, last.order_id, NEVER_TOUCH))
            continue
        override = overrides.get(miner_id) or overrides.get("")
        if override is not None:
            wanted = Desired(miner_id, override.verb, override.override_id, OVERRIDE)
        else:
            wanted = _limited(_ordered(miner_id, commands.get(miner_id), base, last, situation.off_s), last, situation)
        decided.append(_cooled(wanted, last, situation))
    return _above_the_floor(decided, situation)


def fallback_reason(situation: Situation) -> str | None:
    """Return why the site follows its fallback instead of a plan, None when it does not."""
    base = _Base.of(situation)
    return None if base.mode is None or base.reason == GRACE else base.reason


@dataclass(frozen=True, slots=True)
class _Base:
    """What holds below overrides and commands: the plan's windows, or a fallback mode with its reason."""

    windows: Mapping[str, Curtailment]
    mode: Fallback | None
    reason: str
    off: frozenset[str] | None = None
    """Who is off by the site's own rule, where that holds."""

    @classmethod
    def of(cls, situation: Situation) -> "_Base":
        plan = situation.plan
        mode = situation.fallback if plan is None else plan.fallback
        if situation.trust is ClockTrust.UNTRUSTED:
            if situation.untrusted_s < situation.grace_s:
                return cls({}, Fallback.HOLD, GRACE)
            if situation.rule is not None:
                return cls.ruled(situation, situation.rule, "clock_untrusted")
            reasons = {
                Fallback.RUN: RUN_CLOCK_UNTRUSTED,
                Fallback.HOLD: HOLD_CLOCK_UNTRUSTED,
                Fallback.STOP: STOP_CLOCK_UNTRUSTED,
            }
            return cls({}, mode, reasons[mode])
        if plan is None:
            if situation.rule is not None and situation.trust is ClockTrust.HELD:
                return cls.ruled(situation, situation.rule, "no_plan")
            return cls({}, None, RUN)
        if situation.now >= plan.valid.end:
            if (situation.now - plan.valid.end).total_seconds() < situation.grace_s:
                return cls({}, Fallback.HOLD, GRACE)
            if situation.rule is not None:
                return cls.ruled(situation, situation.rule, "plan_expired")
            reasons = {
                Fallback.RUN: RUN_PLAN_EXPIRED,
                Fallback.HOLD: HOLD_PLAN_EXPIRED,
                Fallback.STOP: STOP_PLAN_EXPIRED,
            }
            return cls({}, mode, reasons[mode])
        if Verb.STOP not in situation.limits.allowed_verbs:
            return cls({}, None, RUN)
        open_now = (item for item in plan.curtailments if item.interval.contains(situation.now))
        return cls({miner_id: item for item in open_now for miner_id in item.miner_ids}, None, RUN)

    @classmethod
    def ruled(cls, situation: Situation, rule: SilentRule, why: str) -> "_Base":
        """Return what the site's own rule says; who is off under the fallback is its memory."""
        off = {
            miner_id
            for miner_id, last in situation.last_desired.items()
            if last.order_id == FALLBACK_ORDER and (last.verb is Verb.STOP or last.reason in {MIN_LOAD, MAX_OFF})
        }
        dated = situation.trust is not ClockTrust.UNTRUSTED
        said = silence(rule, situation.sights, situation.order, off, dated=dated)
        return cls({}, Fallback.RUN, f"fallback_{said.code}_{why}", said.off)


def _ordered(
    miner_id: str, command: Command | None, base: _Base, last: Desired | None, off_s: Mapping[str, float]
) -> Desired:
    if command is not None:
        return Desired(miner_id, command.verb, command.command_id, COMMAND)
    window = base.windows.get(miner_id)
    if window is not None:
        return Desired(miner_id, Verb.STOP, window.curtailment_id, window.cause.value)
    if base.mode is Fallback.STOP or (base.off is not None and miner_id in base.off):
        return Desired(miner_id, Verb.STOP, FALLBACK_ORDER, base.reason)
    if base.mode is Fallback.HOLD and last is not None and last.reason not in {OVERRIDE, COMMAND}:
        waits = last.verb is Verb.STOP and miner_id not in off_s
        return Desired(miner_id, Verb.START, last.order_id, base.reason) if waits else last
    if base.mode is not None:
        return Desired(miner_id, Verb.START, "" if last is None else last.order_id, base.reason)
    if last is None or not last.order_id:
        return Desired(miner_id, Verb.START, "", RUN)
    return Desired(miner_id, Verb.START, last.order_id, RELEASED)


def _limited(wanted: Desired, last: Desired | None, situation: Situation) -> Desired:
    if wanted.verb is not Verb.STOP:
        return wanted
    latched = last is not None and last.reason == MAX_OFF and last.order_id == wanted.order_id
    if latched or situation.off_s.get(wanted.miner_id, 0.0) >= situation.limits.max_off_s:
        return Desired(wanted.miner_id, Verb.START, wanted.order_id, MAX_OFF)
    return wanted


def _cooled(wanted: Desired, last: Desired | None, situation: Situation) -> Desired:
    """Return ``wanted``, or the stop of a miner too hot; one off under the same order is off."""
    held_off = last if last is not None and last.verb is Verb.STOP and wanted.miner_id in situation.off_s else None
    if wanted.miner_id in situation.hot:
        same = held_off is not None and (held_off.order_id, wanted.verb) == (wanted.order_id, Verb.STOP)
        return wanted if same else Desired(wanted.miner_id, Verb.STOP, HEAT_ORDER, TOO_HOT)
    waits = held_off is not None and wanted.verb is Verb.START and wanted.miner_id in situation.suspect
    return held_off if waits and held_off is not None else wanted


def _above_the_floor(decided: list[Desired], situation: Situation) -> tuple[Desired, ...]:
    """Return ``decided`` less the stops that would take the site below its minimum load."""
    if situation.limits.min_load_w <= 0:
        return tuple(decided)
    spared = {OVERRIDE, TOO_HOT}
    stops = {wanted.miner_id: wanted for wanted in decided if wanted.verb is Verb.STOP and wanted.reason not in spared}
    kept = {
        miner_id
        for miner_id, wanted in stops.items()
        if (last := situation.last_desired.get(miner_id)) is not None
        and (last.reason, last.order_id) == (MIN_LOAD, wanted.order_id)
    }
    going = {wanted.miner_id for wanted in decided if wanted.verb is Verb.STOP}
    others = situation.loads.sure_w.keys() - going
    order = _in_order_of_stopping(stops, situation)
    stay = kept_on(order, others, kept, situation.off_s, situation.loads, situation.limits.min_load_w)
    return tuple(
        Desired(wanted.miner_id, Verb.START, wanted.order_id, MIN_LOAD) if wanted.miner_id in stay else wanted
        for wanted in decided
    )


def _in_order_of_stopping(stops: Mapping[str, Desired], situation: Situation) -> list[str]:
    """Return ``stops`` by their place in their curtailment, else in the fleet."""
    places = {("", miner_id): place for place, miner_id in enumerate(situation.fleet)}
    for item in () if situation.plan is None else situation.plan.curtailments:
        places |= {(item.curtailment_id, miner_id): place for place, miner_id in enumerate(item.miner_ids)}

    def place_of(miner_id: str) -> tuple[int, str]:
        own = places.get((stops[miner_id].order_id, miner_id))
        return (places["", miner_id] if own is None else own, miner_id)

    return sorted(stops, key=place_of)


def _latest_commands(situation: Situation) -> Mapping[str, Command]:
    if situation.trust is ClockTrust.UNTRUSTED:
        return {}
    valid = [
        command
        for command in situation.commands
        if command.verb in SWITCHING & situation.limits.allowed_verbs
        and command.not_before <= situation.now < command.expires_at
    ]
    valid.sort(key=lambda command: (command.signing_epoch, command.sequence))
    return {miner_id: command for command in valid for miner_id in command.miner_ids}


def _latest_overrides(situation: Situation) -> Mapping[str, Override]:
    """Return the latest override by miner; the key "" stands for the rest of the fleet."""
    latest: dict[str, Override] = {}
    for override in sorted(situation.overrides, key=lambda item: item.place):
        if override.miner_ids is None:
            latest = {"": override}
        else:
            latest.update(dict.fromkeys(override.miner_ids, override))
    return latest
