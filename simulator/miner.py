r"""One simulated miner: its place, its true and its shown electronics, its flash, its fault, and its reboots.

Invariants:

* ``true`` drives the meters; ``shown`` drives every reply. They differ only in a liar.
* Seconds are simulated seconds since the site opened; the wall clock is used only for ``When``.
* Every order that a firmware takes comes through here and stands in the device log, whatever the fault makes of it.

      order -> true drive  -> feeder meter -> site meter
           \-> shown drive -> snapshot -> reply in the firmware's dialect
"""

from collections.abc import Callable, Mapping
from typing import Any

from simulator import noise
from simulator.faults import Fault
from simulator.kept import Kept, Pool, factory
from simulator.orders import OrderLog, ReceivedOrder
from simulator.physics import Drive, Effect, Goal, Timing
from simulator.roster import Place
from simulator.site_time import SiteTime
from simulator.snapshot import Snapshot, take, wobble
from sitelink.types import Verb
from sitelink.units import TeraHashPerSecond, Watts

__all__ = ["Miner", "SiteTime", "Snapshot"]

_BOOTED_BEFORE_S, _UNSET_CLOCK_S = 40_000.0, 986.0
_REBOOT_AFTER_S, _BOOT_S, _INSTALL_S = 1.0, 30.0, 75.0
_HALF = 0.45
_MOVES_POWER = {"dead", "overheated", "ack_without_effect", "reports_idle", "reports_idle_now", "half_effect"}
_HANDED_OUT = "logs handed out"
_FORGETS_SLEEP = frozenset({"luxos", "cgminer"})
"""Firmware whose stop ends with a reboot, unless ``keeps_sleep``: LuxOS's vendor has documented it both ways."""


class Miner:
    """One miner. ``memory`` is the firmware's own volatile state (sessions, tokens), kept by its dialect.

    ``on_reboot`` is called with each reboot, so that the ports can go away and come back.
    """

    __slots__ = (
        "_back_s",
        "_counted_from_s",
        "_down_s",
        "_later",
        "_orders",
        "_wanted",
        "booted_s",
        "fault",
        "kept",
        "memory",
        "noise_key",
        "on_reboot",
        "place",
        "plugged",
        "shown",
        "time",
        "true",
    )

    def __init__(self, place: Place, seed: int, time: SiteTime, orders: OrderLog, password: str | None = None) -> None:
        self.place = place
        self.time = time
        self.fault: Fault | None = None
        self.memory: dict[str, Any] = {}
        self.kept: Kept = factory(place.model.dialect, place.index, password)
        self.on_reboot: Callable[[Miner], None] = lambda _miner: None
        self.noise_key = noise.key("miner", seed, place.miner_id)
        self.booted_s = -_BOOTED_BEFORE_S - noise.at(self.noise_key, 77) * 20_000
        self._counted_from_s = self.booted_s
        self._down_s = self._back_s = -1.0
        self._later: list[tuple[float, Callable[[], None], Effect]] = []
        self._orders = orders
        self.plugged = True
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
    def away(self) -> bool:
        """Return whether the miner is rebooting, or its contactor is open, and answers nobody."""
        return not self.plugged or self._down_s <= self.time.seconds() < self._back_s

    @property
    def back_in_s(self) -> float:
        """Return the real seconds until a reboot is over; 0 when there is none."""
        return max(self._back_s - self.time.seconds(), 0.0) / self.time.scale

    @property
    def handed_out(self) -> tuple[bytes, ...]:
        """Return the logs given since the miner started, to judge what came of them."""
        return tuple(self.memory.get(_HANDED_OUT, ()))

    @property
    def asleep(self) -> bool:
        """Return whether the last order that the firmware took was a stop."""
        return self._wanted is Goal.IDLE

    @property
    def level(self) -> float:
        """Return what the miner is set to draw when running, as a share of nameplate."""
        return self.kept.level(self.place.model.nameplate_w)

    @property
    def liar(self) -> str | None:
        """Return the kind of lie the miner tells, if any."""
        kind = self.fault.kind if self.fault else ""
        return kind if kind in {"ack_without_effect", "reports_idle", "reports_idle_now"} else None

    def has(self, kind: str) -> bool:
        """Return whether the present fault is ``kind``."""
        return self.fault is not None and self.fault.kind == kind

    def set_fault(self, fault: Fault | None) -> None:
        """Replace the present fault; leaving ``dead`` boots the miner, leaving a lie makes it do what it was told."""
        now_s = self.time.seconds()
        self.advance(now_s)
        before, self.fault = self.fault, fault
        if before is not None and before.kind == "dead" and not self.has("dead"):
            self._boot(now_s)
        if self.has("dead") or not self.plugged:
            self._head(Goal.UNPLUGGED, now_s)
        elif self.has("overheated"):
            self._head(Goal.TRIPPED, now_s)
        elif self.has("reports_idle_now"):
            self.shown.head_for(Goal.IDLE, now_s)
        elif before is not None and before.kind in _MOVES_POWER:
            self._head(self._wanted, now_s)
        self.advance(now_s)

    def order(self, verb: Verb, delay_s: float = 0.0, **detail: object) -> None:
        """Receive a stop or start now, to act on in ``delay_s`` seconds; a liar only says that it does."""
        now_s = self.time.seconds()
        self.advance(now_s)
        goal = Goal.IDLE if verb is Verb.STOP else Goal.RUN
        effect = self._note(verb, now_s, detail)
        if self.has("ack_without_effect"):
            self._note_unmoved(verb, now_s, effect)
            return
        at_s = now_s + delay_s + self._delay_s()
        if self.has("forgets_limit") and goal is Goal.RUN and self._wanted is Goal.IDLE:
            self.kept.forget_limit()
        self._wanted = goal
        if self.has("overheated"):
            return
        if self.has("half_effect"):
            self._half(at_s)
            return
        self.shown.head_for(goal, at_s, level=self.level)
        if self.has("reports_idle") or self.has("reports_idle_now"):
            self._note_unmoved(verb, now_s, effect)
        else:
            self.true.head_for(goal, at_s, effect, self.level)
        if goal is Goal.IDLE and self.fault is not None and self.fault.kind == "self_waking":
            self._wake_itself(at_s + self.fault.seconds)
        self.advance(now_s)

    def switch(self, *, on: bool) -> None:
        """Have the contactor before the miner opened or closed; a welded one (``ack_without_effect``) stays closed."""
        now_s = self.time.seconds()
        self.advance(now_s)
        effect = self._note(Verb.START if on else Verb.STOP, now_s, {"outlet": True})
        if self.has("ack_without_effect") or self.has("dead"):
            return
        self.plugged = on
        if on:
            self._head(Goal.IDLE, now_s)
            self._down_s, self._back_s = now_s, now_s + _BOOT_S
            self.true.head_for(self._wanted, self._back_s, effect, self.level)
        else:
            self._down_s = self._back_s = -1.0
            self.shown.head_for(Goal.UNPLUGGED, now_s)
            self.true.head_for(Goal.UNPLUGGED, now_s, effect)
        self.advance(now_s)
        self.on_reboot(self)

    def limit(self, power_w: Watts | None = None, mode: str = "", **detail: object) -> None:
        """Receive a power limit or a mode; the power follows when the miner runs.

        ``power_w`` None with a mode leaves the limit, with neither lifts it.
        """
        now_s = self.time.seconds()
        self.advance(now_s)
        asked = {**({"power_w": round(power_w)} if power_w is not None else {}), **({"mode": mode} if mode else {})}
        effect = self._note(Verb.LIMIT, now_s, asked | detail)
        if self.has("ack_without_effect"):
            return
        at_s = now_s + self._delay_s()
        if self.has("delayed"):
            self._later.append((at_s, lambda: self._take_limit(power_w, mode, at_s, effect), Effect()))
        else:
            self._take_limit(power_w, mode, at_s, effect)
        self.advance(now_s)

    def choose_mode(self, mode: str) -> None:
        """Receive a mode that the firmware takes up with its next start."""
        self._note(Verb.LIMIT, self.time.seconds(), {"mode": mode})
        if not self.has("ack_without_effect"):
            self.kept.limit_w = None
            self.kept.more["next mode"] = mode

    def change(self, verb: Verb, apply: Callable[[], None], **detail: object) -> None:
        """Receive an order that changes what is kept: pools, lamp, password, firmware, logs."""
        now_s = self.time.seconds()
        self.advance(now_s)
        effect = self._note(verb, now_s, detail)
        if not self.has("ack_without_effect"):
            self._later.append((now_s + self._delay_s(), apply, effect))
        self.advance(now_s)

    def ignore(self, verb: Verb, **detail: object) -> None:
        """Receive an order that the firmware acknowledges and does not follow."""
        self._note(verb, self.time.seconds(), detail)

    def hand_out(self, log: bytes, /, **detail: object) -> bytes:
        """Return ``log``, having noted that it was asked for and given."""
        self._note(Verb.LOGS, self.time.seconds(), detail).at_s = self.time.seconds()
        self.memory.setdefault(_HANDED_OUT, []).append(log)
        return log

    def set_pools(self, pools: tuple[Pool, ...], active: int = 0) -> None:
        """Receive new pools, of which the one numbered ``active`` is mined on."""

        def keep() -> None:
            self.kept.pools, self.kept.active_pool = pools, active

        told = [{"url": pool.url, "user": pool.user, "password": pool.password} for pool in pools]
        self.change(Verb.POOLS, keep, pools=told, active=active)

    def set_password(self, new: str) -> None:
        """Receive a new password for the device's own account."""

        def keep() -> None:
            self.kept.password = new
            self.kept.password_changes += 1

        self.change(Verb.PASSWORD, keep)

    def install(self, version: str, digest: str, size: int) -> None:
        """Receive a firmware image: it runs after the reboot that follows."""
        if not self.has("ack_without_effect"):
            self.kept.more["next firmware"] = version
        self.reboot(Verb.FIRMWARE, _INSTALL_S, version=version, sha256=digest, bytes=size)

    def reboot(self, verb: Verb = Verb.REBOOT, boot_s: float = _BOOT_S, after_s: float = 0.0, **detail: object) -> None:
        """Receive a reboot: away a second past ``after_s``, back ``boot_s`` later with a new uptime, no sessions."""
        now_s = self.time.seconds()
        self.advance(now_s)
        effect = self._note(verb, now_s, detail)
        if self.has("ack_without_effect"):
            return
        self._down_s = now_s + after_s + _REBOOT_AFTER_S + self._delay_s()
        self._back_s = self._down_s + boot_s
        effect.at_s = self._back_s
        if self.true.goal in {Goal.RUN, Goal.IDLE}:
            self._head(Goal.IDLE, self._down_s)
        self.kept.reboots += 1
        self.on_reboot(self)

    def advance(self, now_s: float) -> None:
        """Let everything due by ``now_s`` happen."""
        for due in [due for due in self._later if due[0] <= now_s]:
            self._later.remove(due)
            due[1]()
            due[2].at_s = due[0]
        if 0 <= self._back_s <= now_s:
            self._boot(self._back_s)
        self.true.advance(now_s)
        self.shown.advance(now_s)

    def true_power_w(self, now_s: float) -> Watts:
        """Return what the miner really draws."""
        self.advance(now_s)
        return Watts(self.place.actual_w * self.true.share(now_s) * wobble(self.noise_key ^ 1, now_s, 0.006))

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
        share = self.true.hash_share(now_s)
        return TeraHashPerSecond(self.place.actual_ths * share * wobble(self.noise_key ^ 2, now_s, 0.012))

    def hashed_s(self, now_s: float) -> float:
        """Return the seconds at full rate since boot, as the device counts them."""
        return max(self.shown.share_seconds(now_s) - self._counted_from_s, 0.0)

    def snapshot(self) -> Snapshot:
        """Return what the miner reports now."""
        now_s = self.time.seconds()
        self.advance(now_s)
        return take(self, now_s)

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

    def state(self) -> Mapping[str, Any]:
        """Return what is kept and how the miner stands, for those who judge a test."""
        kept = self.kept
        return {
            "asleep": self.asleep,
            "away": self.away,
            "plugged": self.plugged,
            "mode": kept.mode,
            "limit_w": None if kept.limit_w is None else round(kept.limit_w),
            "active_pool": kept.active_pool,
            "pools": [{"url": pool.url, "user": pool.user, "password": pool.password} for pool in kept.pools],
            "led": kept.led,
            "password": kept.password,
            "password_changes": kept.password_changes,
            "firmware": kept.firmware,
            "reboots": kept.reboots,
            "uptime_s": max(int(self.time.seconds() - self.booted_s), 0),
            "settings": dict(kept.more),
        }

    def _note(self, verb: Verb, now_s: float, detail: Mapping[str, Any]) -> Effect:
        effect = Effect()
        self._orders.add(ReceivedOrder(self.place.miner_id, verb, self.time.now(), now_s, effect, detail))
        return effect

    def _delay_s(self) -> float:
        return self.fault.seconds if self.fault is not None and self.fault.kind == "delayed" else 0.0

    def _take_limit(self, power_w: Watts | None, mode: str, at_s: float, effect: Effect) -> None:
        before = self.level
        if mode:
            self.kept.mode = mode
        if power_w is not None or not mode:
            self.kept.limit_w = power_w
        level = (before + self.level) / 2 if self.has("half_effect") else self.level
        self.shown.relevel(level, at_s)
        if not (self.has("reports_idle") or self.has("reports_idle_now")):
            self.true.relevel(level, at_s, None if self.has("half_effect") else effect)

    def _half(self, at_s: float) -> None:
        """Half of the boards follow: power ends between rest and full, whatever was ordered."""
        for drive in (self.true, self.shown):
            drive.head_for(Goal.RUN, at_s, level=self.level * _HALF)
        self.advance(self.time.seconds())

    def _boot(self, at_s: float) -> None:
        """Come up at ``at_s``: uptime and shares from nothing, sessions gone, asleep only where sleep is kept."""
        self._down_s = self._back_s = -1.0
        for drive in (self.true, self.shown):
            drive.advance(at_s)
        forgets = self.place.model.dialect in _FORGETS_SLEEP or not self.kept.sleeps_on
        if self.has("forgets_sleep") or (forgets and not self.has("keeps_sleep")):
            self._wanted = Goal.RUN
        self.kept.mode = self.kept.more.pop("next mode", self.kept.mode)
        if self.true.goal in {Goal.RUN, Goal.IDLE}:
            self._head(self._wanted, at_s)
            if self.liar:
                self.true.head_for(Goal.RUN, at_s, level=self.level)
        self.kept.firmware = self.kept.more.pop("next firmware", self.kept.firmware)
        self.booted_s = at_s
        self._counted_from_s = self.shown.share_seconds(at_s)
        self.memory.clear()

    def _head(self, goal: Goal, at_s: float) -> None:
        for drive in (self.true, self.shown):
            drive.head_for(goal, at_s, level=self.level)

    def _wake_itself(self, at_s: float) -> None:
        self._head(Goal.RUN, at_s)

    def _note_unmoved(self, verb: Verb, now_s: float, effect: Effect) -> None:
        """A liar's power stays where it is: a start finds it running already, a stop never takes effect."""
        if verb is Verb.START and self.true.goal is Goal.RUN:
            effect.at_s = now_s
