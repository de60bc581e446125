"""How a stop or start is judged. Pure.

An "ok" from a miner is a hint. A stop is COMPLETE only when the device reads idle **and**, where the feeder has a
meter, the feeder's power fell by at least half of what the miner drew. One stop at a time is in flight on a metered
feeder, so the fall belongs to that miner.

    device reads   feeder fell      verdict
    idle           yes              COMPLETE    power_below_idle
    idle           no               UNVERIFIED  feeder_did_not_drop   a liar: reports idle
    idle           meter silent     UNVERIFIED  feeder_meter_silent
    idle           by another's     UNVERIFIED  feeder_clouded
    hashing        no               UNVERIFIED  still_hashing         a liar if it said ok: ack without effect
    a little less  no               UNVERIFIED  not_down_yet          slow is no lie
    less power     yes, or no meter PARTIAL     power_above_idle
    less power     no               UNVERIFIED  feeder_did_not_drop   a liar: reports less than it draws
    nothing        either           UNVERIFIED  unreachable
    idle before the order           UNVERIFIED  already_idle          there was no load to shed
    idle, hot or broken             UNVERIFIED  thermal, fault        it stopped itself and may come back by itself
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from agent.local_curtail.ports import Observed
from sitelink.types import Evidence, MinerState, Outcome, Reason
from sitelink.units import Watts

NO_LOAD: Final = Watts(0)
DROP_SHARE: Final = 0.5
"""Share of a miner's baseline by which its feeder must fall."""
_NOISE_TIMES: Final = 2.0
"""A fall must exceed this many times the spread of the samples before the order."""
_TOO_NOISY_SHARE: Final = 0.9
_PARTIAL_SHARE: Final = 0.7
_FALLING_SHARE: Final = 0.95
"""A device that still hashes but draws less than this share of its baseline may be on its way down: slow is no lie."""
_RISE_SHARE: Final = 0.3
_NOT_BY_US: Final = frozenset({Reason.THERMAL, Reason.FAULT})
"""Reasons for which a miner stands still by itself: no stop of ours, whatever its feeder says."""


class Lie(StrEnum):
    """How a miner was caught lying."""

    NONE = ""
    ACK_WITHOUT_EFFECT = "ack_without_effect"
    REPORTS_IDLE = "reports_idle"


@dataclass(frozen=True, slots=True)
class FeederBefore:
    """A feeder's power before an order: the mean of a few samples and how far they lay apart."""

    power_w: Watts
    spread_w: Watts

    @classmethod
    def of(cls, samples_w: Sequence[Watts]) -> "FeederBefore | None":
        """Return the summary of ``samples_w``, None when there are none."""
        if not samples_w:
            return None
        return cls(Watts(sum(samples_w) / len(samples_w)), Watts(max(samples_w) - min(samples_w)))


@dataclass(frozen=True, slots=True)
class StopFacts:
    """What is known of one stop.

    ``seen`` None means the device did not answer. ``elsewhere_w`` is load of other miners on the feeder that is proven
    to have gone off since, ``maybe_w`` load that only reads as if it had: neither proves anything about this miner.
    """

    baseline_w: Watts
    idle_share: float
    acked: bool
    was_hashing: bool
    seen: Observed | None
    metered: bool
    before: FeederBefore | None = None
    feeder_w: Watts | None = None
    elsewhere_w: Watts = NO_LOAD
    maybe_w: Watts = NO_LOAD


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an order stands for one miner."""

    outcome: Outcome
    evidence: Evidence
    reason: str
    lie: Lie = Lie.NONE


UNREACHABLE: Final = Verdict(Outcome.UNVERIFIED, Evidence.NONE, "unreachable")
SUPERSEDED: Final = Verdict(Outcome.EXPIRED, Evidence.NONE, "superseded")
CLOUDED: Final = Verdict(Outcome.UNVERIFIED, Evidence.FEEDER_METER, "feeder_clouded")
ALREADY_IDLE: Final = Verdict(Outcome.UNVERIFIED, Evidence.DEVICE_STATE, "already_idle")


def reads_idle(seen: Observed, baseline_w: Watts, idle_share: float) -> bool:
    """Return whether the device itself reads stopped: state idle, and little power where it reports power."""
    return seen.state is MinerState.IDLE and (seen.power_w is None or seen.power_w <= idle_share * baseline_w)


def drop_needed_w(baseline_w: Watts, before: FeederBefore) -> Watts | None:
    """Return by how much the feeder must fall; None when it moves too much to prove anything."""
    noise = _NOISE_TIMES * before.spread_w
    if noise > _TOO_NOISY_SHARE * baseline_w:
        return None
    return Watts(max(DROP_SHARE * baseline_w, noise))


def judge_stop(facts: StopFacts) -> Verdict:
    """Return how the stop stands; anything but COMPLETE may still change until the deadline."""
    if facts.seen is None:
        return UNREACHABLE
    if not reads_idle(facts.seen, facts.baseline_w, facts.idle_share):
        return _not_idle(facts, facts.seen)
    if not facts.was_hashing:
        return ALREADY_IDLE
    if facts.seen.reason in _NOT_BY_US:
        return Verdict(Outcome.UNVERIFIED, Evidence.DEVICE_STATE, facts.seen.reason.value)
    if facts.metered:
        return _idle_metered(facts)
    if facts.seen.power_w is None:
        return Verdict(Outcome.UNVERIFIED, Evidence.DEVICE_STATE, "power_unknown")
    return Verdict(Outcome.COMPLETE, Evidence.DEVICE_POWER, "power_below_idle")


def judge_start(seen: Observed, before_w: Watts | None, baseline_w: Watts) -> Verdict | None:
    """Return COMPLETE when the device reads hashing, starting up, or drawing clearly more; None while it does not."""
    if seen.state is MinerState.HASHING:
        return Verdict(Outcome.COMPLETE, Evidence.DEVICE_STATE, "hashing")
    if seen.reason is Reason.STARTING:
        return Verdict(Outcome.COMPLETE, Evidence.DEVICE_STATE, "starting")
    rising = before_w is not None and seen.power_w is not None and seen.power_w - before_w >= _RISE_SHARE * baseline_w
    return Verdict(Outcome.COMPLETE, Evidence.DEVICE_POWER, "power_rising") if rising else None


def _idle_metered(facts: StopFacts) -> Verdict:
    fell = _feeder_fell(facts, facts.elsewhere_w + facts.maybe_w)
    if fell is None:
        silent = facts.before is None or facts.feeder_w is None
        reason = "feeder_meter_silent" if silent else "feeder_too_noisy"
        return Verdict(Outcome.UNVERIFIED, Evidence.DEVICE_POWER, reason)
    if fell:
        return Verdict(Outcome.COMPLETE, Evidence.FEEDER_METER, "power_below_idle")
    if _feeder_fell(facts, facts.elsewhere_w):
        return CLOUDED
    return Verdict(Outcome.UNVERIFIED, Evidence.FEEDER_METER, "feeder_did_not_drop", Lie.REPORTS_IDLE)


def _not_idle(facts: StopFacts, seen: Observed) -> Verdict:
    power_w = seen.power_w
    if facts.metered and _feeder_fell(facts, facts.elsewhere_w + facts.maybe_w):
        return Verdict(Outcome.PARTIAL, Evidence.FEEDER_METER, "power_above_idle")
    if power_w is not None and power_w < _PARTIAL_SHARE * facts.baseline_w:
        return _claims_part(facts, Watts(facts.baseline_w - power_w))
    evidence = Evidence.DEVICE_STATE if power_w is None else Evidence.DEVICE_POWER
    if seen.state is MinerState.UNKNOWN:
        return Verdict(Outcome.UNVERIFIED, Evidence.NONE, "state_unknown")
    if not facts.acked:
        return Verdict(Outcome.UNVERIFIED, evidence, "no_reply")
    if power_w is not None and power_w < _FALLING_SHARE * facts.baseline_w:
        return Verdict(Outcome.UNVERIFIED, evidence, "not_down_yet")
    return Verdict(Outcome.UNVERIFIED, evidence, "still_hashing", Lie.ACK_WITHOUT_EFFECT)


def _claims_part(facts: StopFacts, claimed_w: Watts) -> Verdict:
    """Judge a device that says that ``claimed_w`` of its load has gone: a meter that knows better goes first."""
    part = replace(facts, baseline_w=claimed_w)
    fell = _feeder_fell(part, facts.elsewhere_w + facts.maybe_w) if facts.metered else None
    if fell is None:
        return Verdict(Outcome.PARTIAL, Evidence.DEVICE_POWER, "power_above_idle")
    if fell:
        return Verdict(Outcome.PARTIAL, Evidence.FEEDER_METER, "power_above_idle")
    if _feeder_fell(part, facts.elsewhere_w):
        return CLOUDED
    return Verdict(Outcome.UNVERIFIED, Evidence.FEEDER_METER, "feeder_did_not_drop", Lie.REPORTS_IDLE)


def _feeder_fell(facts: StopFacts, others_w: float) -> bool | None:
    """Return whether the feeder fell by what the miner drew, beside ``others_w``; None when that cannot be told."""
    if facts.before is None or facts.feeder_w is None:
        return None
    needed_w = drop_needed_w(facts.baseline_w, facts.before)
    return None if needed_w is None else facts.before.power_w - facts.feeder_w >= needed_w + others_w
