"""Keeps the list of withdrawn certificates as the database says, while the site link runs.

Invariant: a list that cannot be written or a database that cannot be read is logged once an outage; the list that
stands goes on to hold.
"""

import asyncio
import logging
from typing import Final

from cloud.core.errors import Transient
from cloud.identity.revocation import WithdrawnCertificates
from cloud.infra.db import Database
from cloud.infra.outage import OutageLog

_LOGGER: Final = logging.getLogger(__name__)
_EVERY_S: Final = 15.0


async def keep_withdrawn(withdrawn: WithdrawnCertificates, database: Database) -> None:
    """Write the list whenever it changes, until cancelled; a revocation stands in it within 15 s."""
    outage = OutageLog(_LOGGER, "the list of withdrawn certificates")
    while True:
        try:
            if await asyncio.to_thread(withdrawn.update, database):
                _LOGGER.info("certificates: the list of withdrawn ones was written anew")
            outage.recovered()
        except (Transient, OSError) as error:
            outage.failed(error)
        await asyncio.sleep(_EVERY_S)
