"""Plan every site again, and weigh what is over: hosting's fleet, planner's decision.

Invariants: the solver runs between two transactions, never inside one; the second writes only if no other revision came
in between (compare-and-set), else everything is read again. Every transaction passes the caller's fence first, so a
caller that lost its lease writes nothing, and the solver does not run for it.
"""

from typing import Final

from cloud.core.access import Principal
from cloud.core.errors import Conflict
from cloud.hosting import queries as hosting
from cloud.infra.db import Database
from cloud.infra.leases import Fence, no_fence
from cloud.planner import service as planner
from cloud.planner.model import Plan
from cloud.planner.service import Policy
from cloud.planner.verify_service import VerifyPolicy, verify_finished

_ATTEMPTS: Final = 3


def replan_site(
    database: Database, principal: Principal, site_id: str, policy: Policy, fence: Fence = no_fence
) -> Plan | None:
    """Return the site's new active plan, or None when the one in force still says it all.

    Raises:
        Conflict: others kept writing.
        LeaseLost: the lease behind ``fence`` is gone.
        NotFound: there is no such site.
    """
    for attempt in range(_ATTEMPTS):
        with database.unit_of_work(principal) as uow:
            fence(uow)  # gathering notes price spikes
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
    """Weigh the site's finished curtailments and return those with a new verdict.

    Raises:
        LeaseLost: the lease behind ``fence`` is gone.
    """
    with database.unit_of_work(principal) as uow:
        fence(uow)
        return verify_finished(uow, site_id, policy)
