"""Use cases of market data: take a publication in. Services do not commit, and never touch the network."""

from cloud.analytics import store
from cloud.analytics.model import CollectReport, Publication
from cloud.core.access import Permission
from cloud.infra.db import UnitOfWork


def collect(uow: UnitOfWork, publication: Publication) -> CollectReport:
    """Store a publication; the same one again changes nothing but when it was last confirmed."""
    uow.principal.require(Permission.ORDER_MINERS)
    changed = store.put_prices(uow, publication, uow.now())
    return CollectReport(publication.market, len(publication.prices), changed)
