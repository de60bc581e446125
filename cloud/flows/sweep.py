"""The telemetry sweep: which links are really up, and which miners have gone silent.

Invariants: silence is said once when it begins and once when it ends, as counts a site, never a line a miner; what is
written passes the caller's fence in the same transaction.
"""

import logging
from dataclasses import dataclass, field
from typing import Final

from cloud.core.access import Principal
from cloud.hosting import queries, service
from cloud.hosting.model import MinerRow
from cloud.infra.db import Database
from cloud.infra.leases import Fence, no_fence
from sitelink.types import MinerState, Reason

_LOGGER: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class Sweep:
    """One replica's sweep of one tenant; it remembers who was silent."""

    silent: dict[str, frozenset[str]] = field(default_factory=dict)

    def run(self, database: Database, principal: Principal, fence: Fence = no_fence) -> None:
        """Close links nobody hears and say whose readings stopped or came back.

        Raises:
            LeaseLost: the lease behind ``fence`` is gone.
        """
        with database.unit_of_work(principal) as uow:
            fence(uow)
            for site_id in service.drop_silent_links(uow):
                _LOGGER.warning("site %s: the link is silent and counts as down; the site goes on by its plan", site_id)
        with database.unit_of_work(principal) as uow:
            now_silent = {
                site_id: frozenset(row.miner_id for row in queries.site_miners(uow, site_id) if _went_silent(row))
                for site_id in queries.site_ids(uow)
            }
        for site_id, miners in now_silent.items():
            before = self.silent.get(site_id, frozenset())
            if miners - before:
                _LOGGER.warning(
                    "site %s: %d more miners went silent, %d in all", site_id, len(miners - before), len(miners)
                )
            if before - miners:
                _LOGGER.warning("site %s: %d miners are heard again", site_id, len(before - miners))
        self.silent = now_silent


def _went_silent(row: MinerRow) -> bool:
    """Return whether a miner that was once read is no longer reported at all."""
    return row.state is MinerState.UNKNOWN and row.reason is Reason.NOT_REPORTED and row.read_at is not None
