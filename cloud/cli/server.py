"""``ballast up``, and two of the processes it runs: ``serve`` and ``worker``."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from typing import Any

from cloud import app
from cloud.app import Ready
from cloud.cli.options import add_config, add_ready, announcer, read_settings


def register(commands: Any) -> None:
    """Declare the commands."""
    _add(commands, "up", "run the whole control plane", _up).add_argument(
        "--json", action="store_true", help="say that it is ready as one JSON line"
    )
    add_ready(_add(commands, "serve", "run the console and the site link only", _serve))
    _add(commands, "worker", "run the outbox and the periodic jobs only", _worker)


def _add(commands: Any, name: str, summary: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=f"{name}: {summary}.")
    add_config(parser)
    parser.set_defaults(run=run)
    return parser


def _up(arguments: argparse.Namespace) -> int:
    """Run it all. A password goes to a terminal only: anything else that stdout may be keeps what it gets."""
    seen = sys.stdout.isatty() and not arguments.json
    reset = "ballast operator reset"
    if arguments.config is not None:
        reset += f" --config {shlex.quote(str(arguments.config.absolute()))}"

    def tell(ready: Ready) -> None:
        print(_document(ready, reset) if arguments.json else "\n".join(_lines(ready, reset)), flush=True)

    app.up(read_settings(arguments), arguments.config, tell, shows_passwords=seen)
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    app.serve(read_settings(arguments), announcer(arguments))
    return 0


def _worker(arguments: argparse.Namespace) -> int:
    app.work(read_settings(arguments))
    return 0


def _lines(ready: Ready, reset: str) -> list[str]:
    lines = [f"Ballast is ready: http://{ready.http}  (sites connect to {ready.link}, enrol at {ready.enrol})"]
    if ready.operator is not None:
        lines += [
            f"  operator {ready.operator.email}  one-time password {ready.operator.one_time_password}",
            "  It is shown only here and only now; you will be asked for your own at the first login.",
        ]
    elif not ready.taken_over:
        lines.append(f"  Nobody has signed in yet. This prints the operator's one-time password: {reset}")
    return lines


def _document(ready: Ready, reset: str) -> str:
    document = {"ready": True, "http": f"http://{ready.http}", "link": ready.link, "enrol": ready.enrol}
    return json.dumps(document if ready.taken_over else {**document, "password": reset})
