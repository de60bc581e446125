"""Plan every site again, and weigh what is over: hosting's fleet, planner's decision.

Invariants: the solver runs between two transactions, never inside one; the second writes only if no other revision came
in between (compare-and-set), else everything is read again; a caller that lost its lease writes nothing.
"""

from collections.abc import Callable
from typing import Final

from cloud.core.access import Principal
from cloud.core.errors import Conflict
from cloud.hosting import queries as hosting
from cloud.infra.db import Database, UnitOfWork
from cloud.planner import service as planner
from cloud.planner.model import Plan
from cloud.planner.service import Policy
from cloud.planner.verify_service import VerifyPolicy, verify_finished

Fence = Callable[[UnitOfWork], None]
_ATTEMPTS: Final = 3


def no_fence(uow: UnitOfWork) -> None:
    """Let every transaction pass: for callers without a lease."""
    del uow


def replan_site(
    database: Database, principal: Principal, site_id: str, policy: Policy, fence: Fence = no_fence
) -> Plan | None:
    """Return the site's new active plan, or None when the one in force still says it all.

    Raises:
        Conflict: others kept writing, or the lease behind ``fence`` is lost.
        NotFound: there is no such site.
    """
    for attempt in range(_ATTEMPTS):
        with database.unit_of_work(principal) as uow:
            fleet = hosting.site_miners(uow, site_id)
            situation = planner.gather(uow, site_id, fleet, policy)
        plan = planner.propose(situation)
        try:
            with database.unit_of_work(principal) as uow:
                fence(uow)
                return planner.activate(uow, situation, plan)
        except Conflict:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def verify_site(
    database: Database, principal: Principal, site_id: str, policy: VerifyPolicy, fence: Fence = no_fence
) -> tuple[str, ...]:
    """Weigh the site's finished curtailments and return those with a new verdict."""
    with database.unit_of_work(principal) as uow:
        fence(uow)
        return verify_finished(uow, site_id, policy)
