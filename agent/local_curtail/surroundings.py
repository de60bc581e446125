"""What the policy is told of the site beside its orders: loads, heat, and what its own rule looks at."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final

from agent.local_curtail.floor import Loads
from agent.local_curtail.heat import median, plausible
from agent.local_curtail.outside import Outside
from agent.local_curtail.policy import FALLBACK_ORDER
from agent.local_curtail.records import MinerRecord, Phase
from agent.local_curtail.rules import SiteMiner, SiteRules
from agent.local_curtail.silence import CapRule, Sights, TemperatureRule
from agent.local_curtail.thermometers import Thermometers
from sitelink.types import MinerState, Reading, Verb
from sitelink.units import Watts

_AT_MOST: Final = 1.1
"""The largest share of its nameplate that a miner is taken to draw."""
_OLDEST_READING_S: Final = 300.0
"""A figure older than this says nothing of what a miner draws."""
_METER_LATE_S: Final = 30.0
_ENOUGH: Final = 3
_UNSEEN: Final = Sights()
_NOTHING: Final = Loads()


class Surroundings:
    """What is known of a site at the moment."""

    def __init__(
        self,
        rules: SiteRules,
        miners: Mapping[str, SiteMiner],
        latest: Callable[[str], Reading | None],
        site_w: Callable[[], Watts | None],
        thermometers: Thermometers,
        outside: Outside | None,
    ) -> None:
        """``latest`` gives a miner's last reading, ``site_w`` what the site's meter shows, None while it is silent."""
        self._outside = outside
        switched = (miner for miner in miners.values() if miner.controllable)
        self.order = tuple(one.miner_id for one in sorted(switched, key=lambda one: (-one.j_per_th, one.miner_id)))
        self._rules = rules
        self._miners = miners
        self._latest = latest
        self._site_w = site_w
        self.thermometers = thermometers

    def sights(self, records: Mapping[str, MinerRecord], now: datetime) -> Sights:
        """Return what the site's own rule for silence looks at; nothing where it has none."""
        rule = self._rules.silence
        if rule is None:
            return _UNSEEN
        outside = self._outside
        return Sights(
            price_usd_per_mwh=None if outside is None else outside.price_at(now),
            board_c=self._board_c() if isinstance(rule, TemperatureRule) else None,
            outside_c=None if outside is None else outside.temp_c(),
            site_w=self._site_w(),
            settled=not isinstance(rule, CapRule) or is_settled(records.values(), now, rule.settle_s),
            liars=frozenset(name for name, record in records.items() if record.lie),
            load_w={name: miner.load_w for name, miner in self._miners.items()} if isinstance(rule, CapRule) else {},
        )

    def _board_c(self) -> float | None:
        """Return the median board of those that run, of all where too few do; None where too few tell theirs."""
        readings = [reading for name in self._miners if (reading := self._latest(name)) is not None]
        running = [reading for reading in readings if reading.state is MinerState.HASHING]
        enough = max(1, min(_ENOUGH, len(self._miners)))
        for some in (running, readings):
            temps = [one.board_temp_c for one in some if one.board_temp_c is not None and plausible(one.board_temp_c)]
            if len(temps) >= enough:
                return median(temps)
        return None

    def loads(self, records: Mapping[str, MinerRecord], now: datetime) -> Loads:
        """Return what the site draws, as far as it matters to its rules."""
        if self._rules.min_load_w <= 0:
            return _NOTHING
        sure, could, most, gone = {}, {}, {}, set()
        for name, miner in self._miners.items():
            record, reading = records.get(name), self._latest(name)
            if miner.nameplate_w is not None:
                most[name] = Watts(_AT_MOST * miner.nameplate_w)
            age_s = 0.0 if reading is None else (now - reading.read_at).total_seconds()
            drawn_w = sure_w(record, reading, most.get(name, miner.load_w), age_s)
            if drawn_w is not None:
                sure[name] = drawn_w
            if record is not None and record.off_since is not None and record.baseline_w and not record.lie:
                could[name] = record.baseline_w
            if record is not None and _is_gone(record, now):
                gone.add(name)
        return Loads(sure, could, most, self._site_w(), frozenset(gone))


def is_settled(records: Iterable[MinerRecord], now: datetime, settle_s: float) -> bool:
    """Return whether all that the site's own rule has switched shows on its meter by now."""
    for record in records:
        if record.order_id != FALLBACK_ORDER:
            continue
        if record.outcome is None and record.phase is not Phase.DONE:
            return False
        late = record.sent_at is not None and abs((now - record.sent_at).total_seconds()) < settle_s
        if record.complete and late:
            return False
    return True


def _is_gone(record: MinerRecord, now: datetime) -> bool:
    """Return whether its stop is proven, and so old that no meter is behind it."""
    if record.verb is not Verb.STOP or not record.complete or record.sent_at is None:
        return False
    return (now - record.sent_at).total_seconds() >= _METER_LATE_S


def sure_w(record: MinerRecord | None, reading: Reading | None, most_w: Watts, age_s: float) -> Watts | None:
    """Return what a miner surely draws, None where nobody knows; ``age_s`` is its reading's.

    A liar's word counts nothing. One whose start is under way draws what it drew, until that start has failed.
    """
    if record is not None and record.lie:
        return None
    if record is not None and record.verb is Verb.START and record.touched and record.outcome is None:
        return record.baseline_w
    if reading is None or abs(age_s) > _OLDEST_READING_S:
        return None
    if reading.state is not MinerState.HASHING or reading.power_w is None:
        return None
    return Watts(min(reading.power_w, most_w))
