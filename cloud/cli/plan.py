"""``ballast plan``: show, make, verdicts."""

import argparse
import json
from collections.abc import Callable
from typing import Any

from cloud.cli.session import add_config, open_database
from cloud.core.errors import NotFound
from cloud.flows.curtailment import replan_site, verify_site
from cloud.infra.sites import require_site
from cloud.planner import queries
from cloud.planner.document import write_plan
from cloud.planner.queries import PlanView, VerificationView
from cloud.planner.service import policy
from cloud.planner.verify_service import verify_policy


def register(commands: Any) -> None:
    """Declare the commands."""
    plan = commands.add_parser("plan", help="show and make plans")
    actions = plan.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = _add(actions, "show", "show the plan in force at a site", _show)
    show.add_argument("--json", action="store_true", help="print the whole plan as JSON")
    _add(actions, "make", "plan a site now instead of at the next round", _make)
    _add(actions, "verdicts", "show what finished curtailments delivered", _verdicts)


def _add(actions: Any, name: str, summary: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
    parser.add_argument("site_id", metavar="SITE")
    add_config(parser)
    parser.set_defaults(run=run)
    return parser


def _show(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, _, principal), database.unit_of_work(principal) as uow:
        require_site(uow, arguments.site_id)
        plan, view = queries.active_plan(uow, arguments.site_id), queries.current_plan(uow, arguments.site_id)
    if plan is None or view is None:
        raise NotFound(f"site {arguments.site_id} has no plan yet; make one: ballast plan make {arguments.site_id}")
    print(json.dumps(write_plan(plan), indent=2) if arguments.json else "\n".join(describe(view)))
    return 0


def _make(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, settings, principal):
        plan = replan_site(database, principal, arguments.site_id, policy(settings))
        verify_site(database, principal, arguments.site_id, verify_policy(settings))
    if plan is None:
        print(f"site {arguments.site_id}: the plan in force still says it all")
    else:
        print(f"site {arguments.site_id}: revision {plan.revision} is active; {plan.reason}")
    return 0


def _verdicts(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, _, principal), database.unit_of_work(principal) as uow:
        require_site(uow, arguments.site_id)
        for view in queries.verifications(uow, arguments.site_id):
            print(describe_verdict(view))
    return 0


def describe(view: PlanView) -> list[str]:
    """Return a plan as lines of text."""
    lines = [
        f"site {view.site_id} revision {view.revision} ({view.method}), valid until {view.valid.end.isoformat()}",
        f"  {view.reason}",
        f"  objective {view.objective_usd:.2f} USD, bound {view.bound_usd:.2f} USD, gap {view.gap:.1e}",
        f"  short of caps and limits by {view.slack_mwh:.6f} MWh",
    ]
    lines += [f"  not planned for: {count} {reason}" for reason, count in view.skipped.items()]
    for item in view.curtailments:
        lines.append(
            f"  stop {len(item.miner_ids)} miners ({item.expected_w / 1e3:.1f} kW, {item.cause.value}) from"
            f" {item.interval.start.isoformat()} to {item.interval.end.isoformat()}  {item.curtailment_id}"
        )
    if not view.curtailments:
        lines.append("  nothing to stop: every miner runs")
    return lines


def describe_verdict(view: VerificationView) -> str:
    """Return a verdict as one line of text."""
    delivered = "not known" if view.verified_mwh is None else f"{view.verified_mwh:.6f} MWh"
    liars = f"; liars: {', '.join(view.liars)}" if view.liars else ""
    return (
        f"{view.curtailment_id} {view.status.value}: {delivered} of {view.expected_mwh:.6f} MWh expected;"
        f" {view.complete} of {view.miners} miners confirmed{liars}; {view.reason}"
    )
