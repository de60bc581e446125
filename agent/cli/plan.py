"""The plan that the site holds, and what of it applies now: plan show."""

import argparse

from agent.cli.shared import Commands, settings_of, takes_config


def add(commands: Commands) -> None:
    """Add the commands."""
    plan = commands.add_parser("plan", help="show the plan held, and what applies now")
    takes_config(plan, _show)
    plan.add_argument("action", choices=("show",))
    plan.add_argument("--json", action="store_true", help="print one JSON object")


def _show(options: argparse.Namespace) -> int:
    import json

    from agent.at_site import Site
    from agent.local_curtail.standing import lines
    from sitelink.clock import SystemClock

    document, source = Site(settings_of(options), SystemClock()).standing()
    if options.json:
        print(json.dumps({**document, "source": source}, indent=1))
        return 0
    for line in lines(document):
        print(line)
    print(f"told by     {source}")
    return 0
