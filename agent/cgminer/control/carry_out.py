"""One order to one miner, from who answers there to what it shows. Its ack is a hint; what is read back decides.

    identity --> before --> former --> kept --> send --> every second: shows? --> identity again --> Result
       |           |           |         |        |                    |
    WrongDevice   ... raised: nothing was sent    '- no answer: again  '- at the deadline: PARTIAL or UNVERIFIED

Invariants:

* Nothing is sent before the configuration it replaces is kept; everything raised here means that nothing was sent.
* A desired state is sent again until it is acknowledged, shows, or its deadline has passed. REBOOT, FIRMWARE and LOGS
  are sent once, whatever becomes of the answer: the device is looked at.
* A setting that shows already is not sent: some firmwares stop mining to take it. Nor is a firmware that runs already.
* New firmware is in force when the version has changed into the wanted one, or the miner has restarted with it.
* An order that a kill cut short is carried out again with what its first attempt kept. A desired state is then always
  sent, for that attempt may have died between two steps of its own; what is done once is only looked at.
* COMPLETE and PARTIAL name the miner that was asked for: who answers is read again before either is said, and before
  the order is sent again.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final

from agent.cgminer.control.driver import LOOK_S, SEND_AGAIN_S, Driver, ReadBack, Result, Shown, Wanted
from agent.cgminer.control.kept import kept_in
from agent.cgminer.control.versions import was_another
from agent.cgminer.device import Device
from agent.cgminer.observation import Observation
from agent.errors import (
    AccessDenied,
    AgentError,
    BrokenOff,
    Garbled,
    Refused,
    SessionBusy,
    Transient,
    UnsupportedDevice,
    WrongDevice,
)
from agent.reasons import reason_of
from sitelink.types import Evidence, Outcome, Verb
from sitelink.verbs import ONCE

Keep = Callable[[str], Awaitable[None]]
_TOLD_BY_SHOWING: Final = frozenset({Verb.LIMIT, Verb.BLINK, Verb.PASSWORD, Verb.FIRMWARE})
"""What is read back whole. A pool's password is not, so pools are always sent."""
DEADLINES_S: Final = {
    Verb.STOP: 30.0,
    Verb.START: 30.0,
    Verb.LIMIT: 180.0,
    Verb.POOLS: 60.0,
    Verb.BLINK: 15.0,
    Verb.PASSWORD: 30.0,
    Verb.REBOOT: 300.0,
    Verb.FIRMWARE: 900.0,
    Verb.LOGS: 120.0,
}
"""How long each verb may take on a device that takes its time, in seconds."""
INSTEAD: Final = {
    Verb.STOP: "give it an outlet in inventory.csv, or use its breaker",
    Verb.START: "give it an outlet in inventory.csv, or use its breaker",
    Verb.LIMIT: "set its frequency or profile on its own page, or stop it whole",
    Verb.POOLS: "set them on its own page",
    Verb.BLINK: "find it by rack and position, or press its IP report button",
    Verb.PASSWORD: "change it on its own page, then write it into this site's credentials",
    Verb.REBOOT: "stop and start it, or use its breaker",
    Verb.FIRMWARE: "use the vendor's tool",
    Verb.LOGS: "fetch them from its own page",
}
"""What to use where a vendor documents no command for a verb."""


async def check_identity(device: Device, miner_id: str) -> None:
    """Read afresh who answers.

    Raises:
        WrongDevice: it is not ``miner_id``.
        Transient: it does not answer. Permanent: it names itself by nothing.
    """
    found = await device.identity()
    if found.lower() != miner_id.lower():
        raise WrongDevice(
            f"{device.address}: {found} answers where the inventory has {miner_id}; "
            "find it: ballast-agent inventory follow, or correct its address in inventory.csv"
        )


def unsupported(device: Device, verb: Verb) -> UnsupportedDevice:
    """Return the error for a verb that the firmware has no documented command for."""
    return UnsupportedDevice(
        f"{device.address}: {device.dialect} firmware has no {verb.value} command; {INSTEAD[verb]}"
    )


async def carry_out(
    driver: Driver,
    device: Device,
    miner_id: str,
    wanted: Wanted,
    *,
    keep: Keep,
    deadline_s: float,
    kept: str = "",
    look_s: float = LOOK_S,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Result:
    """Carry ``wanted`` out on ``miner_id`` within ``deadline_s`` seconds of the first sending and return how it ended.

    ``keep`` stores the configuration that is being replaced, durably; it is also the last call before the order goes
    out, so whoever must remember that it did writes that down there. ``kept`` is what an earlier, interrupted attempt
    of the same order has kept, or what a stop kept for its start: it is not replaced. ``pause`` waits ``look_s``
    between looks.

    Raises:
        WrongDevice: another miner answers there. Nothing was sent.
        Transient: the device does not answer, or nothing could be kept. Nothing was sent; it may be tried again.
        Permanent: it cannot be read. Nothing was sent.
    """
    if wanted.verb not in driver.verbs:
        return _refused("unsupported", str(unsupported(device, wanted.verb)))
    await check_identity(device, miner_id)
    before = await device.observe()
    if wanted.verb in ONCE and kept:
        attempt = _Attempt(driver, device, miner_id, wanted, _before_then(kept, before), kept, sent_earlier=True)
        return await attempt.run(deadline_s, look_s, pause)
    former = kept or await driver.former(device, wanted)
    if wanted.verb in ONCE:
        former = json.dumps({"uptime_s": before.uptime_s, "former": former})
    attempt = _Attempt(driver, device, miner_id, wanted, before, former)
    if wanted.verb in _TOLD_BY_SHOWING and not kept:
        already = await attempt.as_it_is()
        if already is not None:
            return already
    await keep(former)
    return await attempt.run(deadline_s, look_s, pause)


def _before_then(kept: str, now: Observation) -> Observation:
    """Return what was observed before an order that an earlier attempt may have sent, as far as it was kept."""
    uptime_s = kept_in(kept).get("uptime_s")
    return replace(now, uptime_s=uptime_s if isinstance(uptime_s, int) else None)


@dataclass(slots=True)
class _Attempt:
    """What is known of one order while it is under way."""

    driver: Driver
    device: Device
    miner_id: str
    wanted: Wanted
    before: Observation
    former: str
    sent_earlier: bool = False
    acked: bool = False
    trouble: AgentError | None = None
    """Why the order was not acknowledged, as far as that is known."""
    blind: AgentError | None = None
    """Why the device could not be looked at last time."""
    seen: ReadBack = field(default=ReadBack(Shown.NOT_YET, Evidence.NONE, "not_looked_at"))
    content: bytes = b""

    async def as_it_is(self) -> Result | None:
        """Return how the order ends without anything being sent; None where it must be sent.

        Raises:
            AgentError: the version that runs cannot be read: nothing could prove a change of it.
        """
        self.seen, self.blind = await self._shown()
        if isinstance(self.blind, Refused):
            return _refused(self.blind.code, str(self.blind))
        if self.wanted.verb is Verb.FIRMWARE and self.blind is not None:
            raise self.blind
        if self.seen.shown is not Shown.DONE:
            return None
        if self.wanted.verb is Verb.FIRMWARE:
            self.seen = ReadBack(Shown.DONE, self.seen.evidence, "already_in_force")
        return self.ended(Outcome.COMPLETE)

    async def run(self, deadline_s: float, look_s: float, pause: Callable[[float], Awaitable[None]]) -> Result:
        """Send, look and send again until it shows or the deadline has passed."""
        ends_s = self.device.monotonic() + deadline_s
        sent_s = self.device.monotonic()
        refusal = None if self.sent_earlier else await self._send()
        while refusal is None:
            await self._look()
            if self.seen.shown is Shown.DONE and await self._is_still_who_was_asked():
                return self.ended(Outcome.COMPLETE)
            now_s = self.device.monotonic()
            if now_s >= ends_s or self._settled():
                return await self._given_up()
            if not self.acked and self.wanted.verb not in ONCE and now_s - sent_s >= SEND_AGAIN_S:
                sent_s = now_s
                refusal = await self._send_again()
            await pause(look_s)
        return refusal

    async def _send(self) -> Result | None:
        """Send the order; return a result only where the device has said that it will not do it."""
        try:
            self.content = await self.driver.send(self.device, self.wanted, self.former)
        except (Transient, Garbled) as error:
            self.trouble = error  # it may have arrived: the device is looked at
        except AccessDenied as error:
            return _refused("access_denied", str(error), self.former)
        except Refused as error:
            return _refused(error.code, str(error), self.former)
        except AgentError as error:
            return _refused("unsupported", str(error), self.former)
        else:
            self.acked, self.trouble = True, None
        return None

    async def _send_again(self) -> Result | None:
        """Send the order to the miner that was asked for; nothing while another answers there, or nobody."""
        return await self._send() if await self._is_still_who_was_asked() else None

    def _settled(self) -> bool:
        """Return whether waiting longer can change nothing: no text came, or a once-only order was not taken."""
        untaken = self.wanted.verb in ONCE and isinstance(self.trouble, SessionBusy)
        return self.wanted.verb is Verb.LOGS or untaken

    async def _look(self) -> None:
        if self.wanted.verb is Verb.LOGS:
            self.seen = _fetched(self.content)
            return
        self.seen, self.blind = await self._shown()
        untold = self.wanted.verb is Verb.FIRMWARE and not was_another(
            _former_in(self.former), self.wanted.parameters.get("version", "")
        )
        if untold and self.seen.shown is Shown.DONE:
            rebooted, self.blind = await self._shown(Verb.REBOOT)
            self.seen = self.seen if rebooted.shown is Shown.DONE else rebooted

    async def _shown(self, verb: Verb | None = None) -> tuple[ReadBack, AgentError | None]:
        """Return what the device shows of the order, or of ``verb``, and why it could not be looked at."""
        try:
            wanted = self.wanted if verb is None else replace(self.wanted, verb=verb)
            return await self.driver.shows(self.device, wanted, self.before), None
        except AgentError as error:
            return ReadBack(Shown.NOT_YET, Evidence.NONE, reason_of(error).value), error

    async def _is_still_who_was_asked(self) -> bool:
        try:
            await check_identity(self.device, self.miner_id)
        except AgentError as error:
            self.seen = ReadBack(Shown.NOT_YET, Evidence.NONE, reason_of(error).value)
            self.blind = error
            return False
        return True

    async def _given_up(self) -> Result:
        if self.seen.shown is Shown.PART and await self._is_still_who_was_asked():
            return self.ended(Outcome.PARTIAL)
        if self.sent_earlier and self.blind is None:
            self.seen = ReadBack(Shown.NOT_YET, self.seen.evidence, "outcome_unknown")
        elif self.trouble is not None and self.blind is None:
            self.seen = ReadBack(Shown.NOT_YET, self.seen.evidence, _why_unacknowledged(self.trouble))
        return self.ended(Outcome.UNVERIFIED)

    def ended(self, outcome: Outcome) -> Result:
        """Return how the order ended."""
        detail = "" if outcome is Outcome.COMPLETE else str(self.blind or self.trouble or "")
        return Result(outcome, self.seen.evidence, self.seen.reason, detail, self.former, self.content)


def _former_in(kept: str) -> str:
    """Return the driver's own former configuration in what is kept of an order that is sent once."""
    former = kept_in(kept).get("former")
    return former if isinstance(former, str) else ""


def _fetched(content: bytes) -> ReadBack:
    if content:
        return ReadBack(Shown.DONE, Evidence.DEVICE_STATE, "logs_received")
    return ReadBack(Shown.NOT_YET, Evidence.NONE, "no_logs")


def _why_unacknowledged(trouble: AgentError) -> str:
    if isinstance(trouble, BrokenOff):
        return "broken_off"
    return reason_of(trouble).value if isinstance(trouble, SessionBusy | Garbled) else "no_reply"


def _refused(reason: str, detail: str, former: str = "") -> Result:
    return Result(Outcome.REFUSED, Evidence.NONE, reason, detail, former)
