"""A miner's password changed: made here, kept before it is sent, and the only one once the miner has shown it.

    made --> proposed (on disk) --> sent, read back --> COMPLETE: settled | not sent: forgotten
                                                   '--> else: both are kept; the next attempt sends the same one

Until it is settled the miner is opened by either, whatever it is asked or told: a stop waits for no rotation.

A refusal is not believed: one that follows a sending whose answer was lost may come from a miner that has taken the new
password and knows the former one no more.

Invariants: no new password ever leaves the site; a crash at any step leaves on disk whichever password the miner has; a
second attempt never makes a third password.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from agent.aside import on_disk
from agent.cgminer.control import MinerControl, Result, Wanted
from agent.cgminer.control.carry_out import Keep
from agent.cgminer.control.driver import Driver
from agent.cgminer.control.former import Former
from agent.cgminer.credentials import Credentials
from agent.cgminer.device import Device
from agent.cgminer.observation import Observation
from agent.errors import AccessDenied, AgentError, BadInput, Permanent, SessionBusy, UnsupportedDevice
from agent.vault import Vault
from sitelink.inventory import MinerEntry
from sitelink.types import Outcome, Reason, Verb
from sitelink.units import Watts

_LOG: Final = logging.getLogger(__name__)
_NEVER_SENT: Final = frozenset({"unsupported", "bad_parameters"})
_TRIES: Final = 20
_AGAIN_S: Final = 0.1
"""Another process holds the vault for milliseconds at a time."""
_LETTERS: Final = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Those that a person cannot mistake for each other; every firmware takes them."""
_LENGTHS: Final = {"whatsminer": 8}
_LENGTH: Final = 20
_Answer = TypeVar("_Answer")


class VaultControl(MinerControl):
    """The control of one miner whose passwords are in the vault."""

    def __init__(
        self, entry: MinerEntry, device: Device, former: Former, drivers: Callable[[str], Driver | None], vault: Vault
    ) -> None:
        """``drivers`` makes the driver of a dialect; ``former`` keeps what a start restores."""

        def made(dialect: str) -> Driver | None:
            if device.credentials is None:
                device.credentials = vault.credentials(entry, dialect)  # the inventory may have said ``auto``
            return drivers(dialect)

        super().__init__(device, entry.miner_id, former, made)
        self._entry = entry
        self._opens = device
        self._vault = vault

    async def identity(self) -> str:
        """See ``MinerControl.identity``."""
        return await self._by_either(super().identity)

    async def observe(self) -> Observation:
        """See ``MinerControl.observe``."""
        return await self._seen_by_either(super().observe)

    async def glance(self, idle_w: Watts) -> Observation:
        """See ``MinerControl.glance``."""
        return await self._seen_by_either(partial(super().glance, idle_w))

    async def stop(self) -> None:
        """See ``MinerControl.stop``."""
        await self._by_either(super().stop)

    async def start(self) -> None:
        """See ``MinerControl.start``."""
        await self._by_either(super().start)

    async def _by_either(self, work: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Do ``work`` with the present password, or the proposed one when a miner denies that: nothing was done yet.

        The one that opens stays in use; both stay on disk, since only the order's own read-back settles a rotation.
        """
        try:
            return await work()
        except AccessDenied:
            other = self._other()
            if other is None:
                raise
        former, self._opens.credentials = self._opens.credentials, other
        try:
            return await work()
        except AgentError:
            self._opens.credentials = former
            raise

    async def _seen_by_either(self, look: Callable[[], Awaitable[Observation]]) -> Observation:
        seen = await look()
        other = self._other() if seen.reason is Reason.ACCESS_DENIED else None
        if other is None:
            return seen
        former, self._opens.credentials = self._opens.credentials, other
        seen = await look()
        if seen.reason is Reason.ACCESS_DENIED:
            self._opens.credentials = former
        return seen

    def _other(self) -> Credentials | None:
        """Return the password, not in use now, that an unsettled rotation may have left the miner with."""
        proposed = self._vault.proposed(self._entry)
        if proposed is None:
            return None
        known = self._vault.credentials(self._entry, self._opens.dialect)
        return known if self._opens.credentials == proposed else proposed

    async def carry_out(self, wanted: Wanted, keep: Keep, *, kept: str = "", deadline_s: float | None = None) -> Result:
        """Carry out any verb as ``MinerControl`` does; a PASSWORD order without a secret is given one made here.

        Raises as ``MinerControl.carry_out``; Permanent too when the vault cannot keep the new password: nothing was
        sent.
        """
        unsettled = self._vault.proposed(self._entry)
        if wanted.verb is not Verb.PASSWORD or wanted.secret:
            return await self._opened_by_either(wanted, keep, unsettled, kept=kept, deadline_s=deadline_s)
        fresh = unsettled is None
        secret = await self._proposed() if unsettled is None else unsettled.password
        asked = replace(wanted, secret=secret)
        try:
            result = await self._opened_by_either(asked, keep, unsettled, kept=kept, deadline_s=deadline_s)
        except AgentError:
            await self._settle(taken=False, fresh=fresh)
            raise
        if result.outcome is Outcome.COMPLETE:
            await self._settle(taken=True, fresh=fresh)
        elif result.outcome is Outcome.REFUSED and result.reason in _NEVER_SENT:
            await self._settle(taken=False, fresh=fresh)
        return result

    async def _opened_by_either(
        self, wanted: Wanted, keep: Keep, unsettled: Credentials | None, *, kept: str, deadline_s: float | None
    ) -> Result:
        """Carry it out with the present password, or, where an earlier rotation is not settled, with that one's."""
        try:
            result = await super().carry_out(wanted, keep, kept=kept, deadline_s=deadline_s)
        except AccessDenied:
            if unsettled is None:
                raise
        else:
            if unsettled is None or result.reason != "access_denied":
                return result
        former, self._opens.credentials = self._opens.credentials, unsettled
        try:
            result = await super().carry_out(wanted, keep, kept=kept, deadline_s=deadline_s)
        except AgentError:
            self._opens.credentials = former
            raise
        if result.outcome is not Outcome.COMPLETE:
            self._opens.credentials = former
        return result

    async def _proposed(self) -> str:
        """Return a new password that the vault has on disk. Raises Permanent, SessionBusy."""
        known = self._vault.credentials(self._entry, self._opens.dialect)
        if known is None:
            raise UnsupportedDevice(
                f"{self._entry.miner_id}: its present password is not known here, so it cannot be changed; enter it "
                "first: ballast-agent credentials set"
            )
        fresh = Credentials(known.user, new_password(self._opens.dialect))
        try:
            await on_disk(partial(self._vault.propose, self._entry.miner_id, fresh))
        except BadInput as error:
            raise Permanent(f"{self._entry.miner_id}: its new password cannot be kept: {error}") from None
        return fresh.password

    async def _settle(self, *, taken: bool, fresh: bool) -> None:
        """End the rotation; a proposal of an earlier attempt may have been taken then, so only a proof ends it.

        What cannot be written stays proposed, beside the former password: the next attempt ends it.
        """
        if not (taken or fresh):
            return
        for _ in range(_TRIES):
            try:
                await on_disk(partial(self._vault.settle, self._entry.miner_id, taken=taken))
            except SessionBusy:
                await asyncio.sleep(_AGAIN_S)
            except BadInput as error:
                _LOG.error("vault: the new password of %s stays unsettled: %s", self._entry.miner_id, error)
                return
            else:
                return
        _LOG.error("vault: the new password of %s stays unsettled: another process changes it", self._entry.miner_id)


def new_password(dialect: str) -> str:
    """Return a password as long as the firmware takes, of letters and digits, each equally likely."""
    length = _LENGTHS.get(dialect, _LENGTH)
    most = 256 - 256 % len(_LETTERS)
    found = ""
    while len(found) < length:
        found += "".join(_LETTERS[byte % len(_LETTERS)] for byte in os.urandom(length) if byte < most)
    return found[:length]
