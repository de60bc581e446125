"""What one run of the failsafe found of each miner, and what of it is proven. Pure.

    device reads off, its feeder fell as its miners say      yes     "feeder meter agrees", or within how many W
    device reads off, no meter can tell                      yes     on the device's word, as the evidence says
    device reads off, its feeder still draws                 open    somebody lies, and the feeder cannot tell who
    device does not read off                                 NO

Invariant: no miner is proven off that may be the one who draws what its feeder's meter says is still drawn.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from agent.local_curtail.evidence import DROP_SHARE
from sitelink.inventory import MinerEntry
from sitelink.units import Watts

_TOLERATED_SHARE: Final = 0.03
"""By how much of their sum the figures of devices and meter may lie apart: neither is exact."""
_LEAST_TOLERATED_W: Final = 1.0
_NAMED: Final = 8
_SUSPECTS: Final = 3


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
    was_hashing: bool = False
    unsent: bool = False  # a rule or the device refused, so nothing has changed there

    @property
    def shed_w(self) -> Watts | None:
        """Return by how much its power fell, as the device says; None when it says nothing."""
        return None if self.before_w is None else Watts(max(0.0, self.before_w - (self.after_w or 0.0)))


@dataclass(frozen=True, slots=True)
class _Fall:
    """How far one feeder fell, against what those of its miners that read off say to have shed."""

    fell_w: Watts
    loads_w: Mapping[str, Watts]
    complete: bool  # every one of them said how much it shed

    @property
    def claimed_w(self) -> Watts:
        return Watts(sum(self.loads_w.values()))

    @property
    def excess_w(self) -> Watts:
        return Watts(self.claimed_w - self.fell_w)

    @property
    def tolerated_w(self) -> Watts:
        smallest_w = min(self.loads_w.values(), default=0.0)
        return Watts(max(DROP_SHARE * smallest_w, _TOLERATED_SHARE * self.claimed_w, _LEAST_TOLERATED_W))

    @property
    def disagrees(self) -> bool:
        return bool(self.loads_w) and self.excess_w > self.tolerated_w

    def may_be_drawn_by(self, finding: Finding) -> bool:
        """Return whether the excess has room for this miner, still drawing at least half of its load."""
        load_w = self.loads_w.get(finding.entry.miner_id, 0.0)
        return DROP_SHARE * load_w <= self.excess_w + self.tolerated_w

    def evidence(self) -> str:
        """Return what the feeder adds to a stop that it does not contradict."""
        if not self.complete:
            return ""
        sees_one = self.tolerated_w <= DROP_SHARE * min(self.loads_w.values())
        return "; feeder meter agrees" + ("" if sees_one else f" within {self.tolerated_w:.0f} W")

    def suspicion(self) -> str:
        """Return whose own load the excess is, as far as that narrows it down."""
        fitting = [name for name, load_w in self.loads_w.items() if abs(load_w - self.excess_w) <= self.tolerated_w]
        if not fitting:
            return ""
        return f", as much as {' or '.join(fitting) if len(fitting) <= _SUSPECTS else 'one of its miners'} drew"


def weigh(
    findings: Sequence[Finding], before_w: Mapping[str, Watts | None], after_w: Mapping[str, Watts | None]
) -> tuple[list[Finding], list[str]]:
    """Return the findings of a stop weighed against each feeder's meter, and a line for each feeder that matters.

    ``before_w`` and ``after_w`` hold one figure for each metered feeder, None where its meter did not answer.
    """
    stopped: defaultdict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        if finding.proof is Proof.YES and finding.was_hashing:
            stopped[finding.entry.feeder_id].append(finding)
    falls: dict[str, _Fall] = {}
    lines: list[str] = []
    for feeder, members in stopped.items():
        if feeder not in before_w:
            continue
        first_w, last_w = before_w[feeder], after_w[feeder]
        if first_w is None or last_w is None:
            lines.append(f"feeder {feeder}: its meter did not answer; its stops rest on the devices' word alone")
            continue
        falls[feeder] = fall = _fall(members, Watts(first_w - last_w))
        if fall.disagrees:
            lines.append(
                f"feeder {feeder} fell by {fall.fell_w:.0f} W, its miners claim {fall.claimed_w:.0f} W: it still draws "
                f"about {fall.excess_w:.0f} W that no miner owns up to{fall.suspicion()}; "
                f"measure those marked {Proof.OPEN} at the rack"
            )
    return [_weighed(finding, falls.get(finding.entry.feeder_id)) for finding in findings], lines


def filled_in(words: str, entry: MinerEntry | None) -> str:
    """Return ``words`` with the miner's own group of credentials for GROUP and its address for HOST, where known."""
    if entry is None:
        return words
    return words.replace("GROUP", entry.credentials or entry.dialect).replace("HOST", entry.host or "HOST")


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


def _fall(members: Sequence[Finding], fell_w: Watts) -> _Fall:
    loads_w = {member.entry.miner_id: member.shed_w for member in members if member.shed_w is not None}
    return _Fall(fell_w, loads_w, complete=len(loads_w) == len(members))


def _weighed(finding: Finding, fall: _Fall | None) -> Finding:
    if fall is None or finding.proof is not Proof.YES or not finding.was_hashing:
        return finding
    if not fall.disagrees:
        return replace(finding, what=finding.what + fall.evidence())
    if fall.may_be_drawn_by(finding):
        return replace(finding, proof=Proof.OPEN, what=f"{finding.what}; but its feeder still draws")
    return replace(finding, what=f"{finding.what}; its feeder draws too little for it")


def _shown(power_w: Watts | None) -> str:
    return "unknown" if power_w is None else f"{power_w:.0f} W"
