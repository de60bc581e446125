"""``ballast site``: create, import, token, list, gaps, revoke."""

import argparse
from pathlib import Path
from typing import Any

from cloud.cli.session import add_action, open_database
from cloud.core.errors import NotFound
from cloud.hosting import gaps, queries, service
from cloud.identity import enrolment
from cloud.identity.authority import CertificateAuthority
from cloud.infra.sites import require_site


def register(commands: Any) -> None:
    """Declare the commands."""
    site = commands.add_parser("site", help="create sites, import inventories, enrol and revoke agents")
    actions = site.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = add_action(actions, "create", "add a site", _create)
    create.add_argument("site_id", metavar="SITE", help="lower-case letters, digits and hyphens")
    create.add_argument("--name", default="", help="the name people see (default: the id)")
    create.add_argument("--timezone", default="UTC", help="IANA name, such as America/Chicago (default: %(default)s)")
    imported = add_action(actions, "import", "make CSV files the site's inventory (addresses stay out)", _import)
    imported.add_argument("site_id", metavar="SITE")
    imported.add_argument("inventory", type=Path, metavar="INVENTORY.CSV")
    imported.add_argument("meters", type=Path, nargs="?", metavar="METERS.CSV")
    token = add_action(actions, "token", "print a join token: one agent, within an hour", _token)
    token.add_argument("site_id", metavar="SITE")
    token.add_argument(
        "--needs-approval", action="store_true", help="its gateway waits until its key's fingerprint is approved"
    )
    add_action(actions, "list", "show every site", _list)
    lacking = add_action(actions, "gaps", "show what a site had no room for while its link was down", _gaps)
    lacking.add_argument("site_id", metavar="SITE")
    revoke = add_action(actions, "revoke", "shut an agent out", _revoke)
    revoke.add_argument("agent_id", metavar="AGENT")
    revoke.add_argument("--reason", default="revoked by the operator")


def _create(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, _, principal), database.unit_of_work(principal) as uow:
        service.create_site(uow, arguments.site_id, arguments.name, arguments.timezone)
    print(f"site {arguments.site_id} created; next: ballast site import {arguments.site_id} INVENTORY.CSV METERS.CSV")
    return 0


def _import(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, _, principal), database.unit_of_work(principal) as uow:
        report = service.import_inventory(uow, arguments.site_id, arguments.inventory, arguments.meters)
    print(
        f"site {arguments.site_id}: {report.miners} miners ({report.controllable} controllable),"
        f" {report.meters} meters; removed {report.removed_miners} miners, {report.removed_meters} meters"
    )
    return 0


def _token(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, settings, principal), database.unit_of_work(principal) as uow:
        require_site(uow, arguments.site_id)
        authority = CertificateAuthority(settings.key_dir, database.clock)
        needs_approval = arguments.needs_approval or settings.approve_agents
        print(enrolment.make_join_token(uow, authority, arguments.site_id, needs_approval=needs_approval))
    return 0


def _list(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, _, principal), database.unit_of_work(principal) as uow:
        enrolled = enrolment.open_agents(uow)
        for found in queries.fleet_overview(uow):
            link = "up" if found.link.up else "down"
            print(
                f"{found.site_id}  {found.miners_total} miners: {found.hashing} hashing, {found.idle} idle,"
                f" {found.unknown} unknown; link {link}, agent {found.link.agent_id or 'none'}"
            )
            for agent_id in enrolled.get(found.site_id, ()):
                if agent_id != found.link.agent_id:
                    print(f"    {agent_id} is enrolled and takes over when it connects; not yours? ballast site revoke")
    return 0


def _gaps(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, _, principal), database.unit_of_work(principal) as uow:
        require_site(uow, arguments.site_id)
        found = gaps.counted(uow, arguments.site_id)
    for item in found:
        kept = f"one in {item.kept_every_s} s kept" if item.kept_every_s else "none kept"
        when = f"{item.since:%Y-%m-%d %H:%M} to {item.until:%Y-%m-%d %H:%M} UTC"
        print(f"{item.items} items in {item.records} gaps, {kept}: {when}")
    if not found:
        print(f"site {arguments.site_id} left nothing out")
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, _, principal), database.unit_of_work(principal) as uow:
        if not enrolment.revoke(uow, arguments.agent_id, arguments.reason):
            raise NotFound(f"there is no enrolled agent {arguments.agent_id}; ballast site list shows them")
    print(f"agent {arguments.agent_id} is shut out")
    return 0
