"""``ballast-agent``: run, status, poll, failsafe, enrol.

Invariants: bad input is one line on stderr that says where, what and what to do, with exit code 2 and nothing changed;
a failure is one line with exit code 1. Each command imports what it needs when it runs, so that ``failsafe`` and
``poll`` work where grpc is broken or missing, and so that no command waits for the imports of another.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from agent.errors import AgentError, BadInput

if TYPE_CHECKING:
    from agent.settings import Settings

_DEFAULT_PORT: Final = 4028
_DURATION: Final = re.compile(r"([0-9]{1,6})([smh])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}
_LONGEST: Final = timedelta(days=7)
_FAILED: Final = 1
_BAD_INPUT: Final = 2
_STDIN: Final = "-"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 bad input."""
    try:
        options = _parser().parse_args(arguments)
        command: Callable[[argparse.Namespace], int] = options.command
        return command(options)
    except BadInput as error:
        return _complain(error, _BAD_INPUT)
    except AgentError as error:
        return _complain(error, _FAILED)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return _FAILED


class _Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ballast-agent", description="The site agent of Ballast.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run the agent until SIGTERM")
    _takes_config(run, _run)

    status = commands.add_parser("status", help="show how the agent stands, whether it runs or not")
    _takes_config(status, _status)
    status.add_argument("--json", action="store_true", help="print one JSON object")

    poll = commands.add_parser("poll", help="read one miner and show what it says")
    poll.add_argument("host", metavar="HOST[:PORT]")
    poll.add_argument("--dialect", default="auto", help="luxos, whatsminer, avalon, antminer, braiins, cgminer or auto")
    poll.add_argument("--json", action="store_true", help="print one JSON object")
    poll.add_argument("--raw", action="store_true", help="print the replies as they came, too")
    poll.set_defaults(command=_poll)

    enrol = commands.add_parser("enrol", help="trade a join token for this site's certificate")
    _takes_config(enrol, _enrol)
    enrol.add_argument("--token", required=True, help="what `ballast site token SITE` printed; - reads it from stdin")

    failsafe = commands.add_parser("failsafe", help="stop or start miners without cloud, link or daemon")
    _takes_config(failsafe, _failsafe)
    failsafe.add_argument("action", choices=("off", "on", "status"))
    failsafe.add_argument("--miner", nargs="+", metavar="ID", help="only these miners")
    failsafe.add_argument(
        "--for", dest="duration", default="4h", metavar="2h", help="how long the daemon keeps to it (4h)"
    )
    return parser


def _takes_config(parser: argparse.ArgumentParser, command: Callable[[argparse.Namespace], int]) -> None:
    parser.add_argument("--config", type=Path, default=Path("agent.toml"), help="the agent's settings (agent.toml)")
    parser.set_defaults(command=command)


def _quiet_grpc() -> None:
    # Its C core writes lines of its own form to stderr; what matters reaches us as errors. Read once, at its import.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def _settings(options: argparse.Namespace) -> "Settings":
    from agent.settings import load_settings

    return load_settings(options.config)


def _run(options: argparse.Namespace) -> int:
    _quiet_grpc()
    from agent.app import run_agent
    from agent.logs import log_to_stderr
    from agent.storage import StorageLost

    settings = _settings(options)
    log_to_stderr(settings.site.site_id)
    try:
        run_agent(settings)
    except StorageLost as error:
        return _complain(error, _FAILED)
    return 0


def _status(options: argparse.Namespace) -> int:
    import asyncio

    from agent import status
    from sitelink.clock import SystemClock

    found = asyncio.run(status.read_status(_settings(options), SystemClock()))
    print(status.as_json(found) if options.json else status.as_table(found))
    return 0


def _poll(options: argparse.Namespace) -> int:
    import asyncio

    from agent import probe
    from agent.cgminer.client import DEFAULT_DEADLINES, Address
    from agent.settings import parse_endpoint
    from sitelink.inventory import DIALECTS

    if options.dialect not in DIALECTS:
        raise BadInput(f"--dialect: {options.dialect!r} is not known; write one of {', '.join(DIALECTS)}")
    endpoint = parse_endpoint(options.host, _DEFAULT_PORT)
    try:
        found = asyncio.run(probe.probe(Address(endpoint.host, endpoint.port), options.dialect, DEFAULT_DEADLINES))
    except AgentError as error:
        raise BadInput(str(error)) from None
    if found.stranger is None or options.raw:
        print(probe.as_json(found, raw=options.raw) if options.json else probe.as_table(found))
        if options.raw and not options.json:
            print(probe.raw_replies(found))
    if found.stranger is not None:
        raise BadInput(found.stranger)
    return 0


def _enrol(options: argparse.Namespace) -> int:
    _quiet_grpc()
    from agent.enrol import enrol, read_token

    settings = _settings(options)
    text = sys.stdin.readline() if options.token == _STDIN else options.token
    identity = enrol(settings, read_token(text))
    print(
        f"enrolled as agent {identity.agent_id} of site {identity.site_id}; key and certificate are in "
        f"{settings.identity_dir}; now start ballast-agent run"
    )
    return 0


def _failsafe(options: argparse.Namespace) -> int:
    import asyncio

    from agent.failsafe import run_failsafe

    duration, miners = _duration(options.duration), tuple(options.miner or ())
    return asyncio.run(run_failsafe(_settings(options), options.action, miners, duration, sys.stdout))


def _duration(text: str) -> timedelta:
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise BadInput(f"--for: {text!r} is not a duration; write for example 90s, 30m or 2h")
    duration = timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
    if not timedelta(0) < duration <= _LONGEST:
        raise BadInput(f"--for: {text!r} is out of range; write at most {_LONGEST.days * 24}h")
    return duration


def _complain(error: BaseException, code: int) -> int:
    print("ballast-agent: " + " ".join(str(error).split()), file=sys.stderr)
    return code
