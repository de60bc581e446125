"""What was found of each miner after an order by hand, and what of it is proven, whoever did the work. Pure.

    read off, its feeder's meter leaves it no room, or by its own figure where there is no meter     yes
    read off, and neither its meter bears that out nor, where there is none, a figure of its own      open
    not read off                                                                                     NO

Invariant: the verdict is local curtailment's own (``evidence.judge_stop``); nothing else here says what is proven.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from agent.local_curtail.evidence import Verdict
from sitelink.inventory import MinerEntry
from sitelink.types import Evidence, Outcome, Verb
from sitelink.units import Watts

_NAMED: Final = 8
_OPEN: Final = frozenset(
    {"feeder_did_not_drop", "feeder_clouded", "feeder_too_noisy", "feeder_meter_silent", "power_unknown"}
)
"""Reasons of a miner that reads off while nothing else bears that out."""
_OUTLET_OFF: Final = Verdict(Outcome.COMPLETE, Evidence.DEVICE_STATE, "outlet_off")
_SAY_LESS: Final = frozenset({"already_idle", "feeder_meter_silent", "power_unknown"})
"""Verdicts on a miner without power that say less than that its outlet reads off."""


class Proof(StrEnum):
    """Whether what was asked of a miner is proven."""

    YES = "yes"
    OPEN = "open"
    NO = "NO"


@dataclass(frozen=True, slots=True)
class Finding:
    """How one miner was found: what it drew before and after, and whether what was asked for is proven."""

    entry: MinerEntry
    proof: Proof
    what: str
    before_w: Watts | None = None
    after_w: Watts | None = None
    unsent: bool = False  # a rule or the device refused, so nothing has changed there
    verdict: Verdict | None = None  # a stop's, by local curtailment's judge; None where it was not asked
    acked: bool = False  # the device said ok to it


def proof_of(verb: Verb, verdict: Verdict) -> Proof:
    """Return what ``verdict`` proves to a technician."""
    if verdict.outcome is Outcome.COMPLETE or (verb is Verb.STOP and verdict.reason == "already_idle"):
        return Proof.OPEN if verdict.lie else Proof.YES
    return Proof.OPEN if verdict.reason in _OPEN else Proof.NO


def of_outlet(verdict: Verdict) -> Verdict:
    """Return the verdict on a stop of a miner without a stop of its own: it is silent, and its switch reads off.

    What a meter says against that stays.
    """
    if verdict.outcome is Outcome.COMPLETE:
        return replace(verdict, reason=_OUTLET_OFF.reason)
    return _OUTLET_OFF if verdict.reason in _SAY_LESS else verdict


def filled_in(words: str, entry: MinerEntry | None) -> str:
    """Return ``words`` with the miner's group of credentials for GROUP, its address for HOST, its id for THIS_MINER."""
    if entry is None:
        return words
    return (
        words.replace("GROUP", entry.credentials or entry.dialect)
        .replace("HOST", entry.host or "HOST")
        .replace("THIS_MINER", entry.miner_id)
    )


def table(findings: Sequence[Finding]) -> list[str]:
    """Return the findings as lines for a terminal."""
    width = max((len(finding.entry.miner_id) for finding in findings), default=5)
    lines = [f"{'miner':<{width}}  {'rack':<8} {'before':>8} {'after':>8}  proven  evidence"]
    for finding in findings:
        before, after = _shown(finding.before_w), _shown(finding.after_w)
        name, rack = finding.entry.miner_id, finding.entry.rack
        lines.append(f"{name:<{width}}  {rack:<8} {before:>8} {after:>8}  {finding.proof.value:<6}  {finding.what}")
    return lines


def verdict(findings: Sequence[Finding], wanted: str) -> list[str]:
    """Return how many miners are ``wanted``, and which are not."""
    missing = [finding.entry.miner_id for finding in findings if finding.proof is not Proof.YES]
    lines = [f"{len(findings) - len(missing)} of {len(findings)} miners {wanted}"]
    if missing:
        more = f" and {len(missing) - _NAMED} more, marked above" if len(missing) > _NAMED else ""
        lines.append(f"not {wanted}: {', '.join(missing[:_NAMED])}{more}")
    return lines


def _shown(power_w: Watts | None) -> str:
    return "unknown" if power_w is None else f"{power_w:.0f} W"
