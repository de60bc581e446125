"""What every command takes, and how it becomes settings."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloud.infra.process import act_as_owner
from cloud.infra.supervisor import READY_FLAG
from cloud.settings import Settings, load_settings


def add_config(parser: argparse.ArgumentParser) -> None:
    """Declare ``--config``."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML (environment variables win)")


def add_action(
    actions: Any, name: str, summary: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """Declare one action of a group: it is told where the settings are, and ``run`` carries it out."""
    parser: argparse.ArgumentParser = actions.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
    add_config(parser)
    parser.set_defaults(run=run)
    return parser


def add_ready(parser: argparse.ArgumentParser) -> None:
    """Declare the descriptor on which a process tells its supervisor that it serves."""
    parser.add_argument(READY_FLAG, type=int, dest="ready_fd", help=argparse.SUPPRESS)


def announcer(arguments: argparse.Namespace) -> Callable[[], None]:
    """Return what to call once the process serves; without a supervisor it does nothing."""

    def announce() -> None:
        if arguments.ready_fd is not None:
            os.write(arguments.ready_fd, b"1")
            os.close(arguments.ready_fd)

    return announce


def read_settings(arguments: argparse.Namespace) -> Settings:
    """Return the settings that the arguments name; root acts as the owner of ``data_dir`` from here on.

    Raises:
        BadInput: the settings cannot be used.
        Refused: root cannot act as that owner.
    """
    settings = load_settings(arguments.config)
    act_as_owner(settings.data_dir)
    return settings
