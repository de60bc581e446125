"""A plan becomes an order: planner's plan in, hosting's signed order out, in one transaction.

Invariants: what is dispatched is the plan in force now; an event about an earlier one has nothing left to do, since the
later one came with its own, so late and doubled events are harmless; the order is valid until every stop has its start.
"""

from typing import Final

from cloud.core.events import PlanActivated
from cloud.hosting import service as hosting
from cloud.infra.db import UnitOfWork
from cloud.infra.outbox import HandlerContext
from cloud.planner import queries as planner
from cloud.planner.model import Plan
from sitelink.types import Fallback, SitePlan

FALLBACK: Final = Fallback.RUN
"""What the cloud asks for when a plan has run out; a site's own settings may be stricter."""


def dispatch_active_plan(context: HandlerContext, uow: UnitOfWork, event: PlanActivated) -> None:
    """Sign and hand over the plan that the event is about, unless another is in force by now.

    Raises:
        Refused: the site has no agent yet, or the signer refuses; the outbox tries again.
        Transient: the signer does not answer.
    """
    plan = planner.active_plan(uow, event.site_id)
    if plan is not None and plan.revision == event.revision:
        hosting.dispatch_plan(uow, compile_plan(plan), context.signer)


def compile_plan(plan: Plan) -> SitePlan:
    """Return the order for the site's agent; hosting fills in agent, signing epoch and sequence."""
    return SitePlan(
        plan_id=plan.plan_id,
        site_id=plan.site_id,
        agent_id="",
        signing_epoch=0,
        sequence=0,
        revision=plan.revision,
        issued_at=plan.created_at,
        valid=plan.valid,
        fallback=FALLBACK,
        curtailments=tuple(item.curtailment for item in plan.curtailments),
    )
