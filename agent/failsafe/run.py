"""One failsafe command: who does the work, and then the work.

    daemon answers on its socket            -> it does the work                        (by_daemon)
    it says nothing for 3 s, or takes nobody in:  hung
        without --take-over                 -> said, nothing done
        with it                             -> ended by its recorded process           (fence), then as below
    nobody listens, and the lock is free    -> this process takes it and does the work (alone)
    another failsafe holds it               -> waited for

Invariants: miners are driven only by who holds the lock; a command that lost its daemon in the middle looks again who
is there and goes on under the same order, which is taken once. Looking needs no lock.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TextIO

from agent.errors import AgentError, BadInput, Refused, SessionBusy, TimedOut, Unreachable
from agent.failsafe.by_daemon import ByDaemon
from agent.failsafe.choice import Choice, members, pick
from agent.failsafe.fence import pause, take_over
from agent.failsafe.sights import Around, Sight, document, show
from agent.inventory import load_sound
from agent.local_socket import SILENCE_S
from agent.lock import DAEMON, FAILSAFE, Held, Holder, StateLock, Unlockable, is_held
from agent.settings import Settings
from sitelink.clock import Clock, SystemClock
from sitelink.inventory import MinerEntry
from sitelink.types import MinerState, Verb

if TYPE_CHECKING:
    from agent.failsafe.alone import Alone

VERBS: Final = {"off": Verb.STOP, "on": Verb.START}
_ROUNDS: Final = 5
_NAMED: Final = 3
_WAIT_S: Final = 60.0
_STARTING_S: Final = 20.0
_PAUSE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for: ``action`` is off, on, status or release."""

    action: str
    choice: Choice
    duration: timedelta
    take_over: bool = False
    as_json: bool = False  # status: one JSON object; what else is to be said goes to stderr


def run_failsafe(settings: Settings, order: Order, out: TextIO) -> int:
    """Carry out ``order`` and print what is proven of each miner.

    Returns:
        0 when everything asked for is proven, else 1.

    Raises:
        BadInput: the inventory lists no sound miner; a miner or rack is not in it; a choice is missing.
        AgentError: the daemon is hung, or another failsafe is at work and does not end.
    """
    if order.action in VERBS and not order.choice:
        raise BadInput(f"failsafe {order.action}: say which miners: --all, --rack R, --miner ID or --mw X")
    if order.action not in VERBS and order.choice.load_w is not None:
        raise BadInput(f"failsafe {order.action}: --mw chooses among miners to switch; name miners, racks or --all")

    def say(line: str) -> None:
        print(line, file=sys.stderr if order.as_json else out, flush=True)

    fleet, complaints = _fleet(settings)
    for complaint in complaints[:_NAMED]:
        say(f"warning: left out: {complaint}")
    if len(complaints) > _NAMED:
        say(f"warning: left out: {len(complaints) - _NAMED} more rows; ballast-agent doctor")
    members(order.choice, fleet, settings.site.inventory.name)
    run = _Run(settings, order, fleet, SystemClock(), say, partial=bool(complaints))
    code = run.go()
    if order.as_json:
        print(run.shown, file=out, flush=True)
    return 1 if complaints and not order.choice.miners else code


def _fleet(settings: Settings) -> tuple[tuple[MinerEntry, ...], tuple[str, ...]]:
    """Return the miners that can be told of: one broken row keeps nobody from stopping the others."""
    path = settings.site.inventory
    fleet, complaints = load_sound(path, settings.site.state_dir)
    if not fleet:
        cause = complaints[0] if complaints else "no miner is listed; write one row for each miner of the site"
        raise BadInput(cause if complaints else f"{path}: {cause}")
    return fleet, complaints


class _Run:
    """One run of the command."""

    def __init__(
        self,
        settings: Settings,
        order: Order,
        fleet: tuple[MinerEntry, ...],
        clock: Clock,
        say: Callable[[str], None],
        *,
        partial: bool = False,
    ) -> None:
        """``partial``: rows of the inventory were left out."""
        self._partial = partial
        self._settings = settings
        self._order = order
        self._fleet = fleet
        self._clock = clock
        self._say = say
        self._state_dir = settings.site.state_dir
        self._daemon = ByDaemon(self._state_dir, fleet, say)
        self._order_id = f"failsafe-{_new_id()}"
        self._chosen: tuple[MinerEntry, ...] | None = None
        self.shown = ""

    def go(self) -> int:
        """Find who does the work until it is done."""
        trouble: AgentError = TimedOut("the daemon does not stay")
        for _ in range(_ROUNDS):
            try:
                self._daemon.hello()
                return self._ask_daemon()
            except SessionBusy as error:
                trouble = error
                pause(_PAUSE_S)
            except TimedOut as error:
                return self._past_a_hung_daemon(error)
            except Unreachable as error:
                trouble = error
                if self._order.action == "status":
                    return self._look_ourselves(error)
                done = self._alone_if_free()
                if done is not None:
                    return done
        raise trouble

    def _ask_daemon(self) -> int:
        order, daemon = self._order, self._daemon
        chosen = members(order.choice, self._fleet, self._settings.site.inventory.name)
        if order.action == "status":
            return self._show(*daemon.look(chosen))
        if order.action == "release":
            named = bool(order.choice) and not order.choice.everything
            return daemon.release([entry.miner_id for entry in chosen] if named else None)
        verb = VERBS[order.action]
        if order.choice.load_w is not None:
            chosen = self._pick(verb, chosen)
        return daemon.switch(verb, chosen, order.duration, self._order_id, everything=order.choice.everything)

    def _pick(self, verb: Verb, fleet: tuple[MinerEntry, ...]) -> tuple[MinerEntry, ...]:
        """Choose for a load, once: a daemon that comes back is not asked to choose others."""
        if self._chosen is None:
            asked_w = self._order.choice.load_w
            assert asked_w is not None
            figures, fixed = self._daemon.figures()
            picked = pick(verb, asked_w, fleet, figures, fixed)
            for line in picked.lines(verb, asked_w):
                self._say(line)
            self._chosen = picked.entries
        return self._chosen

    def _past_a_hung_daemon(self, error: TimedOut) -> int:
        """The daemon holds the lock and says nothing: end it where that was asked for, else say so."""
        if self._order.action == "status":
            return self._look_ourselves(error)
        if not self._order.take_over:
            raise TimedOut(
                f"{error}: it is hung, or this machine is; nothing is done that it might undo. To end it and go on "
                "without it, say the same with --take-over"
            )
        lock = StateLock(self._state_dir, FAILSAFE)
        self._say(f"{error}: taking over")
        take_over(self._state_dir, lock, self._say)
        with lock:
            return self._alone()

    def _alone_if_free(self) -> int | None:
        """Do the work under the lock; None when a daemon has it and may be starting: ask that again."""
        lock = StateLock(self._state_dir, FAILSAFE)
        until_s = self._clock.monotonic() + SILENCE_S
        told = False
        while True:
            try:
                with lock:
                    return self._alone()
            except Held as held:
                alive = held.holder is not None and held.holder.lives()
                other = alive and held.holder is not None and held.holder.role != DAEMON
                if other and self._order.take_over:
                    self._say(f"{held.holder}: taking over")
                    take_over(self._state_dir, lock, self._say)
                    continue
                if other and not told:
                    self._say(f"{held.holder} is at work here; waiting for it to end (Ctrl-C gives up)")
                    until_s, told = self._clock.monotonic() + _WAIT_S, True
                if not other and self._listens():
                    return None
                if self._clock.monotonic() >= until_s and not self._is_starting(held.holder):
                    return self._past_a_holder(held, other=other)
                pause(_PAUSE_S)
            except Unlockable as error:
                self._say(f"warning: {error}")
                return self._alone()

    def _is_starting(self, holder: Holder | None) -> bool:
        """Return whether a daemon has just been started: it reads its database before it listens."""
        young = holder is not None and holder.role == DAEMON and holder.lives()
        return young and holder is not None and holder.age_s(self._clock.monotonic()) < _STARTING_S

    def _past_a_holder(self, held: Held, *, other: bool) -> int:
        if other:
            raise Refused("busy", f"{held.holder} is still at work; end it, or say the same with --take-over") from None
        return self._past_a_hung_daemon(TimedOut("a daemon holds the lock and listens to nobody"))

    def _listens(self) -> bool:
        try:
            self._daemon.hello()
        except (Unreachable, TimedOut):
            return False
        except AgentError:
            return True
        return True

    def _look_ourselves(self, error: AgentError) -> int:
        if is_held(self._state_dir):
            self._say(f"the daemon does not answer ({error}); looking without it")
        return self._show(*self._made().look())

    def _show(self, sights: Sequence[Sight], around: Around) -> int:
        if self._order.as_json:
            self.shown = document(sights, around)
            return 1 if any(sight.state is MinerState.UNKNOWN for sight in sights) else 0
        return show(sights, around, self._say)

    def _alone(self) -> int:
        alone = self._made()
        if self._order.action == "release":
            return alone.release()
        return alone.switch(VERBS[self._order.action], self._order.duration)

    def _made(self) -> "Alone":
        from agent.failsafe.alone import Alone  # it drives devices: whoever asks a daemon does without its imports

        choice = self._order.choice
        if self._chosen is not None:
            choice = Choice(miners=tuple(entry.miner_id for entry in self._chosen))
        return Alone(
            self._settings, self._fleet, choice, self._order_id, self._clock, _new_id, self._say, self._partial
        )


def _new_id() -> str:
    return os.urandom(8).hex()
