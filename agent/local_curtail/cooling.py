"""Fans first: what cools a rack is started before its miners, and stopped after them.

    up     fans of the rack --proven on, or ``wait_s``--> miners    down   miners of the rack --all judged--> fans

Invariants: which models cool is the site's word, for no documented firmware needs it; fans that do not come hold their
miners up for ``wait_s`` at the most; a stop of fans waits for miners that are being stopped, and for no others.
"""

from collections import defaultdict
from collections.abc import Mapping

from agent.local_curtail.records import MinerRecord, Phase
from agent.local_curtail.rules import SiteMiner
from sitelink.types import Verb


class Cooling:
    """Who waits for whom in a rack."""

    def __init__(self, models: frozenset[str], wait_s: float, miners: Mapping[str, SiteMiner]) -> None:
        """``models`` are those that cool, as the inventory names them; ``wait_s`` is how long they are waited for."""
        self._wait_s = wait_s
        self._miners = miners
        self._fans: defaultdict[str, list[str]] = defaultdict(list)
        self._others: defaultdict[str, list[str]] = defaultdict(list)
        for miner in miners.values():
            kind = self._fans if miner.model in models else self._others
            kind[miner.rack].append(miner.miner_id)
        self._cools = frozenset(name for names in self._fans.values() for name in names)
        self._waiting_s: dict[str, float] = {}

    def waits(self, record: MinerRecord, records: Mapping[str, MinerRecord], now_s: float) -> bool:
        """Return whether the stop or start of ``record`` waits for others of its rack; ``now_s`` is monotonic."""
        if not self._cools:
            return False
        name, rack = record.miner_id, self._miners[record.miner_id].rack
        if record.verb is Verb.STOP:
            return name in self._cools and any(_under_way(records.get(other)) for other in self._others[rack])
        if name in self._cools or not any(_comes(records.get(fan)) for fan in self._fans[rack]):
            return False
        since_s = self._waiting_s.setdefault(rack, now_s)
        return now_s - since_s < self._wait_s

    def settle(self, records: Mapping[str, MinerRecord]) -> None:
        """Forget since when a rack's miners waited once its fans are on, or off again."""
        for rack in [rack for rack in self._waiting_s if not any(_comes(records.get(fan)) for fan in self._fans[rack])]:
            del self._waiting_s[rack]


def _under_way(record: MinerRecord | None) -> bool:
    """Return whether the miner is being stopped and not judged yet."""
    return record is not None and record.verb is Verb.STOP and record.outcome is None


def _comes(record: MinerRecord | None) -> bool:
    """Return whether the fan is to come back and is not proven back yet."""
    if record is None or record.verb is not Verb.START:
        return False
    return record.phase is Phase.WAITING or record.touched
