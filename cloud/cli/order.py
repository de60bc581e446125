"""``ballast order VERB SITE --miner ID ...``: one signed command to miners of a site, and how it ended for each."""

import argparse
import getpass
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from cloud.cli.session import add_config, open_database
from cloud.core.access import Principal
from cloud.core.errors import BadInput, Forbidden, NotFound
from cloud.hosting import queries, service
from cloud.identity import service as identity
from cloud.infra.db import Database
from cloud.infra.signer_client import SignerClient
from sitelink.miner_ids import canonical
from sitelink.types import Ack, Outcome, Verb
from sitelink.verbs import MODES, BadCommand, check_parameters

_DURATION: Final = re.compile(r"([0-9]{1,4})([mh])")
_MINUTES: Final = {"m": 1, "h": 60}
_LONGEST: Final = timedelta(days=1)
_POOL: Final = ("url", "user")
_LOOK_S: Final = 1.0
_SETTLE: Final = timedelta(minutes=16)
"""How long the slowest verb, new firmware, may take after it was begun in its last moment."""
_SUMMARIES: Final = {
    Verb.STOP: "stop miners, whatever the plan says, for as long as the order holds (--for)",
    Verb.START: "let miners run, whatever the plan says, for as long as the order holds (--for)",
    Verb.LIMIT: "set a power limit or a power mode",
    Verb.POOLS: "set the pools",
    Verb.BLINK: "let a light blink, or not",
    Verb.PASSWORD: "let the site make a new password and keep it",
    Verb.REBOOT: "reboot, once",
    Verb.LOGS: "fetch logs; they stay at the site",
    Verb.FIRMWARE: "new firmware, one rack first; two people must stand for it",
}


def register(commands: Any) -> None:
    """Declare the commands."""
    order = commands.add_parser("order", help="tell miners to limit, reboot, blink, change pools, firmware ...")
    verbs = order.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, summary in _SUMMARIES.items():
        parser = verbs.add_parser(verb.value, help=summary, description=f"{summary.capitalize()}.")
        parser.add_argument("site_id", metavar="SITE")
        parser.add_argument("--miner", nargs="+", required=True, metavar="ID", help="these miners, in this order")
        parser.add_argument("--reason", default="by hand", help="one line for the record (default: %(default)s)")
        parser.add_argument("--for", dest="valid_for", default="10m", metavar="10m", help="when it expires (10m)")
        parser.add_argument("--watch", action="store_true", help="wait until it has ended for each miner")
        add_config(parser)
        parser.set_defaults(run=_run, asked=verb)
        if verb in _FIELDS:
            _FIELDS[verb](parser)


def _limit_fields(parser: argparse.ArgumentParser) -> None:
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument("--power-w", dest="power_w", metavar="W")
    either.add_argument("--mode", choices=MODES)


def _pool_fields(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pool",
        nargs="+",
        action="append",
        required=True,
        metavar=("URL", "USER"),
        help="up to three; each one's password is asked for on the terminal, or is a line of stdin",
    )
    parser.add_argument("--passwords-from", metavar="FILE", help="a file with the pools' passwords, one a line")


def _blink_fields(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--off", action="store_true", help="end it")


def _firmware_fields(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--file", required=True, help="the image in the gateway's firmware folder")
    parser.add_argument("--sha256", required=True, help="the image's SHA-256")
    parser.add_argument("--version", required=True, help="what the miner shows afterwards")
    parser.add_argument(
        "--approved-by",
        nargs=2,
        required=True,
        metavar="EMAIL",
        help="two operators; each gives the own password, on the terminal or as a line of stdin",
    )


_FIELDS: Final[dict[Verb, Callable[[argparse.ArgumentParser], None]]] = {
    Verb.LIMIT: _limit_fields,
    Verb.POOLS: _pool_fields,
    Verb.BLINK: _blink_fields,
    Verb.FIRMWARE: _firmware_fields,
}


def parameters_of(arguments: argparse.Namespace) -> dict[str, str]:
    """Return what the verb needs, as typed; the passwords of pools are read, for a command line shows to others.

    Raises:
        BadInput: it does not fit.
    """
    verb: Verb = arguments.asked
    found: dict[str, str] = {}
    if verb is Verb.LIMIT:
        found = {"mode": arguments.mode} if arguments.mode else {"power_w": arguments.power_w}
    elif verb is Verb.POOLS:
        pools = _pools(arguments.pool, arguments.passwords_from)
        found = {"pools": json.dumps(pools, separators=(",", ":"))}
    elif verb is Verb.BLINK:
        found = {"on": "false" if arguments.off else "true"}
    elif verb is Verb.FIRMWARE:
        found = {name: getattr(arguments, name) for name in ("file", "sha256", "version")}
    try:
        check_parameters(verb, found)
    except BadCommand as error:
        raise BadInput(str(error)) from None
    return found


def _pools(typed: Sequence[Sequence[str]], passwords_from: str | None) -> list[dict[str, str]]:
    for pool in typed:
        if len(pool) > len(_POOL):
            raise BadInput(
                "--pool: a password on the command line shows in ps and in the shell's history, so none is taken; "
                "write --pool URL USER, and give it on the terminal, as a line of stdin or by --passwords-from FILE"
            )
        if len(pool) < len(_POOL):
            raise BadInput(f"--pool: {pool[0]!r} has no user; write --pool URL USER")
    if passwords_from is None:
        passwords = [_password(f"{user} at {url}") for url, user in typed]
    else:
        passwords = _lines(passwords_from, len(typed))
    pairs = zip(typed, passwords, strict=True)
    return [{**dict(zip(_POOL, pool, strict=True)), "password": password} for pool, password in pairs]


def _lines(path: str, count: int) -> list[str]:
    """Return the passwords that a file holds, one a line. Raises BadInput when they are not ``count``."""
    try:
        found = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--passwords-from: {path} cannot be read: {error}") from None
    if len(found) != count:
        raise BadInput(f"--passwords-from: {path} has {len(found)} lines for {count} pools; write one password a line")
    return found


def _run(arguments: argparse.Namespace) -> int:
    verb: Verb = arguments.asked
    parameters, valid_for = parameters_of(arguments), _duration(arguments.valid_for)
    miners = tuple(dict.fromkeys(canonical(name) for name in arguments.miner))
    with open_database(arguments) as (database, settings, principal):
        approved_by = _vouched(database, principal, getattr(arguments, "approved_by", ()))
        with database.unit_of_work(principal) as uow:
            known = set(queries.site_miners(uow, arguments.site_id).inventory.miner_id)
            unknown = [name for name in miners if name not in known]
            if unknown:
                raise NotFound(f"--miner: {unknown[0]!r} is not at {arguments.site_id}; write one of its miner ids")
            order_id = service.queue_command(
                uow,
                arguments.site_id,
                verb,
                miners,
                arguments.reason,
                SignerClient(settings.signer_socket),
                valid_for,
                parameters,
                approved_by,
            )
        print(f"order {order_id}: {verb.value} of {len(miners)} miners, signed; the site takes it when its link is up")
        if not arguments.watch:
            return 0
        return _watch(database, principal, arguments.site_id, order_id, miners, valid_for)


def _vouched(database: Database, principal: Principal, emails: Sequence[str]) -> tuple[str, ...]:
    """Return who stands for the order, each by the own password.

    Raises:
        BadInput: one person is named twice.
        Forbidden: a password is wrong, still the one-time one, or its account may not order miners.
    """
    if len({email.strip().casefold() for email in emails}) != len(emails):
        raise BadInput("--approved-by: two people are needed; write two operators' emails")
    found: list[str] = []
    for email in emails:
        with database.unit_of_work(principal) as uow:
            known = identity.vouch(uow, email, _password(email))
        if known is None:
            raise Forbidden(
                f"{email} does not stand for it: wrong password, a one-time password not changed in the console yet, "
                "or an account that may not order miners"
            )
        found.append(known)
    return tuple(found)


def _password(whose: str) -> str:
    """Return a password from the terminal, else the next line of stdin. Raises BadInput when there is none."""
    if sys.stdin.isatty():
        return getpass.getpass(f"password of {whose}: ")
    line = sys.stdin.readline()
    if not line:
        raise BadInput(f"stdin: ends before the password of {whose}; give each password as one line")
    return line.rstrip("\r\n")


def _watch(
    database: Database, principal: Principal, site_id: str, order_id: str, miners: tuple[str, ...], valid_for: timedelta
) -> int:
    """Print each miner's outcome as it comes; return 0 when all are complete."""
    ended: dict[str, Ack] = {}
    until_s = time.monotonic() + (valid_for + _SETTLE).total_seconds()
    while len(ended) < len(miners) and time.monotonic() < until_s:
        with database.unit_of_work(principal) as uow:
            acks = {ack.miner_id: ack for ack in queries.acks(uow, site_id, order_id) if ack.miner_id}
        for name in (name for name in miners if name in acks and ended.get(name) != acks[name]):
            ended[name] = acks[name]
            print(f"{name}  {ended[name].outcome.value}  {ended[name].reason}")
        time.sleep(_LOOK_S)
    done = sum(ack.outcome is Outcome.COMPLETE for ack in ended.values())
    silent = [name for name in miners if name not in ended]
    print(f"{done} of {len(miners)} complete" + (f"; nothing heard of {', '.join(silent)}" if silent else ""))
    return 0 if done == len(miners) else 1


def _duration(text: str) -> timedelta:
    match = _DURATION.fullmatch(text)
    duration = timedelta(minutes=int(match[1]) * _MINUTES[match[2]]) if match else timedelta(0)
    if not timedelta(0) < duration <= _LONGEST:
        raise BadInput(f"--for: {text!r} is not a duration of at most a day; write for example 10m or 2h")
    return duration
