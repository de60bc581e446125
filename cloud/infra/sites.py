"""Whether a site exists: what every use case asks that is about one."""

from sqlalchemy import select

from cloud.core.errors import NotFound
from cloud.infra.db import UnitOfWork
from cloud.models.hosting import HOSTING_SITES


def require_site(uow: UnitOfWork, site_id: str) -> None:
    """Return if there is such a site in scope.

    Raises:
        NotFound: there is none.
    """
    rows = HOSTING_SITES.c
    query = select(rows.site_id).where(rows.tenant_id == uow.tenant_id, rows.site_id == site_id)
    if not uow.principal.sees(site_id) or uow.session.execute(query).one_or_none() is None:
        raise NotFound(f"there is no site {site_id}; ballast site list shows them")
