"""What a lost site link makes unknown: everything that would say what is the case now. Pure.

Invariant: behind a lost link no figure and no state passes for live, on any page; what was last known stays in the
series and is shown with its date, and the agent's own plan goes on.
"""

from dataclasses import replace

import numpy as np

from cloud.api.source import MinerRead, SiteRead
from cloud.hosting.model import MinerRow, SiteSummary
from sitelink.types import MinerState, Reason


def without_lost(read: SiteRead) -> SiteRead:
    """Return ``read``; behind a lost link with every miner and every figure of now unknown."""
    if not read.summary.link.lost:
        return read
    everybody = np.ones(len(read.miners), dtype=bool)
    return replace(read, summary=_unknown_summary(read.summary), miners=read.miners.forgotten(everybody))


def without_lost_miner(read: MinerRead) -> MinerRead:
    """Return ``read``; behind a lost link with the miner's state and figures unknown."""
    if not read.summary.link.lost:
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
