r"""One simulated miner: its place, its true and its shown electronics, its fault, and what it reports at an instant.

Invariants:

* ``true`` drives the meters; ``shown`` drives every reply. They differ only in a liar.
* Seconds are simulated seconds since the site opened; the wall clock is used only for ``When``.

      order -> true drive  -> feeder meter -> site meter
           \-> shown drive -> snapshot -> reply in the firmware's dialect
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from simulator import noise
from simulator.faults import Fault
from simulator.orders import OrderLog, ReceivedOrder
from simulator.physics import Drive, Effect, Goal, Phase, Timing, ambient_c
from simulator.roster import Place
from sitelink.clock import Clock
from sitelink.types import Verb
from sitelink.units import Celsius, TeraHashPerSecond, Watts

_BOOTED_BEFORE_S = 40_000.0
_UNSET_CLOCK_S = 986.0
_SHARE_DIFFICULTY = 262_144
_HASHES_A_SHARE = _SHARE_DIFFICULTY * 2**32
_LOCAL_OFFSET_H = -6
_MOVES_POWER = {"dead", "overheated", "ack_without_effect", "reports_idle", "reports_idle_now"}


class SiteTime:
    """Simulated seconds since the site opened, from the injected clock, ``scale`` simulated seconds a real one."""

    def __init__(self, clock: Clock, scale: float = 1.0) -> None:
        self.clock = clock
        self.scale = scale
        self.opened_at = clock.now()
        self._opened_s = clock.monotonic()

    def seconds(self) -> float:
        """Return simulated seconds since the site opened."""
        return (self.clock.monotonic() - self._opened_s) * self.scale

    def now(self) -> datetime:
        """Return the wall clock, aware UTC."""
        return self.clock.now()

    def ambient_c(self) -> float:
        """Return the air temperature on site now, from the wall clock's hour."""
        now = self.now() + timedelta(hours=_LOCAL_OFFSET_H)
        return ambient_c(now.hour + now.minute / 60)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a miner reports at one instant. Temperatures hold one figure a board; hash rates are TH/s."""

    when: int
    phase: Phase
    hashrate_ths: TeraHashPerSecond
    average_ths: TeraHashPerSecond
    ideal_ths: TeraHashPerSecond
    board_ths: tuple[TeraHashPerSecond, ...]
    power_w: Watts
    power_limit_w: Watts
    board_c: tuple[Celsius, ...]
    chip_c: tuple[Celsius, ...]
    air_c: Celsius
    fans_rpm: tuple[int, int, int, int]
    fan_percent: int
    elapsed_s: int
    running_s: int
    accepted: int
    rejected: int

    @property
    def hashing(self) -> bool:
        """Return whether boards do work."""
        return self.hashrate_ths > 0

    @property
    def switched_off(self) -> bool:
        """Return whether an order put the miner to sleep."""
        return self.phase in {Phase.STOPPING, Phase.IDLE}


class Miner:
    """One miner. ``memory`` is the firmware's own volatile state (sessions, tokens), kept by its dialect."""

    def __init__(self, place: Place, seed: int, time: SiteTime, orders: OrderLog) -> None:
        self.place = place
        self.time = time
        self.fault: Fault | None = None
        self.memory: dict[str, object] = {}
        self._orders = orders
        self._noise = noise.key("miner", seed, place.miner_id)
        self._wanted = Goal.RUN
        timing = Timing(place.model.stop_s, place.model.warm_s, place.idle_share)
        initial = Goal.UNPLUGGED if place.dead else Goal.RUN
        self.true = Drive(timing, time.seconds(), initial)
        self.shown = Drive(timing, time.seconds(), initial)
        if place.dead or place.liar:
            self.fault = Fault("dead" if place.dead else str(place.liar))

    @property
    def dead(self) -> bool:
        """Return whether the miner is without power."""
        return self.true.goal is Goal.UNPLUGGED

    @property
    def liar(self) -> str | None:
        """Return the kind of lie the miner tells, if any."""
        kind = self.fault.kind if self.fault else ""
        return kind if kind in {"ack_without_effect", "reports_idle", "reports_idle_now"} else None

    def has(self, kind: str) -> bool:
        """Return whether the present fault is ``kind``."""
        return self.fault is not None and self.fault.kind == kind

    def set_fault(self, fault: Fault | None) -> None:
        """Replace the present fault; leaving ``dead`` or ``overheated`` boots the miner to what it was told last."""
        now_s = self.time.seconds()
        self.advance(now_s)
        before, self.fault = self.fault, fault
        if self.has("dead"):
            self._head(Goal.UNPLUGGED, now_s)
        elif self.has("overheated"):
            self._head(Goal.TRIPPED, now_s)
        elif self.has("reports_idle_now"):
            self.shown.head_for(Goal.IDLE, now_s)
        elif before is not None and before.kind in _MOVES_POWER:
            self._head(self._wanted, now_s)
        self.advance(now_s)

    def order(self, verb: Verb, delay_s: float = 0.0) -> None:
        """Receive a stop or start now, to act on in ``delay_s`` seconds; a liar only says that it does."""
        now_s = self.time.seconds()
        self.advance(now_s)
        goal = Goal.IDLE if verb is Verb.STOP else Goal.RUN
        effect = Effect()
        self._orders.add(ReceivedOrder(self.place.miner_id, verb, self.time.now(), now_s, effect))
        if self.has("ack_without_effect"):
            self._note_unmoved(verb, now_s, effect)
            return
        at_s = now_s + delay_s
        if self.fault is not None and self.fault.kind == "delayed":
            at_s += self.fault.seconds
        self._wanted = goal
        if self.has("overheated"):
            return
        self.shown.head_for(goal, at_s)
        if self.has("reports_idle") or self.has("reports_idle_now"):
            self._note_unmoved(verb, now_s, effect)
        else:
            self.true.head_for(goal, at_s, effect)
        if goal is Goal.IDLE and self.fault is not None and self.fault.kind == "self_waking":
            self._wake_itself(at_s + self.fault.seconds)
        self.advance(now_s)

    def advance(self, now_s: float) -> None:
        """Let everything due by ``now_s`` happen."""
        self.true.advance(now_s)
        self.shown.advance(now_s)

    def true_power_w(self, now_s: float) -> Watts:
        """Return what the miner really draws."""
        self.advance(now_s)
        return Watts(self.place.actual_w * self.true.share(now_s) * self._wobble(1, now_s, 0.006))

    def true_energy_wh(self, now_s: float) -> float:
        """Return the energy drawn since the site opened, in Wh of real time."""
        self.advance(now_s)
        return self.place.actual_w * self.true.share_seconds(now_s) / self.time.scale / 3600

    def true_hashing(self, now_s: float) -> bool:
        """Return whether the miner really hashes."""
        self.advance(now_s)
        return self.true.hash_share(now_s) > 0

    def true_hashrate_ths(self, now_s: float) -> TeraHashPerSecond:
        """Return what the miner really hashes."""
        self.advance(now_s)
        return TeraHashPerSecond(self.place.actual_ths * self.true.hash_share(now_s) * self._wobble(2, now_s, 0.012))

    def snapshot(self) -> Snapshot:
        """Return what the miner reports now."""
        now_s = self.time.seconds()
        self.advance(now_s)
        place, shown, boards = self.place, self.shown, self.place.model.boards
        share = shown.hash_share(now_s)
        rate = TeraHashPerSecond(place.actual_ths * share * self._wobble(2, now_s, 0.012))
        air_c = self.time.ambient_c()
        heat = shown.heat(now_s)
        hottest = tuple(
            air_c
            + heat * (34.0 + 2.5 * noise.at(self._noise, board) + 0.8 * noise.smooth(self._noise + board, now_s, 30))
            for board in range(boards)
        )
        accepted, rejected = self._shares(now_s)
        elapsed_s = int(now_s + _BOOTED_BEFORE_S + noise.at(self._noise, 77) * 20_000)
        since_s = shown.running_s(now_s)
        return Snapshot(
            when=self.device_time(),
            phase=shown.phase(now_s),
            hashrate_ths=rate,
            average_ths=TeraHashPerSecond(place.actual_ths * self._hashed_s(now_s) / (now_s + _BOOTED_BEFORE_S)),
            ideal_ths=place.model.nameplate_ths,
            board_ths=self._split(rate, now_s),
            power_w=Watts(place.actual_w * shown.share(now_s) * self._wobble(3, now_s, 0.008)),
            power_limit_w=place.model.nameplate_w,
            board_c=tuple(Celsius(round(figure, 1)) for figure in hottest),
            chip_c=tuple(Celsius(round(figure + 14.0 * heat, 1)) for figure in hottest),
            air_c=Celsius(round(air_c, 1)),
            fans_rpm=self._fans(heat, now_s),
            fan_percent=round(20 + 60 * min(heat, 1.3)),
            elapsed_s=elapsed_s,
            running_s=elapsed_s if since_s >= now_s else int(since_s),
            accepted=accepted,
            rejected=rejected,
        )

    def device_time(self) -> int:
        """Return the device's own clock in Unix seconds; a device with an unset clock counts from its boot."""
        if self.has("clock_unset"):
            return int(_UNSET_CLOCK_S + self.time.seconds() / self.time.scale)
        return int(self.time.now().timestamp())

    def shown_identity(self) -> tuple[str, str]:
        """Return (MAC lower-case, serial) as the device tells them."""
        if self.fault is not None and self.fault.kind == "wrong_identity":
            told = self.fault.detail or f"02:ff:{self.place.mac[6:]}"
            return told, told if ":" not in told else f"{noise.key('stranger', told):016x}"
        return self.place.mac, self.place.serial

    def _head(self, goal: Goal, now_s: float) -> None:
        self.true.head_for(goal, now_s)
        self.shown.head_for(goal, now_s)

    def _wake_itself(self, at_s: float) -> None:
        self.true.head_for(Goal.RUN, at_s)
        self.shown.head_for(Goal.RUN, at_s)

    def _note_unmoved(self, verb: Verb, now_s: float, effect: Effect) -> None:
        """A liar's power stays where it is: a start finds it running already, a stop never takes effect."""
        if verb is Verb.START and self.true.goal is Goal.RUN:
            effect.at_s = now_s

    def _wobble(self, stream: int, now_s: float, share: float) -> float:
        return 1.0 + share * noise.smooth(self._noise ^ stream, now_s, 20.0)

    def _split(self, rate: TeraHashPerSecond, now_s: float) -> tuple[TeraHashPerSecond, ...]:
        boards = self.place.model.boards
        weights = [1 + 0.03 * noise.smooth(self._noise + 100 + board, now_s, 40.0) for board in range(boards)]
        return tuple(TeraHashPerSecond(rate * weight / sum(weights)) for weight in weights)

    def _fans(self, heat: float, now_s: float) -> tuple[int, int, int, int]:
        base = 900 + 4300 * min(heat, 1.25)
        first, second, third, fourth = (
            int(base * (1 + 0.04 * noise.smooth(self._noise + 200 + fan, now_s, 15.0))) // 60 * 60 for fan in range(4)
        )
        return first, second, third, fourth

    def _hashed_s(self, now_s: float) -> float:
        """Return the seconds at full rate since boot, which lies before the site opened."""
        return self.shown.share_seconds(now_s) + _BOOTED_BEFORE_S

    def _shares(self, now_s: float) -> tuple[int, int]:
        found = int(self.place.actual_ths * 1e12 * self._hashed_s(now_s) / _HASHES_A_SHARE)
        rejected = found // (900 + self._noise % 600)
        return found - rejected, rejected
