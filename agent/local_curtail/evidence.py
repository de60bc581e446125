"""How a stop or start is judged. Pure.

An "ok" from a miner is a hint. A stop is COMPLETE only when the device reads idle **and**, where the feeder has a
meter, the meter leaves no room for it still to draw (``attribution`` says how that is told).

    device reads   feeder's meter    verdict
    idle           cleared           COMPLETE    power_below_idle
    idle           accused           UNVERIFIED  feeder_did_not_drop   a liar: reports idle
    idle           silent            UNVERIFIED  feeder_meter_silent
    idle           cannot tell whose UNVERIFIED  feeder_clouded
    hashing        fell no further   UNVERIFIED  still_hashing         a liar if it said ok, and its figures are new
    a little less  any               UNVERIFIED  not_down_yet          slow is no lie
    less power     cleared, or none  PARTIAL     power_above_idle
    less power     accused           UNVERIFIED  feeder_did_not_drop   a liar: reports less than it draws
    nothing        any               UNVERIFIED  unreachable
    idle before the order            UNVERIFIED  already_idle          there was no load to shed
    idle, hot or broken              UNVERIFIED  thermal, fault        it stopped itself and may come back by itself
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from agent.local_curtail.ports import Observed
from sitelink.types import Evidence, MinerState, Outcome, Reason
from sitelink.units import Watts

DROP_SHARE: Final = 0.5
"""A miner is off when less than this share of its load can still be its own."""
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


LIES: Final = {
    Lie.ACK_WITHOUT_EFFECT: "ack without effect: it said ok and goes on hashing",
    Lie.REPORTS_IDLE: "reports idle, but its feeder did not drop",
}
"""How a liar is told of to the cloud and in the journal."""


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


class MeterWord(StrEnum):
    """What a feeder's meter says of one miner on it."""

    NONE = "none"
    """There is no meter."""
    SILENT = "silent"
    NOISY = "noisy"
    CLOUDED = "clouded"
    """The feeder has fallen by other miners, or cannot tell by whose."""
    CLEARED = "cleared"
    ACCUSED = "accused"
    FELL_MORE = "fell_more"
    """The feeder fell by more than anybody on it claims: somebody is off that reads on."""


@dataclass(frozen=True, slots=True)
class StopFacts:
    """What is known of one stop.

    ``seen`` None means the device did not answer. ``fresh`` is whether its figures speak of after its order.
    """

    baseline_w: Watts
    idle_share: float
    acked: bool
    was_hashing: bool
    seen: Observed | None
    meter: MeterWord
    fresh: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an order stands for one miner. ``detail`` is its cause in words with the next step, where an error told."""

    outcome: Outcome
    evidence: Evidence
    reason: str
    lie: Lie = Lie.NONE
    detail: str = field(default="", compare=False)


UNREACHABLE: Final = Verdict(Outcome.UNVERIFIED, Evidence.NONE, "unreachable")
SUPERSEDED: Final = Verdict(Outcome.EXPIRED, Evidence.NONE, "superseded")
CLOUDED: Final = Verdict(Outcome.UNVERIFIED, Evidence.FEEDER_METER, "feeder_clouded")
ALREADY_IDLE: Final = Verdict(Outcome.UNVERIFIED, Evidence.DEVICE_STATE, "already_idle")
DID_NOT_DROP: Final = Verdict(Outcome.UNVERIFIED, Evidence.FEEDER_METER, "feeder_did_not_drop", Lie.REPORTS_IDLE)


def reads_idle(seen: Observed, baseline_w: Watts, idle_share: float) -> bool:
    """Return whether the device itself reads stopped: state idle, and little power where it reports power."""
    return seen.state is MinerState.IDLE and (seen.power_w is None or seen.power_w <= idle_share * baseline_w)


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
    if facts.meter is not MeterWord.NONE:
        return _IDLE[facts.meter]
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


_ABOVE_IDLE: Final = "power_above_idle"
_IDLE: Final = {
    MeterWord.SILENT: Verdict(Outcome.UNVERIFIED, Evidence.DEVICE_POWER, "feeder_meter_silent"),
    MeterWord.NOISY: Verdict(Outcome.UNVERIFIED, Evidence.DEVICE_POWER, "feeder_too_noisy"),
    MeterWord.CLOUDED: CLOUDED,
    MeterWord.FELL_MORE: CLOUDED,
    MeterWord.CLEARED: Verdict(Outcome.COMPLETE, Evidence.FEEDER_METER, "power_below_idle"),
    MeterWord.ACCUSED: DID_NOT_DROP,
}
_PART: Final = {
    MeterWord.NONE: Verdict(Outcome.PARTIAL, Evidence.DEVICE_POWER, _ABOVE_IDLE),
    MeterWord.SILENT: _IDLE[MeterWord.SILENT],
    MeterWord.NOISY: _IDLE[MeterWord.NOISY],
    MeterWord.CLOUDED: CLOUDED,
    MeterWord.FELL_MORE: CLOUDED,
    MeterWord.CLEARED: Verdict(Outcome.PARTIAL, Evidence.FEEDER_METER, _ABOVE_IDLE),
    MeterWord.ACCUSED: DID_NOT_DROP,
}


def _not_idle(facts: StopFacts, seen: Observed) -> Verdict:
    power_w = seen.power_w
    if facts.was_hashing and power_w is not None and power_w < _PARTIAL_SHARE * facts.baseline_w:
        return _PART[facts.meter]
    evidence = Evidence.DEVICE_STATE if power_w is None else Evidence.DEVICE_POWER
    if seen.state is MinerState.UNKNOWN:
        return Verdict(Outcome.UNVERIFIED, Evidence.NONE, "state_unknown")
    if not facts.acked:
        return Verdict(Outcome.UNVERIFIED, evidence, "no_reply")
    if power_w is not None and power_w < _FALLING_SHARE * facts.baseline_w:
        return Verdict(Outcome.UNVERIFIED, evidence, "not_down_yet")
    runs = seen.state is MinerState.HASHING and facts.fresh and facts.meter is not MeterWord.FELL_MORE
    lie = Lie.ACK_WITHOUT_EFFECT if runs else Lie.NONE
    return Verdict(Outcome.UNVERIFIED, evidence, "still_hashing", lie)
