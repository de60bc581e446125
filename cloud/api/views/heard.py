"""What a lost link, or a backlog still on its way, makes unknown: everything that would say what is now. Pure.

Invariant: behind a lost link, and until the backlog of one that is back has been heard, no figure and no state passes
for live, on any page; what was last known stays in the series and is shown with its date, and the agent's own plan
goes on.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from cloud.api.source import MinerRead, SiteRead
from cloud.hosting.model import MinerRow, SiteSummary
from sitelink.types import MinerState, Reason

FRESH: Final = timedelta(seconds=15)
"""A reading this young is of now, whatever waits behind it."""
_IN_FLIGHT_BATCHES: Final = 3
"""So many batches may be on their way at any time, without any outage."""


def catching_up(summary: SiteSummary, now: datetime) -> bool:
    """Return whether the site replays what it kept: the newest reading here is then of an earlier moment."""
    newest, link = summary.as_of, summary.link
    behind = newest is None or now - newest > FRESH
    return link.up and link.backlog_batches > _IN_FLIGHT_BATCHES and behind


def heard_now(summary: SiteSummary, now: datetime) -> bool:
    """Return whether what is stored of the site is what is the case now."""
    return not summary.link.lost and not catching_up(summary, now)


def without_unheard(read: SiteRead) -> SiteRead:
    """Return ``read``; where the site is not heard now, with every miner and every figure of now unknown."""
    if heard_now(read.summary, read.read_at):
        return read
    everybody = np.ones(len(read.miners), dtype=bool)
    return replace(read, summary=_unknown_summary(read.summary), miners=read.miners.forgotten(everybody))


def without_unheard_miner(read: MinerRead) -> MinerRead:
    """Return ``read``; where the site is not heard now, with the miner's state and figures unknown."""
    if heard_now(read.summary, read.read_at):
        return read
    return replace(read, summary=_unknown_summary(read.summary), miner=_unknown_row(read.miner))


def _unknown_summary(summary: SiteSummary) -> SiteSummary:
    return replace(
        summary,
        hashing=0,
        idle=0,
        unknown=summary.miners_total,
        power_w=None,
        device_power_w=None,
        hashrate_ths=None,
    )


def _unknown_row(row: MinerRow) -> MinerRow:
    return replace(
        row,
        state=MinerState.UNKNOWN,
        reason=Reason.NOT_REPORTED,
        hashrate_ths=None,
        power_w=None,
        board_temp_c=None,
        chip_temp_c=None,
        fan_rpm=None,
        uptime_s=None,
    )
