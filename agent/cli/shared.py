"""What the groups of commands share: exit codes, the settings file, durations, complaints."""

import argparse
import re
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent.errors import AgentError, BadInput

if TYPE_CHECKING:
    from agent.settings import Settings

FAILED: Final = 1
_WATCH_S: Final = 2.0
BAD_INPUT: Final = 2
Commands = Any
"""What ``add_subparsers`` returns; argparse keeps its name private."""
_DURATION: Final = re.compile(r"([0-9]{1,6})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST: Final = timedelta(days=7)
_LAST_PORT: Final = 65_535


def takes_config(parser: argparse.ArgumentParser, command: Callable[[argparse.Namespace], int]) -> None:
    """Let ``parser`` run ``command`` on a settings file."""
    parser.add_argument("--config", type=Path, default=Path("agent.toml"), help="the agent's settings (agent.toml)")
    parser.set_defaults(command=command)


def settings_of(options: argparse.Namespace) -> "Settings":
    """Return the settings in the file that ``--config`` names. Raises BadInput."""
    from agent.settings import load_settings

    return load_settings(options.config)


def duration_of(text: str) -> timedelta:
    """Return ``90s``, ``30m``, ``2h`` or ``2d`` as a duration of at most a week. Raises BadInput."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise BadInput(f"--for: {text!r} is not a duration; write for example 90s, 30m, 2h or 2d")
    duration = timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
    if not timedelta(0) < duration <= _LONGEST:
        raise BadInput(f"--for: {text!r} is out of range; write at most {_LONGEST.days}d")
    return duration


def check_port(option: str, port: int) -> None:
    """Raise BadInput when what ``option`` gives is no port."""
    if not 1 <= port <= _LAST_PORT:
        raise BadInput(f"{option}: {port} is no port; write one from 1 to {_LAST_PORT}")


def watched(show: Callable[[], int], *, again: bool) -> int:
    """Return what ``show`` returns; where ``again``, show it anew until Ctrl-C, on a screen of its own."""
    if not again:
        return show()
    from agent.failsafe.fence import pause

    while True:
        if sys.stdout.isatty():
            print("\x1b[2J\x1b[H", end="")
        try:
            show()
        except AgentError as error:  # what is broken now may be whole at the next look
            complain(error, FAILED)
        sys.stdout.flush()
        pause(_WATCH_S)


def complain(error: BaseException | str, code: int) -> int:
    """Say ``error`` in one line on stderr and return ``code``."""
    print("ballast-agent: " + " ".join(str(error).split()), file=sys.stderr)
    return code
