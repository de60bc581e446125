"""One stop of a failsafe without a daemon: what is known of it, and how it is found at the end. Pure.

Invariants: how a stop stands is said by local curtailment's own judge; a miner whose outlet alone was read is told so.
"""

from dataclasses import dataclass, field, replace

from agent.cgminer.observation import Observation
from agent.failsafe.ledger import Earlier
from agent.findings import Finding, Proof, of_outlet, proof_of
from agent.local_curtail.evidence import MeterWord, StopFacts, judge_stop
from agent.local_curtail.member import Member
from agent.local_curtail.ports import Observed
from agent.local_curtail.rules import SiteMiner
from agent.reasons import judged_in_words
from sitelink.inventory import MinerEntry
from sitelink.types import MinerState, Outcome, Verb
from sitelink.units import Watts


@dataclass(frozen=True, slots=True)
class Told:
    """How an order was taken. ``trouble`` is the last error in words, empty where the last look went well.

    ``refused``: it was given up, ``unsent``: and nothing has changed at the device.
    """

    taken: bool = False
    trouble: str = ""
    refused: bool = False
    unsent: bool = False


@dataclass(slots=True)
class Stop:
    """One miner that is being stopped. ``before_w`` is its own figure before, None where it told none.

    ``caught`` is one that said before that it was off while its feeder drew on: its own word proves nothing.
    """

    entry: MinerEntry
    member: Member
    was_hashing: bool
    before_w: Watts | None
    caught: bool = False
    told: Told = field(default_factory=Told)

    @property
    def tells_power(self) -> bool:
        """Return whether its load is its own figure."""
        return self.was_hashing and self.member.load_w == self.before_w

    def finding(self, word: MeterWord) -> Finding:
        """Return how it was found; ``word`` is what its feeder's meter says of it."""
        seen, told = self.member.seen, self.told
        after_w = None if seen is None else seen.power_w
        found = Finding(self.entry, Proof.NO, told.trouble, self.before_w, after_w, unsent=told.unsent)
        if told.refused:
            return found
        share = self.member.idle_share
        verdict = judge_stop(
            StopFacts(self.member.load_w, share, told.taken, self.was_hashing, seen, word, self.member.renewed)
        )
        if isinstance(seen, Observation) and seen.by_outlet:
            verdict = of_outlet(verdict)
        proof = proof_of(Verb.STOP, verdict)
        if proof is Proof.YES and self.caught and verdict.outcome is not Outcome.COMPLETE:
            proof = Proof.OPEN
        words = judged_in_words(verdict.reason, verdict.evidence)
        what = told.trouble if proof is Proof.NO and told.trouble else words
        return replace(found, proof=proof, what=what, verdict=verdict, acked=told.taken)


def stop_of(entry: MinerEntry, first: Observed, idle_share: float, earlier: Earlier) -> Stop:
    """Return the stop of a miner that was first seen as ``first``; what ``earlier`` runs know of it goes before.

    A miner that tells no power is taken to draw its nameplate's.
    """
    miner = SiteMiner(entry.miner_id, entry.feeder_id, entry.nameplate_w, controllable=True, rack=entry.rack)
    own_w = first.power_w if first.power_w is not None and first.power_w > idle_share * miner.load_w else None
    load_w = miner.load_w if own_w is None else own_w
    was_hashing = own_w is not None or first.state is MinerState.HASHING
    told = earlier.unfinished.get(entry.miner_id)
    caught = entry.miner_id in earlier.caught
    if told is not None and told.baseline_w is not None:
        return Stop(entry, Member(miner, told.baseline_w, told.baseline_w, idle_share, seen=first), True, None, caught)
    doubted = earlier.doubted.get(entry.miner_id)
    if not was_hashing and doubted is not None and doubted.baseline_w is not None:
        drawn_w = doubted.baseline_w
        member = Member(miner, drawn_w, drawn_w, idle_share, resumed=True, before=doubted.before, seen=first)
        return Stop(entry, member, True, first.power_w, caught)
    return Stop(entry, Member(miner, load_w, load_w, idle_share, seen=first), was_hashing, first.power_w, caught)
