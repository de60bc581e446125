"""``ballast agents``: list, approve, refuse, revoke."""

import argparse
from typing import Any

from cloud.cli.session import add_action, open_database
from cloud.core.errors import NotFound
from cloud.hosting import queries
from cloud.identity import enrolment
from cloud.identity.authority import CertificateAuthority
from cloud.identity.revocation import WithdrawnCertificates


def register(commands: Any) -> None:
    """Declare the commands."""
    agents = commands.add_parser("agents", help="show sites' agents, approve their keys, shut them out")
    actions = agents.add_subparsers(dest="action", required=True, metavar="ACTION")
    add_action(actions, "list", "show every agent, and the keys that wait for approval", _list)
    for name, summary, run in (
        ("approve", "give the gateway that shows this fingerprint a certificate", _approve),
        ("refuse", "give the gateway that shows this fingerprint none", _refuse),
    ):
        add_action(actions, name, summary, run).add_argument(
            "fingerprint", metavar="FINGERPRINT", help="the whole of it, as the gateway shows it"
        )
    revoke = add_action(actions, "revoke", "shut an agent out, at the link and at the broker", _revoke)
    revoke.add_argument("agent_id", metavar="AGENT")
    revoke.add_argument("--reason", default="revoked by the operator")


def _list(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, _, principal), database.unit_of_work(principal) as uow:
        driving = {found.link.agent_id for found in queries.fleet_overview(uow) if found.link.up}
        for agent in enrolment.agents(uow):
            state = "drives its site" if agent.agent_id in driving else "not connected"
            print(
                f"{agent.site_id}  {agent.agent_id}  certificate {agent.generation},"
                f" holds until {agent.expires_at:%Y-%m-%d}; {state}"
            )
        for asked in enrolment.requests(uow):
            print(
                f"{asked.site_id}  {asked.fingerprint}  waits since {asked.asked_at:%Y-%m-%d %H:%M} UTC; does the"
                f" gateway show the same? ballast agents approve {asked.fingerprint}"
            )
    return 0


def _approve(arguments: argparse.Namespace) -> int:
    return _decide(arguments, approved=True)


def _refuse(arguments: argparse.Namespace) -> int:
    return _decide(arguments, approved=False)


def _decide(arguments: argparse.Namespace, *, approved: bool) -> int:
    with open_database(arguments) as (database, _, principal), database.unit_of_work(principal) as uow:
        asked = enrolment.decide(uow, arguments.fingerprint, approved=approved)
    said = "gets its certificate within seconds" if approved else "gets none"
    print(f"site {asked.site_id}: the gateway that shows {asked.fingerprint} {said}")
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    with open_database(arguments) as (database, settings, principal):
        with database.unit_of_work(principal) as uow:
            if not enrolment.revoke(uow, arguments.agent_id, arguments.reason):
                raise NotFound(f"there is no enrolled agent {arguments.agent_id}; ballast agents list shows them")
        authority = CertificateAuthority(settings.key_dir, database.clock)
        WithdrawnCertificates(authority.folder, authority).update(database)
    print(f"agent {arguments.agent_id} is shut out; a broker takes it over with: ballast broker DIR")
    return 0
