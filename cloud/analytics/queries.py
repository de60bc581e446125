"""Market prices to read."""

from collections.abc import Sequence
from datetime import datetime

from cloud.analytics import store
from cloud.analytics.model import MarketPrice
from cloud.core.access import Permission
from cloud.infra.db import UnitOfWork


def prices(uow: UnitOfWork, market: str, since: datetime, until: datetime) -> Sequence[MarketPrice]:
    """Return the prices of intervals that touch ``[since, until)``, by start; an interval without a price is absent."""
    uow.principal.require(Permission.READ_FLEET)
    return store.prices(uow, market, since, until)
