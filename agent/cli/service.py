"""The agent as a service: run, status, enrol."""

import argparse
import os
import sys
from typing import Final

from agent.cli.shared import FAILED, Commands, complain, settings_of, takes_config, watched

_STDIN: Final = "-"


def add(commands: Commands) -> None:
    """Add the commands."""
    run = commands.add_parser("run", help="run the agent until SIGTERM")
    takes_config(run, _run)

    status = commands.add_parser("status", help="show how the agent stands, whether it runs or not")
    takes_config(status, _status)
    status.add_argument("--json", action="store_true", help="print one JSON object")
    status.add_argument("--watch", action="store_true", help="show it again and again until Ctrl-C")

    enrol = commands.add_parser("enrol", help="trade a join token for this site's certificate")
    takes_config(enrol, _enrol)
    enrol.add_argument("--token", required=True, help="what `ballast site token SITE` printed; - reads it from stdin")


def _quiet_grpc() -> None:
    # Its C core writes lines of its own form to stderr; what matters reaches us as errors. Read once, at its import.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def _run(options: argparse.Namespace) -> int:
    _quiet_grpc()
    from agent.daemon import run_agent
    from agent.logs import log_to_stderr
    from agent.storage import StorageLost

    settings = settings_of(options)
    log_to_stderr(settings.site.site_id)
    try:
        run_agent(settings)
    except StorageLost as error:
        return complain(error, FAILED)
    return 0


def _status(options: argparse.Namespace) -> int:
    from agent import status
    from sitelink.clock import SystemClock

    settings, clock = settings_of(options), SystemClock()

    def show() -> int:
        found = status.read_status(settings, clock)
        print(status.as_json(found) if options.json else status.as_table(found))
        return 0

    return watched(show, again=options.watch)


def _enrol(options: argparse.Namespace) -> int:
    _quiet_grpc()
    try:
        from agent.enrol import enrol, read_token
    except ModuleNotFoundError as error:
        if error.name != "grpc":
            raise
        return complain("enrolling speaks gRPC, whatever carries the link; install ballast-agent[grpc] first", FAILED)
    settings = settings_of(options)
    text = sys.stdin.readline() if options.token == _STDIN else options.token
    told: list[str] = []

    def waits(fingerprint: str) -> None:
        if not told:
            print(
                f"this gateway's key has the fingerprint {fingerprint}; waiting for an operator: ballast agents approve"
                f" {fingerprint}\n(Ctrl-C gives up waiting; say the same again later)",
                flush=True,
            )
        told.append(fingerprint)

    identity = enrol(settings, read_token(text), waits)
    print(
        f"enrolled as agent {identity.agent_id} of site {identity.site_id}; key and certificate are in "
        f"{settings.identity_dir}; now start ballast-agent run"
    )
    return 0
