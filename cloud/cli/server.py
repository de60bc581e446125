"""``ballast up``, and two of the processes it runs: ``serve`` and ``worker``."""

import argparse
import json
from collections.abc import Callable
from typing import Any

from cloud import app
from cloud.app import Ready
from cloud.cli.options import add_config, read_settings


def register(commands: Any) -> None:
    """Declare the commands."""
    _add(commands, "up", "run the whole control plane", _up).add_argument(
        "--json", action="store_true", help="say that it is ready as one JSON line"
    )
    _add(commands, "serve", "run the console and the site link only", _serve)
    _add(commands, "worker", "run the outbox and the periodic jobs only", _worker)


def _add(commands: Any, name: str, summary: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=f"{name}: {summary}.")
    add_config(parser)
    parser.set_defaults(run=run)
    return parser


def _up(arguments: argparse.Namespace) -> int:
    settings = read_settings(arguments)
    app.up(settings, arguments.config, _say_json if arguments.json else _say)
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    app.serve(read_settings(arguments))
    return 0


def _worker(arguments: argparse.Namespace) -> int:
    app.work(read_settings(arguments))
    return 0


def _say(ready: Ready) -> None:
    print(f"Ballast is ready: http://{ready.http}  (sites connect to {ready.link}, enrol at {ready.enrol})", flush=True)
    if ready.operator is not None:
        print(
            f"  operator {ready.operator.email}  one-time password {ready.operator.one_time_password}\n"
            "  It is shown only here and only now; you will be asked for your own at the first login.",
            flush=True,
        )


def _say_json(ready: Ready) -> None:
    document = {"ready": True, "http": f"http://{ready.http}", "link": ready.link, "enrol": ready.enrol}
    if ready.operator is not None:
        document |= {"login": ready.operator.email, "one_time_password": ready.operator.one_time_password}
    print(json.dumps(document), flush=True)
